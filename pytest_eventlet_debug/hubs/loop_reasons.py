"""What an error's traceback says of the event loop that the asyncio hub runs."""

from __future__ import annotations

import gc
import itertools
import signal
import sys
import types
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeGuard

from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.hubs.notes import ENDED
from pytest_eventlet_debug.hubs.notes import STOPPED
from pytest_eventlet_debug.hubs.notes import noted
from pytest_eventlet_debug.hubs.tracebacks import COROUTINE
from pytest_eventlet_debug.hubs.tracebacks import EVENTLET
from pytest_eventlet_debug.hubs.tracebacks import LOOP
from pytest_eventlet_debug.hubs.tracebacks import Place
from pytest_eventlet_debug.hubs.tracebacks import caller_of
from pytest_eventlet_debug.hubs.tracebacks import coroutine_of
from pytest_eventlet_debug.hubs.tracebacks import hub_runs_its_loop
from pytest_eventlet_debug.hubs.tracebacks import is_library
from pytest_eventlet_debug.hubs.tracebacks import is_of_hub_and_loop
from pytest_eventlet_debug.hubs.tracebacks import runs_hub
from pytest_eventlet_debug.hubs.tracebacks import said
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.code_places import shown_path
from pytest_eventlet_debug.system.handler_errors import handled

if TYPE_CHECKING:
    import asyncio

#: What code calls that refuses to run inside of a loop, or of an asynchronous library.
_ASKS = frozenset(("_get_running_loop", "get_running_loop", "current_async_library"))
#: What it says then: asyncio, asgiref, Django, anyio and Playwright, one after the other.
_SAYS = lazily(
    r"(?<!\bno )running event loop|\bloop is (?:already )?running|\basync event loop|"
    r"\basync context|\brunning asyncio in|\basyncio loop"
)
#: What a loop says that was stopped before what it ran had ended.
_STOPPED_SAYS = "Event loop stopped before Future completed."


def refused(error: BaseException, places: list[Place]) -> str | None:
    """Say that code refuses to run in a loop, where that loop is the hub's."""
    if not places[-1].raises or not _ASKS & {*places[-1].code.co_names}:
        return None
    if not _SAYS.search(said(error)) or not hub_runs_its_loop():
        return None
    # Elsewhere a coroutine runs, as the loops that it is in are.
    own = [place for place in places if HUBS not in place.file]
    if any(place.code.co_flags & COROUTINE for place in own):
        return None
    caller = next((each for each in reversed(own[:-1]) if not is_library(each.file)), None)
    called = f", called at {caller}" if caller is not None else ""
    return (
        f"{places[-1]} refuses to run while an event loop runs in its thread{called}: under "
        "asyncio that is so for all code, once the hub has run, as the loop is the hub's own"
    )


def nested(error: BaseException, places: list[Place]) -> str | None:
    """Say in which other loop the hub cannot run its own."""
    runs = next((n for n, each in enumerate(places) if runs_hub(each)), None)
    if runs is None or not places[-1].raises or not _ASKS & {*places[-1].code.co_names}:
        return None
    if not any(place.file.startswith(LOOP) for place in places[:runs]):
        return (
            "the hub cannot run its event loop, as another one has not ended in its thread, such "
            "as that of a hub that use_hub() has replaced"
        )
    own = [place for place in places[:runs] if not is_library(place.file)]
    return (
        "the asyncio hub is an event loop itself and cannot run inside of another one, where "
        f"{caller_of(own)} waits for eventlet"
    )


def _is_mainloop_error(error: BaseException, places: list[Place]) -> bool:
    """Say whether eventlet refused to wait in the hub's own greenlet."""
    if not places[-1].raises or EVENTLET not in places[-1].file:
        return False
    return "mainloop" in said(error).lower()


def waits_in_hub(error: BaseException, places: list[Place]) -> str | None:
    """Say which coroutine waits for the hub that runs it."""
    if not _is_mainloop_error(error, places):
        return None
    own = [place for place in places if not is_library(place.file)]
    if coroutine_of(own) is None:  # it may be one of asyncio's own, such as to_thread()
        own = [place for place in places if not place.file.startswith(of_eventlet() or HUBS)]
    if coroutine_of(own) is None or not hub_runs_its_loop():  # other hubs may run a loop, too
        return None
    green = next(place for place in reversed(places) if HUBS not in place.file)
    return (
        f"{caller_of(own)} waits for eventlet ({green}), which no coroutine can: it is run by the "
        "asyncio hub, which would have to go on meanwhile"
    )


def called_by_hub(error: BaseException, places: list[Place]) -> str | None:
    """Say what the hub itself runs that waits for eventlet, if it is no coroutine."""
    if not _is_mainloop_error(error, places):
        return None
    runs = max((n for n, each in enumerate(places) if runs_hub(each)), default=None)
    # The asyncio hub is a coroutine itself.
    if runs is None or coroutine_of([each for each in places[runs:] if HUBS not in each.file]):
        return None
    pairs = itertools.pairwise(places[runs:])
    found = next((pair for pair in pairs if not is_of_hub_and_loop(pair[1])), None)
    if found is None:
        return None
    caller, place = found
    signals = handled_by(place.code)
    how = f", the handler of {signals}," if signals else f", which is called by {caller},"
    green = next(place for place in reversed(places) if HUBS not in place.file)
    waits = f" ({green})" if green is not place else ""
    return f"{place}{how} waits for eventlet{waits} in the hub itself, and only greenthreads can"


