"""What ``run.json`` and ``test.json`` say: their types, and how they are read and completed.

Apart from :mod:`pytest_eventlet_debug.artifacts`, for the finisher needs no more than this.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
from pathlib import Path
import posix
from typing import Annotated
from typing import Literal
from typing import TypeAlias

import msgspec

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import RUN_FILE
from pytest_eventlet_debug.artifact_names import TEST_FILE
from pytest_eventlet_debug.system import files

Format = Literal["pytest-eventlet-debug"]
FORMAT: Format = "pytest-eventlet-debug"
SCHEMA = 1

#: A time since the epoch that fits into a capture and a date, whoever wrote the file.
Nanoseconds: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]

#: How a phase ends in a test that has not failed.
GOOD_ENDS = frozenset(("passed", "skipped"))

# Taken here, before a test can patch it.
_flock = fcntl.flock


class TestRecord(msgspec.Struct, kw_only=True):
    """What a ``test.json`` holds: one attempt of one test.

    :param nodeid: the test, with its hub.
    :param hub: the hub's name.
    :param pid: the test process; ``None`` in files of older releases.
    :param outcomes: of each phase, and ``crashed`` or ``hung`` of the one that the test was in, or
        of the call if that is not known.
    :param phases: start and end of each phase that ran, in nanoseconds since the epoch.
    :param cpu: seconds of CPU that the thread of the test used in each phase, to within 10 ms; of a
        phase that was shorter, how long it took.
    :param artifacts: the files below the directory, relative to it.
    :param errors: what a tracer could not do, a line each.
    :param left: the descriptors that the test left open, where leaks were looked for.
    """

    __test__ = False

    format: Format
    schema: int = SCHEMA
    nodeid: str
    hub: str | None = None
    attempt: int = 1
    pid: int | None = None
    outcomes: dict[str, str] = {}
    phases: dict[str, tuple[Nanoseconds, Nanoseconds]] = {}
    cpu: dict[str, float] = {}
    artifacts: list[str] = []
    errors: list[str] = []
    left: list[int] = []

    @property
    def failed(self) -> bool:
        """Whether any phase of the test failed, or was interrupted."""
        return not GOOD_ENDS.issuperset(self.outcomes.values())


class ListedTest(TestRecord, kw_only=True):
    """A test as ``run.json`` lists it.

    :param directory: the name of its directory.
    """

    directory: str


class RunRecord(msgspec.Struct, kw_only=True):
    """What a ``run.json`` holds. All but the name of the run may be missing.

    :param run: names the run.
    :param command: pytest's command line.
    :param started_ns: nanoseconds since the epoch, as ``ended_ns``.
    :param versions: of packages, by name.
    :param tools: the tracers, each with its version.
    :param exit_status: pytest's; unset until the run has ended, as ``ended_ns`` and ``tests``.
    """

    format: Format
    schema: int = SCHEMA
    run: str
    command: list[str] = []
    rootdir: str = ""
    hubs: list[str] = []
    started_ns: Nanoseconds = 0
    python: str = ""
    platform: str = ""
    versions: dict[str, str] = {}
    tools: list[str] = []
    ended_ns: Nanoseconds | msgspec.UnsetType = msgspec.UNSET
    exit_status: int | msgspec.UnsetType = msgspec.UNSET
    tests: list[ListedTest] | msgspec.UnsetType = msgspec.UNSET


def read_run(directory: Path) -> RunRecord | None:
    """Return what a run's ``run.json`` says, or ``None`` where there is none of ours."""
    return json_files.read_ours(directory / RUN_FILE, RunRecord)


def read_test(directory: Path) -> TestRecord | None:
    """Return what a test's ``test.json`` says, or ``None`` where there is none of ours."""
    return json_files.read_ours(directory / TEST_FILE, TestRecord)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other processes from completing the files of a run or a test meanwhile.

    :raises OSError: the directory cannot be opened.
    """
    descriptor = posix.open(directory, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        _flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        posix.close(descriptor)


def tests(directory: Path) -> list[ListedTest]:
    """Return what each ``test.json`` of a run says, with its directory's name added.

    Where nothing has completed a test, its files are asked of the disk.
    """
    found = []
    for name in sorted(posix.listdir(directory)):
        record = read_test(directory / name)
        if record is not None:
            record.artifacts = record.artifacts or files_below(directory / name)
            found.append(ListedTest(**msgspec.structs.asdict(record), directory=name))
    return found


def note_death(directory: Path, phases: dict[str, tuple[int, int]]) -> None:
    """Note in its ``test.json`` that a test has crashed, unless that says how it ended.

    :param phases: when each phase that it came to began and ended, as far as that is known.
    :raises OSError: it cannot be written.
    """
    with locked(directory):
        record = read_test(directory)
        if record is not None and not record.outcomes:
            save_end(directory, record, "crashed", phases)


def save_end(
    directory: Path, record: TestRecord, end: str, phases: dict[str, tuple[int, int]]
) -> None:
    """Let a test's ``test.json``, which said *record*, say how the test ended.

    :raises OSError: it cannot be written.
    """
    record.outcomes = {max(phases, key=phases.__getitem__, default="call"): end}
    record.phases = phases
    _save_files(directory, record, files_below(directory))


def note_artifacts(directory: Path) -> None:
    """Let a test's ``test.json`` name the files that are there now.

    :raises OSError: it cannot be written.
    """
    with locked(directory):
        record, found = read_test(directory), files_below(directory)
        if record is not None and record.artifacts != found:
            _save_files(directory, record, found)


def _save_files(directory: Path, record: TestRecord, found: list[str]) -> None:
    record.artifacts = found
    files.extend(directory / TEST_FILE, json_files.encode(record) + b"\n")


def files_below(directory: Path) -> list[str]:
    """Return the files below a test's directory, relative to it, without its ``test.json``."""
    # Nor drafts of files that are just being written.
    return sorted(
        name
        for name in files.names_below(directory)
        if TEST_FILE not in name and not name.rpartition("/")[2].startswith(".")
    )
