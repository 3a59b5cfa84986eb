"""What was counted becomes files: for :mod:`pstats`, and for KCachegrind by pyprof2calltree."""

from __future__ import annotations

import functools
from pathlib import Path
import types
from typing import Any

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import CALLGRIND_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_COUNTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FACTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.profiling.stats import label
from pytest_eventlet_debug.recordings import profile_file
from pytest_eventlet_debug.recordings.profile_file import ProfileCounts
from pytest_eventlet_debug.recordings.profile_file import ProfileFacts
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system.partial_imports import NOTHING
from pytest_eventlet_debug.system.partial_imports import leaving_out

#: The unit of the costs that pyprof2calltree writes, per second.
_SCALE = 1e9


class _Code(msgspec.Struct, eq=False, gc=False):
    """A function, as pyprof2calltree wants it, who tells functions apart by identity."""

    co_filename: str
    co_firstlineno: int
    co_name: str


class _Called(msgspec.Struct, gc=False):
    """What a function called, in the terms of ``_lsprof``."""

    code: _Code
    callcount: int
    totaltime: float


class _Entry(msgspec.Struct, gc=False):
    """A function's counts, in the terms of ``_lsprof``."""

    code: _Code
    inlinetime: float
    totaltime: float
    calls: list[_Called]


class _Text(list[str]):
    """What a file is to hold, piece by piece."""

    write = list.append


@functools.cache
def _converter() -> Any:
    """Return what turns entries into callgrind; only those who profile pay for its import."""
    import pyprof2calltree

    if not hasattr(pyprof2calltree.cProfile, "label"):  # Python 3.15 has it elsewhere
        pyprof2calltree.cProfile = types.SimpleNamespace(label=label)
    return pyprof2calltree.CalltreeConverter


def import_converter() -> None:
    """Import pyprof2calltree alone, in a process of our own.

    What its command line needs takes ten times as long, and nothing here uses it.

    :raises Exception: it cannot be imported.
    """
    pstats = types.SimpleNamespace(Stats=())  # what is converted is none of it
    unused = dict.fromkeys(("argparse", "subprocess", "tempfile"), NOTHING)
    with leaving_out({**unused, "pstats": pstats}):
        _converter()


def _callgrind(stats: Stats) -> str:
    """Return what pyprof2calltree makes of a profile."""
    entries = {
        function: _Entry(_Code(*function), own, below, [])
        for function, (_, _, own, below, _) in stats.items()
    }
    converter = _converter()(list(entries.values()))
    # Before there are calls, which have no other functions; and once for each.
    names = {entry.code: converter.munged_function_name(entry.code) for entry in entries.values()}
    converter.munged_function_name = names.__getitem__
    for entry, (_, _, _, _, callers) in zip(entries.values(), stats.values(), strict=True):
        for caller, (calls, _, _, below) in callers.items():
            entries[caller].calls.append(_Called(entry.code, calls, below))
    text = _Text()
    converter.output(text)
    return "".join(text)


def complete(directory: Path, nodeid: str, counts: bytes | None = None) -> Stats:
    """Write what is missing where a profile was recorded.

    :param nodeid: the test that was profiled; viewers head their windows and listings with it.
    :param counts: what was counted, if it is in no file.
    :return: the profile, empty if there is none.
    :raises OSError: it cannot be written.
    :raises ValueError: what is there is no profile; see :func:`.profile_file.read`.
    """
    path = directory / PROFILE_COUNTS_FILE
    is_in_file = counts is None and path.exists()
    if is_in_file:
        counts = profile_file.content(path)
    if counts is not None:
        stats, facts = write(directory, ProfileCounts.decode(counts))
    elif (directory / PROFILE_FILE).exists():
        stats = profile_file.read(directory / PROFILE_FILE)
        facts = json_files.read(directory / PROFILE_FACTS_FILE, ProfileFacts)
    else:
        return {}
    if stats:
        write_callgrind(stats, directory / CALLGRIND_FILE, nodeid, facts)
    if is_in_file:
        path.unlink()
    return stats


def write(directory: Path, counts: ProfileCounts) -> tuple[Stats, ProfileFacts]:
    """Add up what was counted, and write it for pstats, with what is known about it.

    :return: what was written.
    :raises OSError: it cannot be written.
    """
    stats = counts.stats()
    own = sum(entry[2] for entry in stats.values())
    facts = replace(counts.facts, self_seconds=own)
    if stats:  # pstats refuses to read a file without entries
        files.write_first(directory / PROFILE_FILE, profile_file.encode(stats))
    json_files.write_first(directory / PROFILE_FACTS_FILE, facts)
    return stats, facts


def write_callgrind(stats: Stats, path: Path, nodeid: str, facts: ProfileFacts) -> None:
    """Write a file for KCachegrind and callgrind_annotate.

    :raises OSError: it cannot be written.
    """
    header = {
        "cmd": f"pytest {nodeid}",
        "desc: Test": nodeid,
        "desc: Engine": facts.engine,
        "desc: Clock": facts.clock,
    }
    lines = "".join(f"{name}: {' '.join(value.split())}\n" for name, value in header.items())
    whole = lines + _with_summary(_callgrind(stats), stats)
    files.write_first(path, whole.encode("utf-8", "backslashreplace"))


def _with_summary(callgrind: str, stats: Stats) -> str:
    """Correct the ``summary:`` line of pyprof2calltree's output.

    pyprof2calltree writes the largest cumulative time there. The callgrind format wants
    the total of all self costs, and callgrind_annotate's percentages are of that.

    :param callgrind: text in the format of
        https://valgrind.org/docs/manual/cl-format.html.
    """
    total = sum(int(own * _SCALE) for _, _, own, _, _ in stats.values())
    before, summary, after = callgrind.partition("\nsummary: ")
    return f"{before}{summary}{total}\n{after.partition(chr(10))[2]}"
