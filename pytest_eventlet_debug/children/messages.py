"""What a child says to its controller: messages of plain data, each behind its length.

The child writes with ``posix.write``, which yields to no hub; the controller feeds what it
reads to a :class:`Decoder`. Both are the same interpreter, so ``marshal`` will do: unlike
JSON it keeps tuples, which pytest's reports have, and unlike pickle it makes no objects, so
the controller imports nothing of the tests'.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
import marshal
import struct
import sys
from typing import Any
from typing import NamedTuple
import warnings

#: What the controller answers: end after this test, and go on.
STOP = b"s"
SHOWN = b"a"

#: The messages that a child lets the controller take in before it goes on: the start, for what
#: is opened of the child's then, and the debugger. With a terminal of its own: all of them.
AWAITED = ("start", "debugger")

_LENGTH = struct.Struct("!I")
_EXACT = frozenset({type(None), bool, int, float, str, bytes})

# marshal itself ends at 2000, and nothing that prints well is nested so deep.
_DEPTH = 50


class Message(NamedTuple):
    """One message: what it is, and its content as plain data."""

    kind: str
    content: Any


def encode(kind: str, content: object = None) -> bytes:
    """Return a message's bytes. What is not plain data is sent as its ``repr``."""
    data = marshal.dumps((kind, plain(content)))
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
        """Yield the messages that are complete with this data."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            message = Message(*marshal.loads(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
            yield message


def encode_warning(warning: warnings.WarningMessage) -> dict[str, Any]:
    """Return a recorded warning as plain data."""
    return {
        "text": str(warning.message),
        "module": warning.category.__module__,
        "category": warning.category.__name__,
        "filename": warning.filename,
        "lineno": warning.lineno,
    }


def decode_warning(data: dict[str, Any]) -> warnings.WarningMessage:
    """Return a warning that prints as the original one did.

    Its class is looked up among what is loaded; the modules of the tests are not imported.
    """
    category = getattr(sys.modules.get(data["module"], builtins), data["category"], None)
    if not (isinstance(category, type) and issubclass(category, Warning)):
        category = type(data["category"], (Warning,), {"__module__": data["module"]})
    try:
        message = category(data["text"])
    except Exception:
        message = Warning(data["text"])
    return warnings.WarningMessage(message, category, data["filename"], data["lineno"])
