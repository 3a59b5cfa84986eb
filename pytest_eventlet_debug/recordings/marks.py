"""Marks in a trace: looks at paths that do not exist, which say what the test is doing.

The tracer makes them, most of them in memory from which the helper puts them into the trace, and
the reader of traces takes them for what they mean::

    access("/.eventlet-debug/phase/<unix ns>/<phase>/<node id>", F_OK)
    access("/.eventlet-debug/greenlet/<n>/<label>[/<ns that it is late>]", F_OK)
    access("/.eventlet-debug/watcher/<thread>", F_OK)
    access("/.eventlet-debug/watcher", F_OK)
    access("/.eventlet-debug/own/begins", F_OK)
    access("/.eventlet-debug/own/ends", F_OK)
    access("/.eventlet-debug/line/<function>/<file>:<line> in <name>[, from ...]", F_OK)

The helper puts one of its own into a trace whose middle it has cut out, see
:func:`left_out`.

Standard library alone.
"""

from __future__ import annotations

import re
from typing import Final
from typing import NamedTuple

#: Paths of this prefix exist nowhere.
PREFIX: Final = "/.eventlet-debug/"

PHASE: Final = "phase"
GREENLET: Final = "greenlet"
#: Made of the thread that watches for stalls, and by it; see ``stalls/_watcher.c``.
WATCHER: Final = "watcher"
#: A thread of the test does work of ours, in between.
OWN: Final = "own"
LINE: Final = "line"

OWN_BEGINS: Final = f"{PREFIX}{OWN}/begins"
OWN_ENDS: Final = f"{PREFIX}{OWN}/ends"

#: What a mark of a line begins with; the rest is written in C, see ``profiling/lines.c``.
LINE_PREFIX: Final = f"{PREFIX}{LINE}/"

#: Stands in a line's place for the user's own code where there is none on the stack, only pytest.
RUNNER: Final = "pytest"

#: Made where pytest begins to do what it does before and after the code of a phase.
RUNNER_RUNS: Final = f"{LINE_PREFIX}{RUNNER}/{RUNNER}".encode()

#: Made where no line is known any more.
NO_LINE: Final = f"{LINE_PREFIX}returned/".encode()

_PLACE = re.compile(r"(.+):(\d{1,9}) in (.+)")

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


def greenlet(number: int, label: str, late_ns: int = 0) -> bytes:
    """Return the path that marks that a greenlet runs from now on.

    :param late_ns: nanoseconds by which that comes later than its timer was due, where that counts.
    """
    late = f"/{late_ns}" if late_ns else ""
    return _path(f"{GREENLET}/{number}/{label.replace('/', '_')[:_LABEL_CHARACTERS]}{late}")


class Place(NamedTuple):
    """A line of Python."""

    file: str
    line: int
    function: str


def own_place(at: str) -> Place | None:
    """Return the user's own line of those that are named for a call, else the only one.

    :param at: ``greenio/base.py:237 in accept, from test_x.py:38 in serve``.
    """
    place, _, own = at.rpartition(", from ")
    match = _PLACE.match(place if own == RUNNER else own)
    return None if match is None else Place(match[1], int(match[2]), match[3])


def left_out(size: int) -> bytes:
    """Return the line, with its newline, that stands for *size* bytes of a trace."""
    return f"--- {size} bytes are left out here: the trace is longer than its limit ---\n".encode()


def _path(rest: str) -> bytes:
    path = f"{PREFIX}{rest}".encode("utf-8", "surrogateescape")
    return path.replace(b"\0", b"?")[:_PATH_BYTES]
