"""What an error, and the hub as it was left, say of why a test failed under this hub.

Only what its traceback shows is said of an error: nothing is guessed from its type or its words
alone.
"""

from __future__ import annotations

from collections.abc import Iterator
import errno
import gc
import inspect
import itertools
import opcode
import os
import signal
import sys
import types
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple
from typing import TypeGuard

from pytest_eventlet_debug.hubs import missing
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import ASYNCIO
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.code_places import shown_path
from pytest_eventlet_debug.system.handler_errors import handled

if TYPE_CHECKING:
    import asyncio

#: An attribute of a loop: what first left its ``run_until_complete()``, in words.
LEFT = "_eventlet_debug_left"

#: An attribute of a loop: the code and line that called its ``stop()`` last, where that was
#: watched; ``None`` for a callback of its own.
STOPPED = "_eventlet_debug_stopped"
#: An attribute of tasks and greenlets: the code and line that cancelled or killed them.
ENDED = "_eventlet_debug_ended"
#: An attribute of events: the code and line that sent them, where that was watched.
SENT = "_eventlet_debug_sent"

#: Characters of an error that are kept.
_MOST_WORDS = 100

#: Exceptions of one chain that are looked at.
_MOST = 20
#: Frames of a greenthread in which it may wait, counted from the innermost one.
_MOST_FRAMES = 5

#: What code calls that refuses to run inside of a loop, or of an asynchronous library.
_ASKS = frozenset(("_get_running_loop", "get_running_loop", "current_async_library"))
#: How often the same calls have to follow each other, to be called without end.
_TIMES = 5
#: How many others there may be in the end.
_LAST_CALLS = 20
#: Of such calls, how many are told.
_MOST_CALLS = 6
#: The number of descriptors that select() takes, from 0 on.
_FD_SETSIZE = 1024
_RAISE = opcode.opmap["RAISE_VARARGS"]
#: What it says then: asyncio, asgiref, Django, anyio and Playwright, one after the other.
_SAYS = lazily(
    r"(?<!\bno )running event loop|\bloop is (?:already )?running|\basync event loop|"
    r"\basync context|\brunning asyncio in|\basyncio loop"
)
#: What runs the loop of the asyncio hub.
_RUNS = ("run", "async_run")
#: What a loop says that was stopped before what it ran had ended.
_STOPPED_SAYS = "Event loop stopped before Future completed."
_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_MOCKS = ("unittest.mock", "mock.mock")
#: What the asyncio hub is made of, beside eventlet's part.
_LOOP = (ASYNCIO, f"{STANDARD_LIBRARY}selectors.py")
_EVENTLET = f"{os.sep}eventlet{os.sep}"
_EVENT = f"{_EVENTLET}event.py"
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
        return _shown(self.code, self.line)


def _shown(code: types.CodeType, line: int) -> str:
    file = _INSTALLED.sub("", code.co_filename).removeprefix(STANDARD_LIBRARY)
    return f"{shown_path(file)}:{line} in {code.co_name}"


def reasons(error: BaseException) -> Iterator[str]:
    """Yield what the tracebacks of an error say of the hub, a line each."""
    chain = [(each, places) for each in chain_of(error) if (places := _places(each))]
    for look in _LOOKS:
        for each, places in chain:
            if line := look(each, places):
                yield line
                break


def raised(error: BaseException) -> str:
    """Return an error in one line with where it arose: in a user's own line if there is one."""
    places = _places(error)
    own = [place for place in places if not _is_library(place.file)]
    where = f", raised at {(own or places)[-1]}" if places else ""
    try:
        words = " ".join(str(error).split())[:_MOST_WORDS]
    except Exception:
        words = ""
    stopped = f" ({_who_stopped(places[-1])})" if places and _is_stop(error, places) else ""
    return f"{type(error).__name__}{': ' if words else ''}{words}{where}{stopped}"


def is_of_hub(error: BaseException) -> bool:
    """Say whether it is the hub's own loop that raised an error, as where it has ended before."""
    places = _places(error)
    return bool(places) and HUBS in places[-1].file and places[-1].code.co_name in _RUNS


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


def _places(error: BaseException) -> list[Place]:
    """Return the lines that an error passed, the innermost last."""
    places = []
    step = error.__traceback__
    while step is not None:
        places.append(Place(step.tb_frame, step.tb_lineno, step.tb_lasti))
        step = step.tb_next
    return places


