"""What tests that end alike cost more on one hub than on another, and where two hubs part."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings import left_files
from pytest_eventlet_debug.recordings.findings import parted
from pytest_eventlet_debug.recordings.findings import tally
from pytest_eventlet_debug.recordings.findings import text
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.trace_events import Syscall

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


def left_by_another_hub(error: str, hub: str, directories: Mapping[str, str]) -> str | None:
    """Say what is in a test's way on one hub that it has left there under another.

    :param error: what failed it on *hub*.
    :param directories: of its recordings, by hub.
    """
    paths = {each: Path(directory) for each, directory in directories.items()}
    if hub not in paths or not left_files.is_about(error):
        return None
    try:
        if any(packing.size(path / STRACE_FILE) > _TRACE_BYTES for path in paths.values()):
            return None
        later = left_files.read(paths[hub])
        for other, path in paths.items():
            found = left_files.left(left_files.read(path), later, error) if other != hub else None
            if found is not None:
                made, failed = found.made, found.failed
                return (
                    f"this test made {found.path} under {other}, by {made.name}(){made.where} "
                    f"({_place(path, made)}), and did not remove it: {failed.name}(){failed.where} "
                    f"fails for it, {_place(paths[hub], failed)}"
                )
    except (StraceLogError, OSError):
        pass
    return None


def _place(directory: Path, call: Syscall) -> str:
    path = directory / STRACE_FILE
    name = path.name if path.exists() else packing.packed(path).name
    return f"{name} line {call.line}"
