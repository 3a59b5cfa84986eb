"""A directory with recordings, a test's or that of a block of it, and what is in it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
import posix

from pytest_eventlet_debug.artifact_names import BLOCK_PREFIX
from pytest_eventlet_debug.artifact_names import CALLGRIND_FILE
from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import CAPTURE_FILES
from pytest_eventlet_debug.artifact_names import FINDINGS_FILE
from pytest_eventlet_debug.artifact_names import PART_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_COUNTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FACTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_names import TRACE_FILES
from pytest_eventlet_debug.recordings.cuts import is_cut

#: What is written where recordings are completed, and by nobody else.
_WRITTEN = (
    *TRACE_FILES,
    *CAPTURE_FILES,
    *(PROFILE_FILE, CALLGRIND_FILE, PROFILE_FACTS_FILE),
    *(FINDINGS_FILE, PART_FILE),
)
_DRAFTS = tuple(f".{name}." for name in _WRITTEN)


class Place:
    """A directory with recordings, and what is to be completed there.

    :param unwritten: what is in no file, by the paths.
    """

    def __init__(self, directory: Path, unwritten: Mapping[Path, bytes]) -> None:
        self.directory = directory
        #: What is in it, as yet.
        self.names = frozenset(_without_drafts(directory))
        #: A capture that is in no file, and counts.
        self.packets = unwritten.get(directory / CAPTURE_FILE)
        self.counts = unwritten.get(directory / PROFILE_COUNTS_FILE)
        self.is_traced = not self.names.isdisjoint(TRACE_FILES)
        self.is_cut = STRACE_FILE in self.names and is_cut(directory)
        self.has_capture_file = not self.names.isdisjoint(CAPTURE_FILES)
        #: Until it turns out that nothing in it is the test's.
        self.is_captured = self.has_capture_file or self.packets is not None

    @property
    def is_profiled(self) -> bool:
        in_file = bool({PROFILE_COUNTS_FILE, PROFILE_FILE} & self.names)
        return in_file or self.counts is not None

    @property
    def recordings(self) -> list[str]:
        """The recordings that findings can be about."""
        found = {STRACE_FILE: self.is_traced, CAPTURE_FILE: self.is_captured}
        return [name for name, is_there in found.items() if is_there]


def places(directory: Path, unwritten: Mapping[Path, bytes]) -> list[Place]:
    """Return the directories that hold a test's recordings: its own and those of its blocks."""
    place = Place(directory, unwritten)
    blocks = sorted(name for name in place.names if name.startswith(BLOCK_PREFIX))
    return [place, *(Place(directory / name, unwritten) for name in blocks)]


def _without_drafts(directory: Path) -> Iterator[str]:
    """Yield what is in a directory, but delete what a process has left that was killed."""
    for name in posix.listdir(directory):
        if name.startswith(_DRAFTS):
            (directory / name).unlink(missing_ok=True)
        else:
            yield name