def _said(error: BaseException) -> str:
    """Return the message that an error was made with, if that is a text."""
    words = error.args[0] if error.args else None
    return words if type(words) is str else ""


def _refused(error: BaseException, places: list[Place]) -> str | None:
    """Say that code refuses to run in a loop, where that loop is the hub's."""
    if not places[-1].raises or not _ASKS & {*places[-1].code.co_names}:
        return None
    if not _SAYS.search(_said(error)) or not _hub_runs_its_loop():
        return None
    # Elsewhere a coroutine runs, as the loops that it is in are.
    own = [place for place in places if HUBS not in place.file]
    if any(place.code.co_flags & _COROUTINE for place in own):
        return None
    caller = next((each for each in reversed(own[:-1]) if not _is_library(each.file)), None)
    called = f", called at {caller}" if caller is not None else ""
    return (
        f"{places[-1]} refuses to run while an event loop runs in its thread{called}: under "
        "asyncio that is so for all code, once the hub has run, as the loop is the hub's own"
    )


def _hub_runs_its_loop() -> bool:
    loop = getattr(own_hub(), "loop", None)
    get: Any = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    return loop is not None and get is not None and get() is loop


def _nested(error: BaseException, places: list[Place]) -> str | None:
    """Say in which other loop the hub cannot run its own."""
    runs = next((n for n, each in enumerate(places) if _runs_hub(each)), None)
    if runs is None or not places[-1].raises or not _ASKS & {*places[-1].code.co_names}:
        return None
    if not any(place.file.startswith(_LOOP) for place in places[:runs]):
        return (
            "the hub cannot run its event loop, as another one has not ended in its thread, such "
            "as that of a hub that use_hub() has replaced"
        )
    own = [place for place in places[:runs] if not _is_library(place.file)]
    return (
        "the asyncio hub is an event loop itself and cannot run inside of another one, where "
        f"{_caller(own)} waits for eventlet"
    )


def _is_mainloop_error(error: BaseException, places: list[Place]) -> bool:
    """Say whether eventlet refused to wait in the hub's own greenlet."""
    if not places[-1].raises or _EVENTLET not in places[-1].file:
        return False
    return "mainloop" in _said(error).lower()


def _waits_in_hub(error: BaseException, places: list[Place]) -> str | None:
    """Say which coroutine waits for the hub that runs it."""
    if not _is_mainloop_error(error, places):
        return None
    own = [place for place in places if not _is_library(place.file)]
    if _coroutine(own) is None:  # it may be one of asyncio's own, such as to_thread()
        own = [place for place in places if not place.file.startswith(of_eventlet() or HUBS)]
    if _coroutine(own) is None or not _hub_runs_its_loop():  # other hubs may run a loop, too
        return None
    green = next(place for place in reversed(places) if HUBS not in place.file)
    return (
        f"{_caller(own)} waits for eventlet ({green}), which no coroutine can: it is run by the "
        "asyncio hub, which would have to go on meanwhile"
    )


def _coroutine(own: list[Place]) -> Place | None:
    return next((each for each in reversed(own) if each.code.co_flags & _COROUTINE), None)


def _caller(own: list[Place]) -> str:
    """Return the innermost of a user's own lines, with the coroutine that called it."""
    coroutine = _coroutine(own)
    who = str(own[-1]) if own else "code"
    if coroutine is None or coroutine is own[-1]:
        return who
    return f"{who}, called by coroutine {coroutine},"


def _runs_hub(place: Place) -> bool:
    return HUBS in place.file and place.code.co_name == "run"


def _stopped(error: BaseException, places: list[Place]) -> str | None:
    """Say who has stopped the loop that the hub runs in."""
    if not _is_stop(error, places) or not any(map(_runs_hub, places)):
        return None
    return (
        f"{_who_stopped(places[-1])}, which ends the hub: under asyncio that loop is the hub's "
        "own, and code that looks for a loop gets it"
    )


def _is_stop(error: BaseException, places: list[Place]) -> bool:
    return (
        isinstance(error, RuntimeError)
        and error.args == (_STOPPED_SAYS,)
        and places[-1].raises
        and places[-1].code.co_name == "run_until_complete"
        and places[-1].file.startswith(_LOOP)
    )


