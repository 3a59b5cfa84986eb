"""What an error, and the hub as it was left, say of why a test failed under this hub.

Only what its traceback shows is said of an error: nothing is guessed from its type or its words
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
import inspect
import itertools

from pytest_eventlet_debug.hubs import missing
from pytest_eventlet_debug.hubs import other_loops
from pytest_eventlet_debug.hubs.descriptor_reasons import beyond_select
from pytest_eventlet_debug.hubs.descriptor_reasons import of_kind_without_events
from pytest_eventlet_debug.hubs.descriptor_reasons import second
from pytest_eventlet_debug.hubs.loop_reasons import called_by_hub
from pytest_eventlet_debug.hubs.loop_reasons import cancelled
from pytest_eventlet_debug.hubs.loop_reasons import is_stop
from pytest_eventlet_debug.hubs.loop_reasons import nested
from pytest_eventlet_debug.hubs.loop_reasons import of_foreign_loop
from pytest_eventlet_debug.hubs.loop_reasons import of_hubs_task
from pytest_eventlet_debug.hubs.loop_reasons import refused
from pytest_eventlet_debug.hubs.loop_reasons import stopped
from pytest_eventlet_debug.hubs.loop_reasons import waits_in_hub
from pytest_eventlet_debug.hubs.loop_reasons import who_stopped
from pytest_eventlet_debug.hubs.notes import SENT
from pytest_eventlet_debug.hubs.notes import SHUT
from pytest_eventlet_debug.hubs.notes import noted
from pytest_eventlet_debug.hubs.recursion import recurses
from pytest_eventlet_debug.hubs.tracebacks import COROUTINE
from pytest_eventlet_debug.hubs.tracebacks import EVENTLET
from pytest_eventlet_debug.hubs.tracebacks import LOOP
from pytest_eventlet_debug.hubs.tracebacks import Place
from pytest_eventlet_debug.hubs.tracebacks import chain_of
from pytest_eventlet_debug.hubs.tracebacks import hub_runs_its_loop
from pytest_eventlet_debug.hubs.tracebacks import is_library
from pytest_eventlet_debug.hubs.tracebacks import places_of
from pytest_eventlet_debug.hubs.tracebacks import runs_hub
from pytest_eventlet_debug.hubs.tracebacks import user_of
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet

#: Characters of an error that are kept.
_MOST_WORDS = 100

#: What runs the loop of the asyncio hub.
_RUNS = ("run", "async_run")
#: Where executors, and the event loop for its own, say that they were shut down.
_SUBMITS = ("submit", "_check_default_executor")
_MOCKS = ("unittest.mock", "mock.mock")
_EVENT = f"{EVENTLET}event.py"


def reasons(error: BaseException) -> Iterator[str]:
    """Yield what the tracebacks of an error say of the hub, a line each."""
    chain = [(each, places) for each in chain_of(error) if (places := places_of(each))]
    for look in _LOOKS:
        for each, places in chain:
            if line := look(each, places):
                yield line
                break


def raised(error: BaseException) -> str:
    """Return an error in one line with where it arose: in a user's own line if there is one."""
    places = places_of(error)
    own = [place for place in places if not is_library(place.file)]
    where = f", raised at {(own or places)[-1]}" if places else ""
    try:
        words = " ".join(str(error).split())[:_MOST_WORDS]
    except Exception:
        words = ""
    who = f" ({who_stopped(places[-1])})" if places and is_stop(error, places) else ""
    return f"{type(error).__name__}{': ' if words else ''}{words}{where}{who}"


def is_of_hub(error: BaseException) -> bool:
    """Say whether it is the hub's own loop that raised an error, as where it has ended before."""
    places = places_of(error)
    return bool(places) and HUBS in places[-1].file and places[-1].code.co_name in _RUNS


def left_hub(error: BaseException) -> bool:
    """Say whether an error came out of the hub, and is not that it has ended before."""
    return any(map(runs_hub, places_of(error))) and not is_of_hub(error)


def _sent_before(error: BaseException, places: list[Place]) -> str | None:
    """Say who has sent an event first that can be sent only once."""
    if not isinstance(error, AssertionError) or not places[-1].raises:
        return None
    code = places[-1].code
    if code.co_name != "send" or not code.co_filename.endswith(_EVENT):
        return None
    first = noted(places[-1].frame.f_locals.get("self"), SENT)
    return (
        f"the event had already been sent{first}; it can be sent once until it is reset"
        if first
        else None
    )


def _replaced(error: BaseException, places: list[Place]) -> str | None:
    """Say that the hub came upon a mock or another stand-in, and what that raised."""
    for caller, place in itertools.pairwise(places):
        is_mock = place.frame.f_globals.get("__name__") in _MOCKS
        if HUBS not in caller.file and not caller.file.startswith(LOOP):
            if is_mock:
                return None
            continue
        if is_mock:
            mock = getattr(place.frame.f_locals.get("self"), "__dict__", {})
            name = mock.get("_mock_name")
            what = f"{name}(), which is mocked," if type(name) is str else "a mock"
        else:
            name = _stands_for(caller, place)
            if name is None:
                continue
            what = f"{name}(), which is replaced by {place},"
        return f"{what} raised {type(error).__name__} in the hub, at {caller}"
    return None


def _stands_for(caller: Place, place: Place) -> str | None:
    """Return what the caller meant, if it found a function in place of that in a module."""
    if place.file.startswith(STANDARD_LIBRARY) or EVENTLET in place.file:
        return None
    named = caller.code.co_names
    modules = filter(None, map(caller.frame.f_globals.get, named))
    for module, name in itertools.product(modules, named):
        if getattr(inspect.getattr_static(module, name, None), "__code__", None) is place.code:
            return name
    return None


def _of_another(error: BaseException, places: list[Place]) -> str | None:
    """Say that what is missing is set in another greenthread."""
    is_in = any(each.code.co_flags & COROUTINE for each in places if HUBS not in each.file)
    where = str(user_of(places))
    if places[-1].file.startswith(of_eventlet() or OURS) and places[-1].code.co_name == "main":
        where = "the greenthread that looked it up"  # it called C at once
    return missing.of_another(error, where, is_in and hub_runs_its_loop())


def _of_module(error: BaseException, _places: list[Place]) -> str | None:
    """Say that what is missing was removed by ``monkey_patch()``."""
    return missing.of_module(error)


def _of_other_loop(error: BaseException, places: list[Place]) -> str | None:
    """Say that what is waited for belongs to another loop."""
    last = places[-1]
    if last.raises and last.file.startswith(LOOP):
        return other_loops.of_bound(error, last.frame)
    return other_loops.of_future(error)


def _shut_down(error: BaseException, places: list[Place]) -> str | None:
    """Say who has shut down the executor that is to call something."""
    last = places[-1]
    if not isinstance(error, RuntimeError) or not last.raises or last.code.co_name not in _SUBMITS:
        return None
    by = noted(last.frame.f_locals.get("self"), SHUT)
    return f"the executor was shut down{by}" if by else None


#: What may be said of an error and where it arose, in the order in which to say it.
_LOOKS = (
    *(refused, nested, waits_in_hub, called_by_hub, _replaced, second, stopped, cancelled),
    *(of_kind_without_events, beyond_select, of_foreign_loop, of_hubs_task, _sent_before),
    *(recurses, _of_another, _of_module, _of_other_loop, _shut_down),
)
