"""A saved run: what ``--eventlet-save`` writes and a later run is compared with.

``docs/saved-run.rst`` describes the file. Reading checks every field, so that what
is compared is whole.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import dataclasses
import json
from pathlib import Path
from typing import Any
from typing import Literal
from typing import TypeVar
from typing import get_args

from pytest_eventlet_debug.outcomes.outcomes import OUTCOMES
from pytest_eventlet_debug.outcomes.outcomes import Outcome

FORMAT = "pytest-eventlet-debug saved run"
SCHEMA = 1

Uncollectable = Literal["error", "skipped"]
Key = tuple[str, str]
_T = TypeVar("_T")


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


@dataclasses.dataclass(frozen=True)
class Distribution:
    """An installed distribution.

    :param version: its version, and where it is a checkout, the commit: ``1.0 (git 1a2b3c)``.
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
    started_ns: int
    seconds: float
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


def read(path: Path) -> SavedRun:
    """Read a saved run.

    :raises SavedRunError: it is missing, not whole, not ours or of a newer schema.
    """
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise SavedRunError(
            f"there is no file {path}; save a run with --eventlet-save={path}"
        ) from None
    except OSError as error:
        raise SavedRunError(f"{path} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise SavedRunError(
            f"{path} is truncated or not JSON; save the run again with --eventlet-save"
        ) from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise SavedRunError(f"{path} is not a run saved with --eventlet-save")
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise SavedRunError(
            f"{path} has schema {schema} and this pytest-eventlet-debug knows schema {SCHEMA}; "
            f"use the newer version that saved it"
        )
    try:
        if schema != SCHEMA:
            raise ValueError(f"schema: {schema!r} is unknown")
        return _run(data)
    except (ValueError, TypeError, KeyError) as error:
        why = f"{error} is missing" if isinstance(error, KeyError) else error
        raise SavedRunError(
            f"{path} is damaged ({why}); save the run again with --eventlet-save"
        ) from None


def _run(data: dict[str, Any]) -> SavedRun:
    return SavedRun(
        suite=_text(data, "suite"),
        command=_texts(data, "command"),
        started_ns=int(_number(data, "started_ns")),
        seconds=_number(data, "seconds"),
        exit_status=int(_number(data, "exit_status")),
        incomplete=_text_or_none(data, "incomplete"),
        hubs=_texts(data, "hubs"),
        python=_text(data, "python"),
        platform=_text(data, "platform"),
        distributions={
            name: Distribution(_text(each, "version"), _texts(each, "packages"))
            for name, each in _checked(data, "distributions", dict).items()
        },
        selection=_texts(data, "selection"),
        deselected=_texts(data, "deselected"),
        tests=_each(data, "tests", _test),
        uncollected=_each(data, "uncollected", _uncollected),
    )


def _test(data: dict[str, Any]) -> SavedTest:
    failure = data["failure"]
    return SavedTest(
        test=_text(data, "test"),
        hub=_text(data, "hub"),
        outcome=_outcome(data["outcome"]),
        seconds=_number(data, "seconds"),
        attempts=tuple(_outcome(each) for each in _checked(data, "attempts", list)),
        failure=None if failure is None else _failure(failure),
    )


def _uncollected(data: dict[str, Any]) -> Uncollected:
    outcome = data["outcome"]
    if outcome not in get_args(Uncollectable):
        raise ValueError(f"outcome: {outcome!r} is unknown")
    return Uncollected(_text(data, "node"), _text(data, "hub"), outcome, _failure(data["failure"]))


def _failure(data: dict[str, Any]) -> Failure:
    return Failure(_text(data, "message"), _texts(data, "distributions"), _texts(data, "modules"))


def _outcome(value: Any) -> Outcome:
    if value not in OUTCOMES:
        raise ValueError(f"outcome: {value!r} is unknown")
    outcome: Outcome = value
    return outcome


def _each(data: dict[str, Any], name: str, make: Callable[[dict[str, Any]], _T]) -> tuple[_T, ...]:
    return tuple(make(each) for each in _checked(data, name, list))


def _text(data: dict[str, Any], name: str) -> str:
    return _checked(data, name, str)


def _text_or_none(data: dict[str, Any], name: str) -> str | None:
    return None if data[name] is None else _text(data, name)


def _texts(data: dict[str, Any], name: str) -> tuple[str, ...]:
    values = _checked(data, name, list)
    if not all(isinstance(each, str) for each in values):
        raise ValueError(f"{name}: not a list of text")
    return tuple(values)


def _number(data: dict[str, Any], name: str) -> float:
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name}: {value!r} is not a number")
    return value


def _checked(data: dict[str, Any], name: str, kind: type[_T]) -> _T:
    value = data[name]
    if not isinstance(value, kind):
        raise ValueError(f"{name}: {type(value).__name__} where {kind.__name__} was expected")
    return value