def _who_stopped(place: Place) -> str:
    """Return in words who has stopped a loop.

    :param place: where the loop noticed it.
    """
    loop = place.frame.f_locals.get("self")
    is_known = hasattr(loop, STOPPED)
    who = _noted(loop, STOPPED) or (" by a callback of it" if is_known else "")
    return f"stop() of the event loop was called{who}"


def _noted(thing: object, name: str) -> str:
    """Return the place that was noted of a thing, such as `` at test_x.py:3 in f``."""
    site = getattr(thing, name, None)
    return f" at {_shown(*site)}" if type(site) is tuple else ""


def _cancelled(error: BaseException, places: list[Place]) -> str | None:
    """Say who has cancelled the task that the hub is."""
    kind = getattr(sys.modules.get("asyncio.exceptions"), "CancelledError", None)
    if type(error) is not kind:
        return None
    runs = next((n for n, each in enumerate(places) if _runs_hub(each)), len(places))
    ended = next(
        (
            each
            for each in places[runs:]
            if each.code.co_name == "run_until_complete" and each.file.startswith(_LOOP)
        ),
        None,
    )
    if ended is None:
        return None
    who = _noted(ended.frame.f_locals.get("future"), ENDED)
    return (
        f"the asyncio hub runs as a task, which was cancelled{who}: asyncio.all_tasks() returns "
        "that one, too"
    )


def _sent_before(error: BaseException, places: list[Place]) -> str | None:
    """Say who has sent an event first that can be sent only once."""
    if not isinstance(error, AssertionError) or not places[-1].raises:
        return None
    code = places[-1].code
    if code.co_name != "send" or not code.co_filename.endswith(_EVENT):
        return None
    first = _noted(places[-1].frame.f_locals.get("self"), SENT)
    return (
        f"the event had already been sent{first}; it can be sent once until it is reset"
        if first
        else None
    )


def _called_by_hub(error: BaseException, places: list[Place]) -> str | None:
    """Say what the hub itself runs that waits for eventlet, if it is no coroutine."""
    if not _is_mainloop_error(error, places):
        return None
    runs = max((n for n, each in enumerate(places) if _runs_hub(each)), default=None)
    # The asyncio hub is a coroutine itself.
    if runs is None or _coroutine([each for each in places[runs:] if HUBS not in each.file]):
        return None
    pairs = itertools.pairwise(places[runs:])
    found = next((pair for pair in pairs if not _is_of_hub_and_loop(pair[1])), None)
    if found is None:
        return None
    caller, place = found
    signals = handled_by(place.code)
    how = f", the handler of {signals}," if signals else f", which is called by {caller},"
    green = next(place for place in reversed(places) if HUBS not in place.file)
    waits = f" ({green})" if green is not place else ""
    return f"{place}{how} waits for eventlet{waits} in the hub itself, and only greenthreads can"


def _is_of_hub_and_loop(place: Place) -> bool:
    return HUBS in place.file or place.file.startswith((*_LOOP, OURS))


def handled_by(code: types.CodeType) -> str:
    """Return the names of the signals that a function is the handler of, ``""`` for none."""
    numbers = (number for number, function in handled() if function is code)
    return " and ".join(each.name for each in numbers if isinstance(each, signal.Signals))


def _second(error: BaseException, places: list[Place]) -> str | None:
    """Say who waits already for the descriptor that a second one cannot wait for."""
    names = _of_add(places)
    if not places[-1].raises or HUBS not in places[-1].file or names is None:
        return None
    listener = names.get("bucket", {}).get(names.get("fileno"))
    # It is in the message, if it is still the one that was in the way.
    if listener is None or not _said(error).endswith(f"={listener!r}"):
        return None
    wanted = f"descriptor {listener.fileno}, which {_user(places)} wants to wait for, too"
    frame = _waiting(listener)
    if frame is None:
        return (
            f"the hub still has a {listener.evtype} listener on {wanted}: the greenthread that it "
            "belongs to no longer waits"
        )
    own = _own_line(frame)
    where = f", at {own}," if own is not None else ""
    return (
        f"greenthread {switches.function_at_bottom(frame)}{where} already waits to "
        f"{listener.evtype} on {wanted}; a hub wakes only one greenthread for each"
    )


