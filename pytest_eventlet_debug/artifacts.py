"""The directory of a run: names, ``run.json``, ``test.json``, and what may be deleted.

Layout::

    eventlet-debug/
        .gitignore              of all that is here
        .lock                   held as long as the run goes on
        run.json                one run: command, versions, hubs, when, every test
        <slug>-<hash>/          one test on one hub, one attempt
            test.json           node id, hub, outcome, phases, artifacts
            findings.json       what its recordings tell

All names of files stand in :mod:`pytest_eventlet_debug.artifact_names`.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import hashlib
import itertools
import os
from pathlib import Path
import posix
import re

import msgspec

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import COMPLETION_LOCK
from pytest_eventlet_debug.artifact_names import IGNORE_FILE
from pytest_eventlet_debug.artifact_names import LOCK_FILE
from pytest_eventlet_debug.artifact_names import RUN_FILE
from pytest_eventlet_debug.artifact_names import TEST_FILE
from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.artifact_records import TestRecord
from pytest_eventlet_debug.artifact_records import files_below
from pytest_eventlet_debug.artifact_records import locked
from pytest_eventlet_debug.artifact_records import read_run
from pytest_eventlet_debug.artifact_records import read_test
from pytest_eventlet_debug.artifact_records import save_end
from pytest_eventlet_debug.artifact_records import tests
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import run_lock
from pytest_eventlet_debug.system import unpatched

# Taken here, before a test can patch them.
_sha256 = hashlib.sha256
_fields = msgspec.structs.asdict
_UNSAFE = re.compile(r"[^A-Za-z0-9_.]+")
_NAME = re.compile(r"-[0-9a-f]{8}\Z")

# Recordings hold secrets, and nobody wants them in a repository.
_IGNORE = b"# Created by pytest-eventlet-debug.\n*\n"

# 80 bytes of slug and the hash stay clear of the 255 bytes that file systems allow.
_SLUG_BYTES = 80
_TAIL_BYTES = 20

#: Seconds to wait for helpers, which give up after 10.
_AWAITED_SECONDS = 12.0

#: Seconds to wait for a helper to announce a test that has just begun.
_ANNOUNCED_SECONDS = 1.0


class ArtifactsError(Exception):
    """The directory cannot be used. One line: which one, why, and what would do."""


def directory_name(nodeid: str, attempt: int = 1) -> str:
    """Return a readable, unique directory name for one attempt of one test.

    The node id, without the middle if it is long: the file and the test come first, the hub
    last. Then 8 hexadecimal digits of the SHA-256 of the whole id and the attempt.
    """
    digest = _sha256(f"{nodeid}\0{attempt}".encode("utf-8", "surrogatepass")).hexdigest()
    path, colons, rest = nodeid.partition("::")
    slug = _UNSAFE.sub("-", path.rpartition("/")[2] + colons + rest)
    if len(slug) > _SLUG_BYTES:
        slug = f"{slug[: _SLUG_BYTES - _TAIL_BYTES - 3]}...{slug[-_TAIL_BYTES:]}"
    slug = slug.strip("-.")
    return f"{slug or 'test'}-{digest[:8]}"


class TestArtifacts(TestRecord, kw_only=True):
    """One attempt of one test while it runs: what stands in its ``test.json``, and where."""

    directory: Path

    def record(self, artifacts: Sequence[str] = ()) -> bytes:
        """Return what stands in ``test.json``.

        :param artifacts: the files below the directory, as far as they are known.
        """
        fields = {**_fields(self), "artifacts": list(artifacts)}
        del fields["directory"]
        return json_files.encode(TestRecord(**fields)) + b"\n"

    def announce(self) -> None:
        """Write a first ``test.json``. So the directory is known as ours if the test crashes.

        :raises OSError: it cannot be written; the directory is gone then.
        """
        try:
            files.write_new(self.directory / TEST_FILE, self.record())
        except OSError:
            with contextlib.suppress(OSError):
                posix.rmdir(self.directory)
            raise

    def save(self) -> None:
        """Write ``test.json``.

        :raises OSError: it cannot be written.
        """
        files.write(self.directory / TEST_FILE, self.record(files_below(self.directory)))

    def discard(self) -> None:
        """Delete the directory with all that was recorded in it.

        :raises OSError: something of it cannot be deleted.
        """
        files.remove(self.directory)


def open_test(run: Path, nodeid: str, hub: str | None, pid: int | None = None) -> TestArtifacts:
    """Make the directory of the next attempt of a test, which has yet to be announced.

    :param pid: this process, if that is known: under strace it is dear to ask.
    :raises OSError: it cannot be made.
    """
    for attempt in itertools.count(1):
        directory = run / directory_name(nodeid, attempt)
        try:
            files.make_directory(directory)
        except FileExistsError:
            continue
        return TestArtifacts(
            format=FORMAT,
            nodeid=nodeid,
            hub=hub,
            attempt=attempt,
            pid=pid or posix.getpid(),
            directory=directory,
        )
    raise AssertionError("unreachable")


def newest_attempt(run: Path, nodeid: str) -> Path:
    """Return the directory of a test's last attempt, whether or not it exists."""
    attempt = 1
    while files.is_there(run / directory_name(nodeid, attempt + 1)):
        attempt += 1
    return run / directory_name(nodeid, attempt)


