"""Write a profile down: for pstats, for KCachegrind, and the figures about it."""

from __future__ import annotations

import io
import json
import marshal
from pathlib import Path
import re
from typing import Any

from pytest_eventlet_debug.profiling.stats import Stats


def write_pstats(stats: Stats, path: Path) -> None:
    """Write a file for ``python -m pstats``, snakeviz and others.

    :raises OSError: it cannot be written.
    """
    path.write_bytes(marshal.dumps(stats))


def write_callgrind(pstats_path: Path, path: Path, command: str, about: dict[str, str]) -> None:
    """Convert a file of pstats for KCachegrind and callgrind_annotate.

    :param command: what was profiled; viewers head their windows and listings with it.
    :param about: more to say of it, as names and values.
    :raises OSError: it cannot be written.
    """
    import pyprof2calltree  # only those who profile pay for it

    text = io.StringIO()
    pyprof2calltree.convert(str(pstats_path), text)
    header = {"cmd": command, **{f"desc: {name}": value for name, value in about.items()}}
    lines = "".join(f"{name}: {' '.join(value.split())}\n" for name, value in header.items())
    path.write_text(lines + with_summary(text.getvalue()), "utf-8", "backslashreplace")


def write_facts(facts: dict[str, Any], path: Path) -> None:
    """Write figures about the profile as JSON.

    :raises OSError: it cannot be written.
    """
    path.write_text(json.dumps(facts, indent=2) + "\n", "utf-8")


def with_summary(callgrind: str) -> str:
    """Correct the ``summary:`` line of pyprof2calltree's output.

    pyprof2calltree writes the largest cumulative time there. The callgrind format wants
    the total of all self costs, and callgrind_annotate's percentages are of that.

    :param callgrind: text in the format of
        https://valgrind.org/docs/manual/cl-format.html.
    """
    total = 0
    cost_of_call = False
    for line in callgrind.splitlines():
        if re.match(r"[+*-]?\d+ \d+$", line):
            if not cost_of_call:
                total += int(line.split()[1])
            cost_of_call = False
        elif line.startswith("calls="):
            cost_of_call = True  # the next line is the callee's cost, not a self cost
    return re.sub(r"^summary: .*$", f"summary: {total}", callgrind, flags=re.MULTILINE)
