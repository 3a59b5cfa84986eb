"""A profile for KCachegrind and callgrind_annotate, by pyprof2calltree."""

from __future__ import annotations

from collections.abc import Callable
import functools
import io
from pathlib import Path
import pstats
import re
from typing import Any

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug import profile_file
from pytest_eventlet_debug.artifact_names import CALLGRIND_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FACTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.profile_file import ProfileFacts
from pytest_eventlet_debug.system import files

# The line below one of calls is what the callee cost, and no self cost.
_COST = re.compile(r"^(calls=.*\n)?[+*-]?\d+ (\d+)$", re.MULTILINE)
_SUMMARY = re.compile(r"^summary: .*$", re.MULTILINE)


class _Profile:
    """What pstats takes for a profiler."""

    def __init__(self, stats: dict[Any, Any]) -> None:
        self.stats = stats

    def create_stats(self) -> None:
        """Do nothing: they are there."""


@functools.cache
def converter() -> Callable[[pstats.Stats, io.StringIO], None]:
    """Return what turns pstats into callgrind; only those who profile pay for its import."""
    import pyprof2calltree

    convert: Callable[[pstats.Stats, io.StringIO], None] = pyprof2calltree.convert
    return convert


def complete(directory: Path, nodeid: str) -> None:
    """Write what is missing where a profile was recorded.

    :param nodeid: the test that was profiled; viewers head their windows and listings with it.
    :raises OSError: it cannot be written.
    :raises ValueError: what is there is no profile; see :func:`.profile_file.read`.
    """
    if (directory / CALLGRIND_FILE).exists() or not (directory / PROFILE_FILE).exists():
        return
    facts = json_files.read(directory / PROFILE_FACTS_FILE, ProfileFacts)
    write(profile_file.read(directory / PROFILE_FILE), directory / CALLGRIND_FILE, nodeid, facts)


def write(stats: dict[Any, Any], path: Path, nodeid: str, facts: ProfileFacts) -> None:
    """Write a file for KCachegrind and callgrind_annotate.

    :param stats: as :mod:`pstats` has them.
    :raises OSError: it cannot be written.
    """
    text = io.StringIO()
    profile: Any = _Profile(stats)
    converter()(pstats.Stats(profile), text)
    header = {
        "cmd": f"pytest {nodeid}",
        "desc: Test": nodeid,
        "desc: Engine": facts.engine,
        "desc: Clock": facts.clock,
    }
    lines = "".join(f"{name}: {' '.join(value.split())}\n" for name, value in header.items())
    whole = lines + with_summary(text.getvalue())
    files.replace(path, whole.encode("utf-8", "backslashreplace"))


def with_summary(callgrind: str) -> str:
    """Correct the ``summary:`` line of pyprof2calltree's output.

    pyprof2calltree writes the largest cumulative time there. The callgrind format wants
    the total of all self costs, and callgrind_annotate's percentages are of that.

    :param callgrind: text in the format of
        https://valgrind.org/docs/manual/cl-format.html.
    """
    total = sum(int(cost) for calls, cost in _COST.findall(callgrind) if not calls)
    return _SUMMARY.sub(f"summary: {total}", callgrind)
