"""Marks in a trace: looks at paths that do not exist, which say what the test is doing.

The tracer makes them and the reader of traces takes them for what they mean::

    access("/.eventlet-debug/phase/<unix ns>/<phase>/<node id>", F_OK)
    access("/.eventlet-debug/greenlet/<n>/<label>", F_OK)
    access("/.eventlet-debug/line/<function>/<file>:<line> in <name>[, from ...]", F_OK)

The helper puts one of its own into a trace whose middle it has cut out, see
:func:`left_out`.

Standard library alone.
"""

from __future__ import annotations

from typing import Final

#: Paths of this prefix exist nowhere.
PREFIX: Final = "/.eventlet-debug/"

PHASE: Final = "phase"
GREENLET: Final = "greenlet"
LINE: Final = "line"

#: What a mark of a line begins with; the rest is written in C, see ``profiling/lines.c``.
LINE_PREFIX: Final = f"{PREFIX}{LINE}/"

#: The calls that C libraries make of access(3).
CALLS: Final = ("access", "faccessat", "faccessat2")

#: Linux's PATH_MAX is 4096 bytes with the final NUL.
_PATH_BYTES = 4095

_LABEL_CHARACTERS = 80


def phase(time_ns: int, name: str, nodeid: str) -> bytes:
    """Return the path that marks the beginning of a phase.

    :param time_ns: nanoseconds since the epoch.
    """
    return _path(f"{PHASE}/{time_ns}/{name}/{nodeid}")


def greenlet(number: int, label: str) -> bytes:
    """Return the path that marks that a greenlet runs from now on."""
    return _path(f"{GREENLET}/{number}/{label.replace('/', '_')[:_LABEL_CHARACTERS]}")


def left_out(size: int) -> bytes:
    """Return the line, with its newline, that stands for *size* bytes of a trace."""
    return f"--- {size} bytes are left out here: the trace is longer than its limit ---\n".encode()


def _path(rest: str) -> bytes:
    path = f"{PREFIX}{rest}".encode("utf-8", "surrogateescape")
    return path.replace(b"\0", b"?")[:_PATH_BYTES]
