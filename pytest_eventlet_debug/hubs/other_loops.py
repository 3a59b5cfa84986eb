"""Which event loop something belongs to that code in another one waits for."""

from __future__ import annotations

import gc
import sys
import types
from typing import Any

from pytest_eventlet_debug.hubs.names import own_hub

_GOT = " got Future "
_FOREIGN = " attached to a different loop"
#: What asyncio calls of a lock, an event or a queue to learn its loop, with what it has raised.
_BINDS = "_get_loop"


def of_bound(error: BaseException, frame: types.FrameType) -> str | None:
    """Say in which loop a lock, an event or a queue of asyncio's was waited for first.

    :param frame: in which the error was raised.
    """
    thing = frame.f_locals.get("self")
    bound, now = getattr(thing, "_loop", None), frame.f_locals.get("loop")
    if not isinstance(error, RuntimeError) or frame.f_code.co_name != _BINDS:
        return None
    if bound is None or now is None or bound is now:
        return None
    line = _say(f"the {type(thing).__name__}", bound, now)
    return f"{line}: it belongs to the loop in which it was first waited for" if line else None


def of_future(error: BaseException) -> str | None:
    """Say which loop a future belongs to that a task of another loop waits for."""
    words = error.args[0] if isinstance(error, RuntimeError) and error.args else None
    if type(words) is not str or not words.endswith(_FOREIGN):
        return None
    awaits, _, awaited = words.rpartition(_GOT)
    tasks = _of_kind("asyncio.tasks", "Task")
    own = [each.get_loop() for each in tasks if awaits.startswith(_begin(each, "Task "))]
    others = [each for each in (*tasks, *_of_kind("asyncio.futures", "Future")) if not each.done()]
    found = [
        each
        for each in others
        if not any(each.get_loop() is loop for loop in own) and _is_shown(each, awaited)
    ]
    loops = {id(each.get_loop()): each.get_loop() for each in found}
    if len(loops) != 1:  # of futures, little is shown
        return None
    (loop,) = loops.values()
    return _say("what the task waits for", loop, own[0] if len(own) == 1 else None)


def _of_kind(module: str, name: str) -> list[Any]:
    kind = getattr(sys.modules.get(module), name, None)
    return [each for each in gc.get_objects() if type(each) is kind]


def _begin(task: Any, before: str = "") -> str:
    return f"{before}<Task pending name={task.get_name()!r} "


def _is_shown(future: Any, awaited: str) -> bool:
    if hasattr(future, "get_name"):  # a task goes on, and to show one may recurse without end
        return awaited.startswith(_begin(future))
    return awaited == f"{future!r}{_FOREIGN}"


def _say(what: str, loop: Any, used_in: Any) -> str | None:
    hubs: Any = getattr(own_hub(), "loop", None)
    if loop is hubs:
        return f"{what} belongs to the hub's own event loop, and is used in another one"
    closed = " that was closed" if _is_closed(loop) else ""
    if used_in is hubs and hubs is not None:
        return f"{what} belongs to an event loop{closed}, and is used in the hub's own one"
    if not closed:
        return None
    return f"{what} belongs to an event loop{closed}, and is used in another one"


def _is_closed(loop: Any) -> bool:
    is_closed = getattr(loop, "is_closed", None)
    return callable(is_closed) and is_closed() is True
