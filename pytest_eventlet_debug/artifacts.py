"""The directory of a run: names, ``run.json``, ``test.json``, and what may be deleted.

Layout::

    eventlet-debug/
        run.json                one run: command, versions, hubs, when, every test
        <slug>-<hash>/          one test on one hub, one attempt
            test.json           node id, hub, outcome, phases, artifacts
            findings.json       what its recordings tell

All names of files stand in :mod:`pytest_eventlet_debug.artifact_names`.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import fcntl
import hashlib
import os
from pathlib import Path
import posix
import re
import shutil
from typing import Literal
from typing import TypeVar

import msgspec

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import BLOCKS
from pytest_eventlet_debug.artifact_names import RUN_FILE
from pytest_eventlet_debug.artifact_names import TEST_FILE

Format = Literal["pytest-eventlet-debug"]
FORMAT: Format = "pytest-eventlet-debug"
SCHEMA = 1

# 80 bytes of slug and the hash stay clear of the 255 bytes that file systems allow.
_SLUG_BYTES = 80


class ArtifactsError(Exception):
    """The directory cannot be used. One line: which one, why, and what would do."""


class TestRecord(msgspec.Struct, kw_only=True):
    """What a ``test.json`` holds: one attempt of one test.

    :param nodeid: the test, with its hub.
    :param hub: the hub's name.
    :param pid: the test process; ``None`` in files of older releases.
    :param outcomes: of each phase, and ``crashed`` or ``hung`` of the call.
    :param phases: start and end of each phase that ran, in nanoseconds since the epoch.
    :param artifacts: the files below the directory, relative to it.
    :param errors: what a tracer could not do, a line each.
    """

    __test__ = False

    format: Format
    schema: int = SCHEMA
    nodeid: str
    hub: str | None = None
    attempt: int = 1
    pid: int | None = None
    outcomes: dict[str, str] = {}
    phases: dict[str, tuple[int, int]] = {}
    artifacts: list[str] = []
    errors: list[str] = []


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
    :param versions: of distributions, by name.
    :param tools: the tracers, each with its version.
    :param exit_status: pytest's; unset until the run has ended, as ``ended_ns`` and ``tests``.
    """

    format: Format
    schema: int = SCHEMA
    run: str
    command: list[str] = []
    rootdir: str = ""
    hubs: list[str] = []
    started_ns: int = 0
    python: str = ""
    platform: str = ""
    versions: dict[str, str] = {}
    tools: list[str] = []
    ended_ns: int | msgspec.UnsetType = msgspec.UNSET
    exit_status: int | msgspec.UnsetType = msgspec.UNSET
    tests: list[ListedTest] | msgspec.UnsetType = msgspec.UNSET


_Record = TypeVar("_Record", TestRecord, RunRecord)


def directory_name(nodeid: str, attempt: int = 1) -> str:
    """Return a readable, unique directory name for one attempt of one test.

    The tail of the node id, for it tells most, and 8 hexadecimal digits of the SHA-256 of
    the whole id and the attempt.
    """
    digest = hashlib.sha256(f"{nodeid}\0{attempt}".encode("utf-8", "surrogatepass")).hexdigest()
    path, colons, rest = nodeid.partition("::")
    slug = re.sub(r"[^A-Za-z0-9_.]+", "-", path.rpartition("/")[2] + colons + rest)
    slug = slug[-_SLUG_BYTES:].strip("-.")
    return f"{slug or 'test'}-{digest[:8]}"


@dataclasses.dataclass
class TestArtifacts:
    """The directory of one attempt of one test and what stands in its ``test.json``.

    :param phases: start and end of each phase that ran, in nanoseconds since the epoch.
    :param errors: what a tracer could not do, a line each.
    :param pid: this process, which runs the test.
    """

    __test__ = False

    nodeid: str
    hub: str | None
    attempt: int
    directory: Path
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    phases: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    errors: list[str] = dataclasses.field(default_factory=list)
    pid: int = dataclasses.field(default_factory=posix.getpid)

    @property
    def failed(self) -> bool:
        """Whether any phase of the test failed, or was interrupted."""
        return not {"passed", "skipped"}.issuperset(self.outcomes.values())

    def save(self) -> None:
        """Write ``test.json``."""
        record = TestRecord(
            format=FORMAT,
            nodeid=self.nodeid,
            hub=self.hub,
            attempt=self.attempt,
            pid=self.pid,
            outcomes=self.outcomes,
            phases=self.phases,
            artifacts=_files(self.directory),
            errors=self.errors,
        )
        json_files.write(self.directory / TEST_FILE, record)

    def discard(self) -> None:
        """Delete the directory with all that was recorded in it."""
        shutil.rmtree(self.directory, ignore_errors=True)


def open_test(run: Path, nodeid: str, hub: str | None) -> TestArtifacts:
    """Make the directory of the next attempt of a test.

    :raises OSError: the directory cannot be made.
    """
    attempt = 1
    while True:
        directory = run / directory_name(nodeid, attempt)
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            attempt += 1
        else:
            return TestArtifacts(nodeid, hub, attempt, directory)