def handled_by(code: types.CodeType) -> str:
    """Return the names of the signals that a function is the handler of, ``""`` for none."""
    numbers = (number for number, function in handled() if function is code)
    return " and ".join(each.name for each in numbers if isinstance(each, signal.Signals))


def stopped(error: BaseException, places: list[Place]) -> str | None:
    """Say who has stopped the loop that the hub runs in."""
    if not is_stop(error, places) or not any(map(runs_hub, places)):
        return None
    return (
        f"{who_stopped(places[-1])}, which ends the hub: under asyncio that loop is the hub's "
        "own, and code that looks for a loop gets it"
    )


def is_stop(error: BaseException, places: list[Place]) -> bool:
    return (
        isinstance(error, RuntimeError)
        and error.args == (_STOPPED_SAYS,)
        and places[-1].raises
        and places[-1].code.co_name == "run_until_complete"
        and places[-1].file.startswith(LOOP)
    )


def who_stopped(place: Place) -> str:
    """Return in words who has stopped a loop.

    :param place: where the loop noticed it.
    """
    loop = place.frame.f_locals.get("self")
    is_known = hasattr(loop, STOPPED)
    who = noted(loop, STOPPED) or (" by a callback of it" if is_known else "")
    return f"stop() of the event loop was called{who}"


def cancelled(error: BaseException, places: list[Place]) -> str | None:
    """Say who has cancelled the task that the hub is."""
    kind = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", None)
    if type(error) is not kind:
        return None
    runs = next((n for n, each in enumerate(places) if runs_hub(each)), len(places))
    ended = next(
        (
            each
            for each in places[runs:]
            if each.code.co_name == "run_until_complete" and each.file.startswith(LOOP)
        ),
        None,
    )
    if ended is None:
        return None
    who = noted(ended.frame.f_locals.get("future"), ENDED)
    return (
        f"the asyncio hub runs as a task, which was cancelled{who}: asyncio.all_tasks() returns "
        "that one, too"
    )


def of_foreign_loop(error: BaseException, places: list[Place]) -> str | None:
    """Say that the hub's loop is not one of asyncio's, and what a method of its own raised."""
    loop = getattr(own_hub(), "loop", None)
    kind = type(loop)
    if loop is None or kind.__module__.startswith("asyncio."):
        return None
    for caller, place in itertools.pairwise(places):
        if HUBS not in caller.file or place.frame.f_locals.get("self") is not loop:
            continue
        if not place.file.startswith(LOOP):
            return (
                f"the hub's event loop is a {kind.__module__}.{kind.__qualname__}, not one of "
                f"asyncio's own: {place} raised {type(error).__name__} in the hub, at {caller}"
            )
    return None


def of_hubs_task(error: BaseException, places: list[Place]) -> str | None:
    """Say that code outside of coroutines failed at a task that it has of the hub's loop."""
    if not hub_runs_its_loop():
        return None
    if any(place.code.co_flags & COROUTINE for place in places if HUBS not in place.file):
        return None
    where = places[-1]
    what, task = "", None
    if isinstance(error, AttributeError):
        what, task = f"what has no {error.name!r}", error.obj
    elif isinstance(error, TypeError) and "_asyncio.Task" in said(error):
        named = [(name, each) for name, each in where.frame.f_locals.items() if _is_task(each)]
        what, task = named[0] if len(named) == 1 else ("", None)
    if not _is_task(task) or task.get_loop() is not own_hub().loop:
        return None
    coroutine = getattr(task.get_coro(), "__qualname__", "a coroutine")
    return (
        f"{what} at {where} is a task of {coroutine}() in the hub's own event loop: under asyncio "
        "that loop runs in the thread for all code, once the hub has run"
    )


def _is_task(thing: object) -> TypeGuard[asyncio.Task[Any]]:
    task: Any = getattr(sys.modules.get("asyncio.tasks"), "Task", None)
    return type(thing) is task


def unclosed_generators() -> dict[types.AsyncGeneratorType[Any, Any], str]:
    """Return the asynchronous generators that wait for the hub to close them, with words.

    While a loop runs, as that of the asyncio hub does in all code, it has generators that are let
    go closed in a task: see ``BaseEventLoop._asyncgen_finalizer_hook()``.
    """
    ready = getattr(getattr(own_hub(), "loop", None), "_ready", ())
    found: dict[types.AsyncGeneratorType[Any, Any], str] = {}
    for handle in tuple(ready):
        is_task = getattr(getattr(handle, "_callback", None), "__name__", "") == "create_task"
        closing = (getattr(handle, "_args", None) or (None,))[0]
        if not is_task or type(closing).__name__ != "async_generator_athrow":
            continue
        for each in gc.get_referents(closing):
            if type(each) is types.AsyncGeneratorType:
                code = each.ag_code
                where = f"{shown_path(code.co_filename)}:{code.co_firstlineno}"
                found[each] = (
                    f"{each.__qualname__}(), an asynchronous generator ({where}), was let go and "
                    "is not closed yet: the hub's loop closes it in a task, once the hub runs again"
                )
    return found