def _waiting(listener: Any) -> types.FrameType | None:
    """Return the frame in which a greenthread waits for a descriptor; ``None`` if it does not."""
    frame = getattr(listener.greenlet, "gr_frame", None)
    for _ in range(_MOST_FRAMES):
        if frame is None:
            break
        code = frame.f_code
        if HUBS in code.co_filename and code.co_name == "trampoline":
            return frame if frame.f_locals.get("listener") is listener else None
        frame = frame.f_back
    return None


def _own_line(frame: types.FrameType) -> Place | None:
    """Return the user's line that is furthest in on a stack."""
    inner: types.FrameType | None = frame
    while inner is not None:
        place = Place(inner, inner.f_lineno, inner.f_lasti)
        if not _is_library(place.file):
            return place
        inner = inner.f_back
    return None


def _of_kind_without_events(error: BaseException, places: list[Place]) -> str | None:
    """Say that epoll takes no descriptor of a kind that is always ready; see epoll_ctl(2)."""
    names = _of_add(places)
    if not isinstance(error, PermissionError) or error.errno != errno.EPERM or names is None:
        return None
    last = places[-1]
    if last.code.co_name != "register" or not _is_of_hub_and_loop(last):
        return None
    return (
        f"{_user(places)} waits for descriptor {names.get('fileno')}, which epoll refuses (EPERM) "
        "as it does regular files and directories; the hubs epolls and asyncio use it, poll and "
        "selects do not"
    )


def _beyond_select(error: BaseException, places: list[Place]) -> str | None:
    """Say which descriptor is too large a number for ``select()``; see select(2), FD_SETSIZE."""
    if not isinstance(error, ValueError):
        return None
    last = places[-1]
    if HUBS not in last.file or "selects" not in last.file or last.code.co_name != "wait":
        return None
    descriptors = last.frame.f_locals.get("all_fds") or (0,)
    largest = max(descriptors)
    if largest < _FD_SETSIZE:
        return None
    hub = last.frame.f_locals.get("self")
    listeners = [named.get(largest) for named in getattr(hub, "listeners", {}).values()]
    frame = next((_waiting(each) for each in listeners if each is not None), None)
    own = _own_line(frame) if frame is not None else None
    waits = f", for which {own} waits" if own is not None else ""
    return (
        f"the hub selects cannot wait for descriptor {largest}{waits}: select() takes only "
        f"those below {_FD_SETSIZE}; the other hubs do not use it"
    )


def _recurses(error: BaseException, places: list[Place]) -> str | None:
    """Say which calls of eventlet, or of a class it has replaced, come back to themselves."""
    if not isinstance(error, RecursionError):
        return None
    first, period = _repeated(places)
    circle = places[first : first + period]
    before = _of_class_before(circle, places)
    if before is not None:
        return before
    if not any(_EVENTLET in place.file for place in circle):
        return None
    shown = [str(place) for place in circle if not place.file.startswith(OURS)]
    if len(shown) > _MOST_CALLS:
        half = _MOST_CALLS // 2
        shown[half:-half] = [f"{len(shown) - 2 * half} more"]
    own = (place for place in reversed(places[:first]) if not _is_library(place.file))
    begin = next(own, None)
    begun = f", begun at {begin}" if begin is not None else ""
    return f"calls recurse without end{begun}: {', '.join(shown)}, and so on"


