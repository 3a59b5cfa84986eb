"""What a child says to its controller: one type a message, each sent behind its length.

The child writes with ``posix.write``, which yields to no hub; the controller feeds what it
reads to a :class:`Decoder`. Both are the same interpreter, so ``marshal`` will do for the
bytes: unlike JSON it keeps tuples, which pytest's reports have, and unlike pickle it makes no
objects, so the controller imports nothing of the tests'.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
import marshal
import struct
import sys
from typing import Any
import warnings

import msgspec

#: What the controller answers: end after this test, and go on.
STOP = b"s"
SHOWN = b"a"

# Taken now, for a child sends while a test may have patched the modules' functions.
_dumps = marshal.dumps
_fields = msgspec.structs.asdict

_LENGTH = struct.Struct("!I")
_EXACT = frozenset({type(None), bool, int, float, str, bytes})

# marshal itself ends at 2000, and nothing that prints well is nested so deep.
_DEPTH = 50

# A length beyond this is not one: nobody captures a gigabyte of output in one test.
_LONGEST = 1 << 30

#: A test's place as pytest gives it: file, line from 0, and name.
Location = tuple[str, int | None, str]


class MessageError(ValueError):
    """What came is no message of a child's. One line."""


class _Message(msgspec.Struct, frozen=True, tag_field="message", tag=True):
    pass


class SessionStart(_Message, frozen=True):
    """The child's session has begun.

    :param captured: the descriptors that it captures stdout and stderr into, if it does.
    """

    captured: list[int] | None


class Collected(_Message, frozen=True):
    """The tests that are to run.

    :param stepwise_count: how many tests ``--stepwise`` counted, where that is given.
    :param lines: what plugins have to say of the collection.
    :param listing: what ``--collect-only`` prints.
    """

    nodeids: list[str]
    stepwise_count: int | None = None
    lines: list[str] = []
    listing: str | None = None


class Deselected(_Message, frozen=True):
    nodeids: list[str]


class LogStart(_Message, frozen=True):
    nodeid: str
    location: Location


class PhaseBegins(_Message, frozen=True):
    """A phase of a test begins, where a plugin holds reports back until all phases are over.

    :param at_ns: when, in nanoseconds since the epoch.
    """

    nodeid: str
    phase: str
    at_ns: int


class LogReport(_Message, frozen=True):
    """A report on a phase of a test, as ``pytest_report_to_serializable`` makes it."""

    nodeid: str
    data: dict[str, Any]


class TornDown(_Message, frozen=True):
    """One of a test's collectors has been torn down, in a rerun.

    :param left: how many are still set up.
    :param kept: how many will be when the teardown is over.
    :param failed: whether its teardown failed. Of those after it nothing more is said.
    """

    nodeid: str
    left: int
    kept: int
    failed: bool


class LogFinish(_Message, frozen=True):
    nodeid: str
    location: Location


class CollectReport(_Message, frozen=True):
    """A report on a collector that failed or was skipped, serialized likewise."""

    data: dict[str, Any]


class WarningRecorded(_Message, frozen=True):
    """A warning, and where ``pytest_warning_recorded`` says that it came up.

    :param module: of its class, whose name is *category*.
    """

    text: str
    module: str
    category: str
    filename: str
    lineno: int
    when: str
    nodeid: str
    location: tuple[str, int, str] | None


class Text(_Message, frozen=True):
    """What somebody wrote to the terminal reporter."""

    text: str


class Benchmarks(_Message, frozen=True):
    """Results of pytest-benchmark."""

    results: list[dict[str, Any]]


class Debugger(_Message, frozen=True):
    """A debugger opens or closes."""

    opens: bool


class InternalError(_Message, frozen=True):
    text: str


class Exit(_Message, frozen=True):
    """``pytest.exit()`` was called."""

    reason: str
    status: int | None


class Interrupted(_Message, frozen=True):
    """Ctrl-C came; where, and the traceback."""

    place: str
    text: str


class SessionFinish(_Message, frozen=True):
    """The session is over. The texts are empty where nobody stopped it.

    :param seconds: how long it took.
    :param seconds_without_cpu: for how much of that its main thread was ready to run and had none.
    """

    exit_status: int
    shouldstop: str = ""
    shouldfail: str = ""
    seconds: float = 0.0
    seconds_without_cpu: float = 0.0


Message = (
    SessionStart
    | Collected
    | Deselected
    | LogStart
    | PhaseBegins
    | LogReport
    | TornDown
    | LogFinish
    | CollectReport
    | WarningRecorded
    | Text
    | Benchmarks
    | Debugger
    | InternalError
    | Exit
    | Interrupted
    | SessionFinish
)

#: The messages that a child lets the controller take in before it goes on: the start, for what
#: is opened of the child's then, and the debugger. With a terminal of its own: all of them.
AWAITED = (SessionStart, Debugger)


def encode(message: Message) -> bytes:
    """Return a message's bytes. What is not plain data in it is sent as its ``repr``."""
    fields = {name: plain(value) for name, value in _fields(message).items()}
    data = _dumps({"message": type(message).__name__, **fields})
    return _LENGTH.pack(len(data)) + data


def plain(value: Any, depth: int = 0) -> Any:
    """Return *value* with every object in it that is not plain data turned into text."""
    kind = type(value)
    if kind in _EXACT:
        return value
    if depth < _DEPTH:
        if isinstance(value, dict):
            return {plain(k, depth + 1): plain(v, depth + 1) for k, v in value.items()}
        if isinstance(value, tuple):
            return tuple([plain(each, depth + 1) for each in value])
        if isinstance(value, (list, set, frozenset)):
            return [plain(each, depth + 1) for each in value]
    # Not int(value) and so on: a subclass may have its own idea of that.
    if isinstance(value, int):
        return int.__index__(value)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes):
        return bytes.__getitem__(value, slice(None))
    try:
        return repr(value)
    except Exception as error:
        return f"<{kind.__name__}: repr raised {type(error).__name__}>"


class Decoder:
    """Turns bytes, cut anywhere, back into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Message]:
        """Yield the messages that are complete with this data.

        :raises MessageError: the bytes are no message's.
        """
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            if length > _LONGEST:
                raise MessageError(f"{length} bytes are announced")
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            message = _decoded(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            yield message


def _decoded(data: bytearray) -> Message:
    try:
        message: Message = msgspec.convert(marshal.loads(data), Message)
    except (ValueError, EOFError, TypeError) as error:  # msgspec's is a ValueError
        raise MessageError(str(error)) from None
    return message


def warning_recorded(
    warning: warnings.WarningMessage,
    when: str,
    nodeid: str,
    location: tuple[str, int, str] | None,
) -> WarningRecorded:
    """Return the message for a recorded warning."""
    return WarningRecorded(
        text=str(warning.message),
        module=warning.category.__module__,
        category=warning.category.__name__,
        filename=warning.filename,
        lineno=warning.lineno,
        when=when,
        nodeid=nodeid,
        location=location,
    )


def original_warning(recorded: WarningRecorded) -> warnings.WarningMessage:
    """Return a warning that prints as the original one did.

    Its class is looked up among what is loaded; the modules of the tests are not imported.
    """
    category = getattr(sys.modules.get(recorded.module, builtins), recorded.category, None)
    if not (isinstance(category, type) and issubclass(category, Warning)):
        category = type(recorded.category, (Warning,), {"__module__": recorded.module})
    try:
        message = category(recorded.text)
    except Exception:
        message = Warning(recorded.text)
    return warnings.WarningMessage(message, category, recorded.filename, recorded.lineno)
