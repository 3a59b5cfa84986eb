"""Write a profile down: for pstats, for KCachegrind, and the figures about it."""

from __future__ import annotations

from collections.abc import Callable
import functools
import io
import json
import marshal
from pathlib import Path
import pstats
import re
from typing import Any

from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.system import files

# Taken here, before a test can patch them.
_dumps = marshal.dumps
_encode = json.JSONEncoder(indent=2).encode
_StringIO = io.StringIO

_COST = re.compile(r"[+*-]?\d+ \d+$")
_SUMMARY = re.compile(r"^summary: .*$", re.MULTILINE)


class _Profile:
    """What pstats takes for a profiler."""

    def __init__(self, stats: Stats) -> None:
        self.stats = stats

    def create_stats(self) -> None:
        """Do nothing: they are there."""


@functools.cache
def converter() -> Callable[[pstats.Stats, io.StringIO], None]:
    """Return what turns pstats into callgrind; only those who profile pay for its import.

    Called before the user's code runs, it is there whatever a test does to ``sys.modules``.
    """
    import pyprof2calltree

    convert: Callable[[pstats.Stats, io.StringIO], None] = pyprof2calltree.convert
    return convert


def write_pstats(stats: Stats, path: Path) -> None:
    """Write a file for ``python -m pstats``, snakeviz and others.

    :raises OSError: it cannot be written.
    """
    files.replace(path, _dumps(stats))


def write_callgrind(stats: Stats, path: Path, command: str, about: dict[str, str]) -> None:
    """Write a file for KCachegrind and callgrind_annotate.

    :param command: what was profiled; viewers head their windows and listings with it.
    :param about: more to say of it, as names and values.
    :raises OSError: it cannot be written.
    """
    text = _StringIO()
    profile: Any = _Profile(stats)
    converter()(pstats.Stats(profile), text)
    header = {"cmd": command, **{f"desc: {name}": value for name, value in about.items()}}
    lines = "".join(f"{name}: {' '.join(value.split())}\n" for name, value in header.items())
    whole = lines + with_summary(text.getvalue())
    files.replace(path, whole.encode("utf-8", "backslashreplace"))


def write_facts(facts: dict[str, Any], path: Path) -> None:
    """Write figures about the profile as JSON.

    :raises OSError: it cannot be written.
    """
    files.replace(path, _encode(facts).encode("ascii") + b"\n")


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
        if _COST.match(line):
            if not cost_of_call:
                total += int(line.split()[1])
            cost_of_call = False
        elif line.startswith("calls="):
            cost_of_call = True  # the next line is the callee's cost, not a self cost
    return _SUMMARY.sub(f"summary: {total}", callgrind)