def _repeated(places: list[Place]) -> tuple[int, int]:
    """Return where the same calls begin to repeat until the end, and how many they are; else 0."""
    calls = [(place.code, place.offset) for place in places]
    last = len(calls) - _LAST_CALLS  # where the stack ends, they may be others
    for period in range(1, last // _TIMES):
        first = last
        while first >= period and calls[first] == calls[first - period]:
            first -= 1
        if last - first >= period * _TIMES:
            return max(first - period + 1, 0), period
    return 0, 0


def _of_class_before(circle: list[Place], places: list[Place]) -> str | None:
    """Say that a method calls itself, as monkey_patch() has replaced its class in its module."""
    last = next((each for each in circle if "self" in each.frame.f_locals), None)
    if last is None:
        return None
    scope = last.frame.f_globals
    module = scope.get("__name__")
    for kind in type(last.frame.f_locals["self"]).__mro__:
        now = scope.get(kind.__name__) if kind.__module__ == module else None
        if kind.__name__ not in last.code.co_names or not isinstance(now, type) or now is kind:
            continue
        if now.__module__.startswith("eventlet."):
            return (
                f"{_user(places)} uses the {module}.{kind.__name__} from before monkey_patch(), "
                f"which has put {now.__module__}.{now.__name__} in its place: {last} looks for "
                "the methods of that one's base, and calls itself"
            )
    return None


def _of_add(places: list[Place]) -> dict[str, Any] | None:
    """Return the variables of the hub where it is to wait for a descriptor, the innermost ones."""
    adds = (each for each in reversed(places) if HUBS in each.file and each.code.co_name == "add")
    place = next(adds, None)
    return place.frame.f_locals if place is not None else None


def _user(places: list[Place]) -> Place:
    """Return the user's own line that is furthest in, or of the libraries' the outermost."""
    own = (place for place in reversed(places) if not _is_library(place.file))
    return next(own, places[0])


def _replaced(error: BaseException, places: list[Place]) -> str | None:
    """Say that the hub came upon a mock or another stand-in, and what that raised."""
    for caller, place in itertools.pairwise(places):
        is_mock = place.frame.f_globals.get("__name__") in _MOCKS
        if HUBS not in caller.file and not caller.file.startswith(_LOOP):
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
    if place.file.startswith(STANDARD_LIBRARY) or _EVENTLET in place.file:
        return None
    named = caller.code.co_names
    modules = filter(None, map(caller.frame.f_globals.get, named))
    for module, name in itertools.product(modules, named):
        if getattr(inspect.getattr_static(module, name, None), "__code__", None) is place.code:
            return name
    return None


def _of_foreign_loop(error: BaseException, places: list[Place]) -> str | None:
    """Say that the hub's loop is not one of asyncio's, and what a method of its own raised."""
    loop = getattr(own_hub(), "loop", None)
    kind = type(loop)
    if loop is None or kind.__module__.startswith("asyncio."):
        return None
    for caller, place in itertools.pairwise(places):
        if HUBS not in caller.file or place.frame.f_locals.get("self") is not loop:
            continue
        if not place.file.startswith(_LOOP):
            return (
                f"the hub's event loop is a {kind.__module__}.{kind.__qualname__}, not one of "
                f"asyncio's own: {place} raised {type(error).__name__} in the hub, at {caller}"
            )
    return None


def _of_hubs_task(error: BaseException, places: list[Place]) -> str | None:
    """Say that code outside of coroutines failed at a task that it has of the hub's loop."""
    if not _hub_runs_its_loop():
        return None
    if any(place.code.co_flags & _COROUTINE for place in places if HUBS not in place.file):
        return None
    where = places[-1]
    what, task = "", None
    if isinstance(error, AttributeError):
        what, task = f"what has no {error.name!r}", error.obj
    elif isinstance(error, TypeError) and "_asyncio.Task" in _said(error):
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


def _of_another(error: BaseException, places: list[Place]) -> str | None:
    """Say that what is missing is set in another greenthread."""
    is_in = any(each.code.co_flags & _COROUTINE for each in places if HUBS not in each.file)
    where = str(_user(places))
    if places[-1].file.startswith(of_eventlet() or OURS) and places[-1].code.co_name == "main":
        where = "the greenthread that looked it up"  # it called C at once
    return missing.of_another(error, where, is_in and _hub_runs_its_loop())


def _of_module(error: BaseException, _places: list[Place]) -> str | None:
    """Say that what is missing was removed by ``monkey_patch()``."""
    return missing.of_module(error)


def _is_library(file: str) -> bool:
    library = (STANDARD_LIBRARY, OURS, "<", of_eventlet() or OURS)
    return file.startswith(library) or _INSTALLED.match(file) is not None


#: What may be said of an error and where it arose, in the order in which to say it.
_LOOKS = (
    *(_refused, _nested, _waits_in_hub, _called_by_hub, _replaced, _second, _stopped, _cancelled),
    *(_of_kind_without_events, _beyond_select, _of_foreign_loop, _of_hubs_task, _sent_before),
    *(_recurses, _of_another, _of_module),
)
