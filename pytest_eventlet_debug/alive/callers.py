"""Which line has called something, and whether it keeps what that returns."""

from __future__ import annotations

import opcode
import types
from typing import Final

from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.system.code_places import ASYNCIO
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet

#: Where the code lies of asyncio, and of what wraps it.
WATCHED_ASYNCIO: Final = (ASYNCIO, OURS)

# An instruction takes two bytes; from Python 3.11 on, some are followed by those of a cache.
_WIDTH = 2
_CACHE = opcode.opmap.get("CACHE", -1)
_DROPS = opcode.opmap["POP_TOP"]


def outside(frame: types.FrameType, library: tuple[str, ...]) -> types.FrameType | None:
    """Return the innermost frame that is not in a library's files.

    :return: ``None`` if there is none, or the library's loop has called: what that was called from
        has nothing to do with it.
    """
    each: types.FrameType | None = frame
    while each is not None and each.f_code.co_filename.startswith(library):
        each = None if is_handle(each.f_code) else each.f_back
    return each


def is_handle(code: types.CodeType) -> bool:
    """Say whether a function of asyncio's is the one that makes each call of a loop."""
    return code.co_name == "_run" and code.co_filename == f"{ASYNCIO}events.py"


def user_line(frame: types.FrameType) -> str:
    """Return the line that has called asyncio in words, not one of eventlet's if possible."""
    library = (*WATCHED_ASYNCIO, of_eventlet() or OURS)
    at = Frames().describe(outside(frame, library) or frame)
    return f"{at.location.removeprefix(STANDARD_LIBRARY)} in {at.function}"


def drops(frame: types.FrameType) -> bool:
    """Say whether a function will drop at once what the call returns that it makes just now."""
    code = frame.f_code.co_code
    following = frame.f_lasti + _WIDTH
    while code[following] == _CACHE:
        following += _WIDTH
    return code[following] == _DROPS


def is_dropping(frame: types.FrameType) -> bool:
    """Say whether a function is just dropping what a call has returned."""
    return frame.f_code.co_code[frame.f_lasti] == _DROPS
