"""The directory of a run: names, ``run.json``, ``test.json``, and what may be deleted.

Layout::

    eventlet-debug/
        run.json                one run: command, versions, hubs, when, every test
        <slug>-<hash>/          one test on one hub, one attempt
            test.json           node id, hub, outcome, phases, artifacts
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
from pathlib import Path
import re
import shutil
from typing import Any

FORMAT = "pytest-eventlet-debug"
SCHEMA = 1
RUN_FILE = "run.json"
TEST_FILE = "test.json"

# 80 bytes of slug and the hash stay clear of the 255 bytes that file systems allow.
_SLUG_BYTES = 80


class ArtifactsError(Exception):
    """The directory cannot be used. One line: which one, why, and what would do."""


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
    """

    __test__ = False

    nodeid: str
    hub: str | None
    attempt: int
    directory: Path
    outcomes: dict[str, str] = dataclasses.field(default_factory=dict)
    phases: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    errors: list[str] = dataclasses.field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether any phase of the test failed, or was interrupted."""
        return not {"passed", "skipped"}.issuperset(self.outcomes.values())

    def save(self) -> None:
        """Write ``test.json``."""
        write_json(
            self.directory / TEST_FILE,
            {
                "format": FORMAT,
                "schema": SCHEMA,
                "nodeid": self.nodeid,
                "hub": self.hub,
                "attempt": self.attempt,
                "outcomes": self.outcomes,
                "phases": {name: list(span) for name, span in self.phases.items()},
                "artifacts": _files(self.directory),
                "errors": self.errors,
            },
        )

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


def note_end(run: Path, nodeid: str, end: str) -> Path | None:
    """Note in its ``test.json`` that a test crashed or hung; return its directory, if any."""
    directory = newest_attempt(run, nodeid)
    if read_json(directory / TEST_FILE) is None:
        return None
    with contextlib.suppress(OSError), _locked(directory):
        facts = read_json(directory / TEST_FILE) or {}  # the finisher may be at it
        noted = {"outcomes": {"call": end}, "artifacts": _files(directory)}
        write_json(directory / TEST_FILE, {**facts, **noted})
    return directory


def note_artifacts(directory: Path) -> None:
    """Let a test's ``test.json`` name the files that are there now.

    :raises OSError: it cannot be written.
    """
    with _locked(directory):
        facts = read_json(directory / TEST_FILE)
        if facts is not None:
            write_json(directory / TEST_FILE, {**facts, "artifacts": _files(directory)})


def _files(directory: Path) -> list[str]:
    """Return the files below a test's directory, relative to it, without its ``test.json``."""
    found = []
    for parent, _, names in os.walk(directory):
        found += [os.path.relpath(os.path.join(parent, name), directory) for name in names]
    # Nor drafts of files that are just being written.
    return sorted(
        name for name in found if TEST_FILE not in name and os.path.basename(name)[0] != "."
    )


def open_run(directory: Path, run: str, facts: Mapping[str, Any]) -> None:
    """Make the directory of a run, or empty it of the run before.

    Only what this plugin wrote goes: directories that hold our ``test.json``. Several
    processes of one run may call this; the first one does the work.

    :param run: names the run.
    :param facts: what ``run.json`` says of the run.
    :raises ArtifactsError: the directory is not ours or cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with _locked(directory):
            if (read_json(directory / RUN_FILE) or {}).get("run") == run:
                return
            _clear(directory)
            header = {"format": FORMAT, "schema": SCHEMA, "run": run}
            write_json(directory / RUN_FILE, {**header, **facts})
    except OSError as error:
        raise ArtifactsError(
            f"cannot write artifacts to {directory} ({error.strerror or error}); "
            f"name another place with --eventlet-artifacts"
        ) from error


def close_run(directory: Path, run: str, facts: Mapping[str, Any]) -> None:
    """Complete ``run.json`` with how the run ended and with every test that kept artifacts.

    :raises OSError: the file cannot be written.
    """
    opened = read_json(directory / RUN_FILE)
    if opened is None or opened.get("run") != run:
        return
    with _locked(directory):  # pytest-xdist's workers may all be at it
        write_json(directory / RUN_FILE, {**opened, **facts, "tests": tests(directory)})


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def tests(directory: Path) -> list[dict[str, Any]]:
    """Return what each ``test.json`` of a run says, with its directory's name added."""
    found = []
    for path in sorted(directory.glob(f"*/{TEST_FILE}")):
        facts = read_json(path)
        if facts is not None:
            found.append({**facts, "directory": path.parent.name})
    return found


def _clear(directory: Path) -> None:
    if read_json(directory / RUN_FILE) is None and any(directory.iterdir()):
        raise ArtifactsError(
            f"{directory} holds files but no {RUN_FILE} of {FORMAT}; "
            f"empty it or name another place with --eventlet-artifacts"
        )
    for path in directory.glob(f"*/{TEST_FILE}"):
        facts = read_json(path)
        if facts is None or path.parent.is_symlink():
            continue
        # A copy that somebody made of a test's directory has another name.
        name = directory_name(str(facts.get("nodeid")), facts.get("attempt", 1))
        if path.parent.name == name:
            shutil.rmtree(path.parent)


def write_json(path: Path, facts: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    :raises OSError: the disk is full, or the directory is gone.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(json.dumps(facts, indent=1, default=str) + "\n")
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what one of our JSON files says, or ``None`` where it is not ours."""
    try:
        facts = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) and facts.get("format") == FORMAT else None
