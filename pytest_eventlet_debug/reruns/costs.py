"""What tests that end alike cost more on one hub than on another, and where two hubs part."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings import parted
from pytest_eventlet_debug.recordings.findings import tally
from pytest_eventlet_debug.recordings.findings import text
from pytest_eventlet_debug.recordings.strace_log import StraceLogError

#: Bytes of a trace that is worth reading once more while the user waits.
_TRACE_BYTES = 5_000_000


def costs(directories: Mapping[str, str]) -> Iterator[str]:
    """Yield what one test cost more on a hub.

    :param directories: of its recordings, by hub.
    """
    tallies = {}
    for hub, directory in directories.items():
        read = findings_file.read(Path(directory))
        if read is not None and read.tally is not None:
            tallies[hub] = read.tally
    for finding in tally.compare(tallies):
        assert finding.hub is not None
        found = findings_file.in_place([finding], Path(directories[finding.hub]))
        yield from map(text.line, found)


def parting(directories: Mapping[str, str]) -> Iterator[str]:
    """Yield the first point where a test's traces on two hubs part, side by side.

    :param directories: of its recordings, by hub; the first two count.
    """
    if len(directories) < 2:
        return
    (first, left), (second, right) = list(directories.items())[:2]
    paths = Path(left), Path(right)
    try:
        if any(packing.size(path / STRACE_FILE) > _TRACE_BYTES for path in paths):
            return
        found = parted.part(parted.read(paths[0]), parted.read(paths[1]))
    except (StraceLogError, OSError):
        return
    if found is not None:
        yield from parted.describe(found, (first, second))
