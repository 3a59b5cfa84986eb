"""The lines of code that an error passed, and whose they are."""

from __future__ import annotations

from collections.abc import Iterator
import inspect
import opcode
import os
import sys
import types
from typing import Any
from typing import Final
from typing import NamedTuple

from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.system.code_places import ASYNCIO
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.code_places import shown_path

#: What the asyncio hub is made of, beside eventlet's part.
LOOP: Final = (ASYNCIO, f"{STANDARD_LIBRARY}selectors.py")
#: Part of the file name of all that is eventlet's.
EVENTLET: Final = f"{os.sep}eventlet{os.sep}"
#: Flags of the code of coroutines.
COROUTINE: Final = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR

#: Exceptions of one chain that are looked at.
_MOST = 20
_RAISE = opcode.opmap["RAISE_VARARGS"]
_INSTALLED = lazily(r"^.*/(?:site|dist)-packages/")


class Place(NamedTuple):
    """A line of code that ran."""

    frame: types.FrameType
    line: int
    #: Of the instruction, in its code.
    offset: int

    @property
    def raises(self) -> bool:
        """Whether it raised an error itself, and did not call what did."""
        return self.code.co_code[self.offset] == _RAISE

    @property
    def code(self) -> types.CodeType:
        return self.frame.f_code

    @property
    def file(self) -> str:
        return self.code.co_filename

    def __str__(self) -> str:
        return shown(self.code, self.line)


def shown(code: types.CodeType, line: int) -> str:
    """Return a line of code in words, such as ``test_x.py:3 in f``."""
    file = _INSTALLED.sub("", code.co_filename).removeprefix(STANDARD_LIBRARY)
    return f"{shown_path(file)}:{line} in {code.co_name}"


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and those that it came from."""
    seen: set[int] = set()
    ahead: list[BaseException | None] = [error]
    while ahead and len(seen) < _MOST:
        each = ahead.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        ahead += [each.__context__, each.__cause__]


def places_of(error: BaseException) -> list[Place]:
    """Return the lines that an error passed, the innermost last."""
    places = []
    step = error.__traceback__
    while step is not None:
        places.append(Place(step.tb_frame, step.tb_lineno, step.tb_lasti))
        step = step.tb_next
    return places


def said(error: BaseException) -> str:
    """Return the message that an error was made with, if that is a text."""
    words = error.args[0] if error.args else None
    return words if type(words) is str else ""


def own_line(frame: types.FrameType) -> Place | None:
    """Return the user's line that is furthest in on a stack."""
    inner: types.FrameType | None = frame
    while inner is not None:
        place = Place(inner, inner.f_lineno, inner.f_lasti)
        if not is_library(place.file):
            return place
        inner = inner.f_back
    return None


def user_of(places: list[Place]) -> Place:
    """Return the user's own line that is furthest in, or of the libraries' the outermost."""
    own = (place for place in reversed(places) if not is_library(place.file))
    return next(own, places[0])


def coroutine_of(own: list[Place]) -> Place | None:
    """Return the innermost line of a coroutine among a user's own."""
    return next((each for each in reversed(own) if each.code.co_flags & COROUTINE), None)


def caller_of(own: list[Place]) -> str:
    """Return the innermost of a user's own lines, with the coroutine that called it."""
    coroutine = coroutine_of(own)
    who = str(own[-1]) if own else "code"
    if coroutine is None or coroutine is own[-1]:
        return who
    return f"{who}, called by coroutine {coroutine},"


def runs_hub(place: Place) -> bool:
    """Say whether it is a line of a hub's ``run()``."""
    return HUBS in place.file and place.code.co_name == "run"


def is_of_hub_and_loop(place: Place) -> bool:
    """Say whether it is a line of a hub, of asyncio, or of what the plugin puts between them."""
    return HUBS in place.file or place.file.startswith((*LOOP, OURS))


def hub_runs_its_loop() -> bool:
    """Say whether the event loop that runs in this thread is the hub's own."""
    loop = getattr(own_hub(), "loop", None)
    get: Any = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return loop is not None and get is not None and get() is loop


def is_library(file: str) -> bool:
    """Say whether a file is no code of the user's."""
    library = (STANDARD_LIBRARY, OURS, "<", of_eventlet() or OURS)
    return file.startswith(library) or _INSTALLED.match(file) is not None
