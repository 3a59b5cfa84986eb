"""A saved run: what ``--eventlet-save`` writes and a later run is compared with.

``docs/saved-run.rst`` describes the file. Reading checks every field against the
types below, so that what is compared is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import dataclasses
import errno
import os
from pathlib import Path
import re
import stat
from typing import Annotated
from typing import Any
from typing import BinaryIO
from typing import Literal

import msgspec

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_records import Nanoseconds
from pytest_eventlet_debug.outcomes.outcomes import Outcome

FORMAT = "pytest-eventlet-debug saved run"
SCHEMA = 1

Uncollectable = Literal["error", "skipped"]
Key = tuple[str, str]

#: Behind the node id of a collector, in that of a test.
_SEPARATOR = re.compile(r"::|/|\[")


class SavedRunError(Exception):
    """A file that cannot be compared. One line: which one, why, and what would do."""


@dataclasses.dataclass(frozen=True)
class Failure:
    """What a failure's text tells.

    :param message: the error, in one line.
    :param distributions: the names of installed distributions whose code is in the
        traceback, the innermost first.
    :param modules: the modules that the error names, such as ``dns.resolver``.
    """

    message: str
    distributions: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SavedTest:
    """One test under one hub.

    :param test: node id without the hub's suffix.
    :param hub: the hub's name.
    :param seconds: setup, call and teardown of the attempt that counts.
    :param outcome: how it ended in the run.
    :param attempts: how each attempt ended: earlier ones of a plugin that retries, the one
        that counts, and those of ``--eventlet-compare-reruns``.
    :param failure: of a test that failed, or skipped with a reason.
    """

    test: str
    hub: str
    outcome: Outcome
    seconds: float
    attempts: tuple[Outcome, ...] = ()
    failure: Failure | None = None

    @property
    def key(self) -> Key:
        """What finds the test in another run."""
        return self.test, self.hub

    @property
    def collectors(self) -> list[str]:
        """The node ids of all that it may have been collected from, its own among them."""
        ends = (match.start() for match in _SEPARATOR.finditer(self.test))
        return [self.test, *(self.test[:end] for end in ends)]


@dataclasses.dataclass(frozen=True)
class Uncollected:
    """A module, or another collector, that gave no tests.

    :param node: its node id.
    :param hub: the hub's name.
    :param outcome: whether collecting it failed, or it was skipped as a whole.
    """

    node: str
    hub: str
    outcome: Uncollectable
    failure: Failure

    @property
    def key(self) -> Key:
        """What finds it in another run."""
        return self.node, self.hub


@dataclasses.dataclass(frozen=True)
class Distribution:
    """An installed distribution.

    :param version: its version, and the commit if it was installed from a repository:
        ``1.0 (commit 1a2b3c4d5e6f)``.
    :param packages: the names under which it is imported.
    """

    version: str
    packages: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """One run of a suite.

    :param suite: the name of its root directory.
    :param command: pytest's command line.
    :param started_ns: nanoseconds since the epoch.
    :param seconds: how long it took.
    :param exit_status: pytest's.
    :param incomplete: why not every test ran, or ``None`` if all did.
    :param hubs: the names of the hubs of the run.
    :param python: implementation and version.
    :param distributions: by normalized name (PEP 503).
    :param selection: the node ids and paths that the run was asked for, relative to the root.
    :param deselected: the node ids of tests that were found and left out, by ``-k`` or others.
    """

    suite: str
    command: tuple[str, ...]
    started_ns: Nanoseconds
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e10)]
    exit_status: int
    incomplete: str | None
    hubs: tuple[str, ...]
    python: str
    platform: str
    distributions: Mapping[str, Distribution]
    selection: tuple[str, ...]
    deselected: tuple[str, ...]
    tests: tuple[SavedTest, ...]
    uncollected: tuple[Uncollected, ...]

    def as_json(self) -> dict[str, Any]:
        """Return what stands in the file."""
        return {"format": FORMAT, "schema": SCHEMA, **dataclasses.asdict(self)}


def see_writable(path: Path) -> None:
    """Make the folder of a file, and see that a run can be saved to the file.

    :raises SavedRunError: it cannot, or there is something else that would be lost.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        why = _in_the_way(path)
        if why is None:
            with _drafted(path):  # rights alone do not tell: of root, of a name's length
                pass
    except OSError as error:
        why = error.strerror or str(error)
    if why is not None:
        raise SavedRunError(
            f"cannot save the run to {path} ({why}); name another file with --eventlet-save"
        )


def write(path: Path, run: SavedRun) -> None:
    """Save a run, whole or not at all. A link to a regular file stays one.

    :raises OSError: it cannot be written, or there is something else that would be lost.
    """
    why = _in_the_way(path)
    if why is not None:
        raise FileExistsError(errno.EEXIST, why)
    with _drafted(path) as (draft, file):
        target = Path(os.path.realpath(path))
        if target.exists():
            os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
        file.write(json_files.encode(run.as_json()) + b"\n")
        file.close()
        draft.replace(target)


@contextlib.contextmanager
def _drafted(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Make a new file beside one; it is deleted unless it has been renamed.

    :raises OSError: it cannot be made.
    """
    target = Path(os.path.realpath(path))
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)  # a process that was killed had the same id
    try:
        with open(draft, "xb") as file:
            yield draft, file
    finally:
        draft.unlink(missing_ok=True)


def _in_the_way(path: Path) -> str | None:
    """Say what of somebody else's a run that is saved there would replace, if anything.

    :raises OSError: it cannot be looked at.
    """
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        return "it is a directory"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    try:
        if status.st_size:
            json_files.read(path, _Header)
    except msgspec.DecodeError:
        return "it exists and is not a saved run"
    return None


def read(path: Path) -> SavedRun:
    """Read a saved run.

    :raises SavedRunError: it is missing, not whole, not ours or of a newer schema.
    """
    raw = _content(path)
    try:
        header = json_files.decode(raw, _Header)
    except msgspec.ValidationError:
        raise SavedRunError(f"{path} is not a run saved with --eventlet-save") from None
    except msgspec.DecodeError:
        raise SavedRunError(
            f"{path} is truncated or not JSON; save the run again with --eventlet-save"
        ) from None
    schema = header.schema
    if isinstance(schema, int) and schema > SCHEMA:
        raise SavedRunError(
            f"{path} has schema {schema} and this pytest-eventlet-debug knows schema {SCHEMA}; "
            f"use the newer version that saved it"
        )
    try:
        if type(schema) is not int or schema != SCHEMA:
            raise msgspec.ValidationError(f"schema: {schema!r} is unknown")
        return json_files.decode(raw, SavedRun)
    except msgspec.ValidationError as error:
        raise SavedRunError(
            f"{path} is damaged ({error}); save the run again with --eventlet-save"
        ) from None


class _Header(msgspec.Struct):
    """What tells which kind of file it is."""

    format: Literal["pytest-eventlet-debug saved run"]
    schema: object = None


def _content(path: Path) -> bytes:
    try:
        return json_files.content(path)
    except FileNotFoundError:
        raise SavedRunError(
            f"there is no file {path}; save a run with --eventlet-save={path}"
        ) from None
    except OSError as error:
        raise SavedRunError(f"{path} cannot be read ({error.strerror or error})") from None