def note_end(
    run: Path, nodeid: str, end: str, phases: dict[str, tuple[int, int]] | None = None
) -> Path | None:
    """Note in its ``test.json`` that a test crashed or hung; return its directory, if any.

    :param phases: when each phase that it came to began and ended, in nanoseconds.
    """
    directory = newest_attempt(run, nodeid)
    if not _is_announced(directory):
        return None
    with contextlib.suppress(OSError), locked(directory):
        record = read_test(directory)  # the finisher may be at it
        if record is not None:
            save_end(directory, record, end, phases or record.phases)
    return directory


def _is_announced(directory: Path) -> bool:
    """Say whether a directory is a test's; the helper of a dead process may be about to tell."""
    deadline = unpatched.monotonic() + _ANNOUNCED_SECONDS
    while read_test(directory) is None:
        if not files.is_there(directory) or unpatched.monotonic() > deadline:
            return False
        unpatched.wait_readable([], 0.01)
    return True


def open_run(directory: Path, record: RunRecord) -> Path:
    """Make the directory of a run, or empty it of the run before; return the directory.

    A run that goes on in another process keeps what is its: the directory is another one then,
    whose name ends in ``-2``, or the next number that is free. Only what this plugin wrote goes:
    directories that hold our ``test.json``, or nothing yet. Several processes of one run may call
    this; the first one does the work.

    :param record: what ``run.json`` says of the run.
    :raises ArtifactsError: the directory is not ours or cannot be written.
    """
    for place in _places(directory):
        try:
            if _take(place, record):
                break
        except OSError as error:
            raise ArtifactsError(
                f"cannot write artifacts to {place} ({error.strerror or error}); "
                f"choose another directory with --eventlet-artifacts"
            ) from error
    return place


def opened_by(directory: Path, run: str) -> Path | None:
    """Return the directory that :func:`open_run` gave to a run, or ``None`` where it has none.

    What the directory that was asked for holds, is an earlier run's then.

    :param directory: the one that was asked for.
    """
    for place in _places(directory):
        opened = read_run(place)
        if opened is None:
            return None
        if opened.run == run:
            return place
    raise AssertionError("unreachable")


def place_of(directory: Path, run: str) -> Path:
    """Return the directory that :func:`open_run` gave to a run.

    :param directory: the one that was asked for; returned where the run has none.
    """
    return opened_by(directory, run) or directory


def _places(directory: Path) -> Iterator[Path]:
    yield directory
    for number in itertools.count(2):
        yield Path(f"{directory}-{number}")


def _take(directory: Path, record: RunRecord) -> bool:
    """Make a directory the run's, unless another one that goes on holds it.

    :raises OSError: it cannot be written.
    """
    if not directory.is_dir():
        if directory.is_symlink() and not directory.exists():
            raise ArtifactsError(
                f"{directory} is a link to {os.readlink(directory)}, which does not exist; "
                f"create that directory or choose another one with --eventlet-artifacts"
            )
        with contextlib.suppress(FileExistsError):
            files.make_directory(directory)
    with locked(directory):
        opened = read_run(directory)
        if opened is None:
            _refuse_others(directory)
        ours = opened is not None and opened.run == record.run
        if not run_lock.hold(lock_path(directory), shared=ours):
            return False
        if not ours:
            _clear(directory)
            files.replace(_within(directory, IGNORE_FILE), _IGNORE)
            json_files.write(_within(directory, RUN_FILE), record)
    return True


def lock_path(directory: Path) -> Path:
    """Return the file on which the processes of a run hold their locks."""
    return directory / LOCK_FILE


def await_completion(directory: Path, run: str) -> None:
    """Wait until all is completed that processes of a run have recorded which are dead now.

    Ctrl-C ends the waiting.

    :param directory: the one that was asked for.
    """
    lock = lock_path(place_of(directory, run))
    with contextlib.suppress(KeyboardInterrupt):
        run_lock.await_others(lock, COMPLETION_LOCK, _AWAITED_SECONDS)


def _within(directory: Path, name: str) -> Path:
    """Return a file's path where no link leads; that to the directory is the user's own."""
    return Path(os.path.realpath(directory), name)


def close_run(directory: Path, run: str, *, ended_ns: int, exit_status: int) -> None:
    """Complete ``run.json`` with how the run ended and with every test that kept artifacts.

    :param run: the name under which it was opened; that of another run is left alone.
    :raises OSError: the file cannot be written.
    """
    opened = read_run(directory)
    if opened is None or opened.run != run:
        return
    with locked(directory):  # pytest-xdist's workers may all be at it
        opened.ended_ns, opened.exit_status = ended_ns, exit_status
        opened.tests = tests(directory)
        json_files.write(_within(directory, RUN_FILE), opened)


def _refuse_others(directory: Path) -> None:
    if {path.name for path in directory.iterdir()} - {LOCK_FILE, IGNORE_FILE}:
        raise ArtifactsError(
            f"{directory} holds files but no {RUN_FILE} of {FORMAT}; "
            f"empty it or choose another directory with --eventlet-artifacts"
        )


def _clear(directory: Path) -> None:
    for path in directory.glob(f"*/{TEST_FILE}"):
        record = read_test(path.parent)
        if record is None or path.parent.is_symlink():
            continue
        # A copy that somebody made of a test's directory has another name.
        if path.parent.name == directory_name(record.nodeid, record.attempt):
            files.remove(path.parent)
    for path in directory.iterdir():
        # A process was killed before anything came into it.
        if _NAME.search(path.name):
            with contextlib.suppress(OSError):  # there is something in it, or it is no directory
                posix.rmdir(path)