def newest_attempt(run: Path, nodeid: str) -> Path:
    """Return the directory of a test's last attempt, whether or not it exists."""
    attempt = 1
    while (run / directory_name(nodeid, attempt + 1)).exists():
        attempt += 1
    return run / directory_name(nodeid, attempt)


def note_end(
    run: Path, nodeid: str, end: str, phases: dict[str, tuple[int, int]] | None = None
) -> Path | None:
    """Note in its ``test.json`` that a test crashed or hung; return its directory, if any.

    :param phases: when each phase that it came to began and ended, in nanoseconds.
    """
    directory = newest_attempt(run, nodeid)
    if read_test(directory) is None:
        return None
    with contextlib.suppress(OSError), _locked(directory):
        record = read_test(directory)  # the finisher may be at it
        if record is not None:
            record.outcomes = {"call": end}
            record.phases = phases or record.phases
            _save_files(directory, record)
    return directory


def note_artifacts(directory: Path) -> None:
    """Let a test's ``test.json`` name the files that are there now.

    :raises OSError: it cannot be written.
    """
    with _locked(directory):
        record = read_test(directory)
        if record is not None:
            _save_files(directory, record)


def _save_files(directory: Path, record: TestRecord) -> None:
    record.artifacts = _files(directory)
    json_files.write(directory / TEST_FILE, record)


def _files(directory: Path) -> list[str]:
    """Return the files below a test's directory, relative to it, without its ``test.json``."""
    found = []
    for parent, _, names in os.walk(directory):
        found += [os.path.relpath(os.path.join(parent, name), directory) for name in names]
    # Nor drafts of files that are just being written.
    return sorted(
        name for name in found if TEST_FILE not in name and os.path.basename(name)[0] != "."
    )


def open_run(directory: Path, record: RunRecord) -> None:
    """Make the directory of a run, or empty it of the run before.

    Only what this plugin wrote goes: directories that hold our ``test.json``. Several
    processes of one run may call this; the first one does the work.

    :param record: what ``run.json`` says of the run.
    :raises ArtifactsError: the directory is not ours or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            opened = read_run(directory)
            if opened is not None and opened.run == record.run:
                return
            _clear(directory)
            json_files.write(directory / RUN_FILE, record)
    except OSError as error:
        raise ArtifactsError(
            f"cannot write artifacts to {directory} ({error.strerror or error}); "
            f"name another place with --eventlet-artifacts"
        ) from error


def close_run(directory: Path, run: str, *, ended_ns: int, exit_status: int) -> None:
    """Complete ``run.json`` with how the run ended and with every test that kept artifacts.

    :param run: the name under which it was opened; that of another run is left alone.
    :raises OSError: the file cannot be written.
    """
    opened = read_run(directory)
    if opened is None or opened.run != run:
        return
    with _locked(directory):  # pytest-xdist's workers may all be at it
        opened.ended_ns, opened.exit_status = ended_ns, exit_status
        opened.tests = tests(directory)
        json_files.write(directory / RUN_FILE, opened)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def tests(directory: Path) -> list[ListedTest]:
    """Return what each ``test.json`` of a run says, with its directory's name added."""
    found = []
    for path in sorted(directory.glob(f"*/{TEST_FILE}")):
        record = read_test(path.parent)
        if record is not None:
            facts = msgspec.structs.asdict(record)
            found.append(ListedTest(**facts, directory=path.parent.name))
    return found


def _clear(directory: Path) -> None:
    if read_run(directory) is None and any(directory.iterdir()):
        raise ArtifactsError(
            f"{directory} holds files but no {RUN_FILE} of {FORMAT}; "
            f"empty it or name another place with --eventlet-artifacts"
        )
    for path in directory.glob(f"*/{TEST_FILE}"):
        record = read_test(path.parent)
        if record is None or path.parent.is_symlink():
            continue
        # A copy that somebody made of a test's directory has another name.
        if path.parent.name == directory_name(record.nodeid, record.attempt):
            shutil.rmtree(path.parent)


def read_run(directory: Path) -> RunRecord | None:
    """Return what a run's ``run.json`` says, or ``None`` where there is none of ours."""
    return _read(directory / RUN_FILE, RunRecord)


def read_test(directory: Path) -> TestRecord | None:
    """Return what a test's ``test.json`` says, or ``None`` where there is none of ours."""
    return _read(directory / TEST_FILE, TestRecord)


def recorded(directory: Path) -> list[Path]:
    """Return the directories that hold a test's recordings: its own and those of its blocks."""
    return [directory, *sorted(directory.glob(BLOCKS))]


def _read(path: Path, kind: type[_Record]) -> _Record | None:
    try:
        return json_files.read(path, kind)
    except (OSError, msgspec.DecodeError):
        return None
