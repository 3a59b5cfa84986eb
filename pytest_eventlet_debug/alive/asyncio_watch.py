"""Watch asyncio while tests run: who makes which task, and what is alive as a run fails.

``asyncio.run()`` and its like cancel all tasks before their exception reaches anybody, and
a TaskGroup cancels its members before the exception of one leaves it. So a few functions
of asyncio are wrapped to look first. What is kept of that is plain data.
"""

from __future__ import annotations

from _thread import get_ident as _ident
from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
import contextlib
from importlib.machinery import ModuleSpec
from importlib.machinery import PathFinder
import signal
import sys
import types
from typing import Any
import weakref

import msgspec

from pytest_eventlet_debug import fallbacks
from pytest_eventlet_debug.alive.endings import outside
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import copy_of
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.task_waits import ACQUIRED
from pytest_eventlet_debug.alive.task_waits import SITE
from pytest_eventlet_debug.alive.task_waits import is_task
from pytest_eventlet_debug.alive.task_waits import named
from pytest_eventlet_debug.alive.task_waits import task_name
from pytest_eventlet_debug.alive.tasks import HELD
from pytest_eventlet_debug.alive.tasks import NO_TURN
from pytest_eventlet_debug.alive.tasks import TESTS
from pytest_eventlet_debug.alive.tasks import AliveTasks
from pytest_eventlet_debug.alive.tasks import describe_tasks
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.hubs.reasons import LEFT
from pytest_eventlet_debug.hubs.reasons import STOPPED
from pytest_eventlet_debug.hubs.reasons import is_of_hub
from pytest_eventlet_debug.hubs.reasons import raised
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.code_places import stand_in
from pytest_eventlet_debug.system.collector import collector_paused
from pytest_eventlet_debug.system.handler_errors import put_off

#: The last ones of a test that are kept.
MAX_SNAPSHOTS = 5
#: Tasks of one snapshot.
MAX_TASKS = 10_000
#: What all snapshots of one test may take; a test may expect many exceptions.
MAX_SECONDS = 2.0
#: Where asyncio has the functions that end sleeps and timeouts.
_OF_SLEEPS = ("asyncio.futures", "asyncio.tasks", "asyncio.timeouts")
#: Calls of other threads that are looked for in the loop of the hub.
_MOST_CALLS = 20


class Cancelled(msgspec.Struct, frozen=True):
    """The tasks that there were before an exception had them cancelled.

    :param reason: what happened, as in ``ValueError left run_until_complete()``.
    :param error: the ``id()`` of the exception, to know it again; it is not kept.
    """

    tasks: AliveTasks
    reason: str
    error: int


class AsyncioWatch:
    """Wraps functions of asyncio from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self._wrapped: list[tuple[Any, str, Any]] = []
        self._loops: set[type] = set()
        self._library: tuple[str, ...] = ()
        self._kept: list[Cancelled] = []
        self._seconds = 0.0
        self._finder: _AfterImport | None = None
        #: The descriptor that signals were written to for the hub's loop until somebody took that
        #: away, the one that they were then, and the line that did it; in this test.
        self._deaf: tuple[int, int, str] | None = None
        self._woken = -1
        #: The thread that runs each loop, by id of the loop. asyncio's own note of it may be a
        #: greenthread's, under monkey patching.
        self._runs_in: dict[int, int] = {}
        #: Calls that other threads had a loop make in this test, when, and where in words.
        self._threadsafe: deque[tuple[weakref.ref[Any], float, str]] = deque(maxlen=_MOST_CALLS)
        #: Who has taken from the hub in this test what its loop was to call for it, or ``""``.
        self.taken = ""
        #: What another thread had a loop do in this test that did not wake it, or ``""``.
        self.unheard = ""

    def start(self) -> None:
        """Begin now, or as soon as asyncio is imported."""
        if "asyncio.base_events" in sys.modules:
            self.look_again()
        elif self._finder is None:
            self._finder = _AfterImport("asyncio", self.look_again)
            sys.meta_path.insert(0, self._finder)

    def look_again(self) -> None:
        """Wrap what has been imported since, of uvloop and anyio; costs about 1 us."""
        base_events = sys.modules.get("asyncio.base_events")
        if base_events is None:
            return
        if not self._library:
            self._library = tuple(
                folder_of(path) for path in (base_events.__file__, __file__) if path is not None
            )
            self._wrap_loop(base_events.BaseEventLoop)
            self._wrap(base_events.BaseEventLoop, "create_future", self._making_future)
            self._wrap_locks()
            if type(_ident) is types.BuiltinFunctionType:  # else it was patched before this
                kind = base_events.BaseEventLoop
                self._wrap(kind, "call_soon", self._calling)
                self._wrap(kind, "call_soon_threadsafe", self._calling_threadsafe)
            self._wrap_signals()
            self._wrap_readers()
            group = _task_group()
            if group is not None:
                self._wrap(group, "_abort", self._aborting)
        for module, name in (("uvloop", "Loop"), ("anyio._backends._asyncio", "CancelScope")):
            kind = getattr(sys.modules.get(module), name, None)
            if kind is not None and kind not in self._loops:
                self._loops.add(kind)
                if name == "Loop":
                    self._wrap_loop(kind)
                else:
                    self._wrap(kind, "cancel", self._cancelling_scope)

    def _wrap_signals(self) -> None:
        module = sys.modules.get("signal")
        if type(getattr(module, "set_wakeup_fd", None)) is types.BuiltinFunctionType:
            self._wrap(module, "set_wakeup_fd", self._waking)

    def _wrap_readers(self) -> None:
        kind = getattr(sys.modules.get("asyncio.selector_events"), "BaseSelectorEventLoop", None)
        for name in ("_add_reader", "_remove_reader", "_add_writer", "_remove_writer"):
            if type(getattr(kind, name, None)) is types.FunctionType:
                self._wrap(kind, name, self._changing_readers)

    def _wrap_locks(self) -> None:
        module: Any = sys.modules.get("asyncio.locks")
        self._wrap(module.Event, "__init__", self._making_event)
        for kind in (module.Lock, module.Semaphore):
            self._wrap(kind, "acquire", self._acquiring)
            self._wrap(kind, "release", self._releasing)

    def _wrap_loop(self, kind: type) -> None:
        self._wrap(kind, "run_until_complete", self._running)
        self._wrap(kind, "create_task", self._creating)
        self._wrap(kind, "stop", self._stopping)

    def _wrap(self, kind: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        own = kind.__dict__.get(name)
        original = getattr(kind, name, None)
        if callable(original):
            self._wrapped.append((kind, name, own))
            setattr(kind, name, stand_in(wrap(original), original))

    def stop(self) -> None:
        """Leave asyncio as it was."""
        for kind, name, own in reversed(self._wrapped):
            if own is None:
                delattr(kind, name)
            else:
                setattr(kind, name, own)
        self._wrapped.clear()
        if self._finder is not None and self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)

    def begin(self) -> None:
        """Drop what was kept of a test, and wrap what has been imported since.

        Warn where this Python lacks what is wrapped; in a test, for pytest to record it.
        """
        self._kept.clear()
        self._seconds = 0.0
        self._deaf = None
        self._threadsafe.clear()
        self.unheard = self.taken = ""
        TESTS[0] += 1
        self.look_again()
        group = _task_group()
        if group is not None and not callable(getattr(group, "_abort", None)):
            fallbacks.warn(
                "Tasks that a TaskGroup cancels are shown as they are afterwards: "
                "asyncio's TaskGroup has no _abort() here"
            )

    def not_called(self, ago: float, ran: float) -> str:
        """Say what the hub's loop was to call and has not for a while, or ``""``.

        Another thread had it do so, or the time has come for it.

        :param ago: seconds since the test failed.
        :param ran: for how long it had not let the hub run as it failed.
        """
        loop = getattr(own_hub(), "loop", None)
        ready = [*getattr(loop, "_ready", ())]
        now = unpatched.monotonic()
        for reference, began, words in self._threadsafe:
            late = now - began - ago
            handle = reference()
            if NO_TURN <= late <= ran and any(each is handle for each in ready):
                return f"{words}, which the hub's loop has not made {late:.2f} s later: {HELD}"
        for handle in copy_of(getattr(loop, "_scheduled", ())):
            late = now - handle.when() - ago
            called = getattr(handle, "_callback", None)
            is_own = getattr(called, "__module__", None) in _OF_SLEEPS
            if NO_TURN <= late <= ran and not (handle.cancelled() or is_own):
                return (
                    f"{callable_name(called)}, which the hub's loop was to call later, was due "
                    f"{late:.2f} s before, and {HELD}"
                )
        return ""

    def deaf(self) -> str:
        """Say who has kept the hub's loop from hearing of signals in this test, or ``""``."""
        loop = getattr(own_hub(), "loop", None)
        numbers = [*(getattr(loop, "_signal_handlers", None) or ())]
        if self._deaf is None or not numbers:
            return ""
        before, now, where = self._deaf
        if before != _wakes(own_hub()) or self._woken == before:
            return ""
        names = " and ".join(each.name for each in map(signal.Signals, numbers))
        return (
            f"the hub's loop, whose add_signal_handler() is to handle {names}, has heard of no "
            f"signal since signal.set_wakeup_fd({now}){where}: there is only one such descriptor, "
            f"and the loop's was {before}"
        )

    def cancelled_by(self, error: BaseException | None) -> tuple[Cancelled, ...]:
        """Return what an exception, or one that it came from, had cancelled.

        Where nothing is known of it, the last thing that happened in this test.
        """
        ids = _chain_of(error)
        found = [kept for kept in self._kept if kept.error in ids]
        return tuple(found or self._kept[-1:])

    def _keep(self, loop: Any, tasks: Iterable[Any], error: object, what: str) -> None:
        if self._seconds > MAX_SECONDS:
            return
        started = unpatched.monotonic()
        try:
            chosen = list(tasks)[:MAX_TASKS]
            with collector_paused():
                alive = describe_tasks(chosen, {id(loop): loop})
            if alive.tasks:
                name = type(error).__qualname__ if error is not None else "An exception"
                self._kept.append(Cancelled(alive, f"{name} {what}", id(error)))
                del self._kept[:-MAX_SNAPSHOTS]
        except BaseException:
            # What is not known is not shown; the exception on its way matters more.
            pass
        finally:
            self._seconds += unpatched.monotonic() - started

    def _running(self, original: Any) -> Any:
        def run_until_complete(loop: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            self.look_again()
            _begin(loop)
            self._runs_in[id(loop)] = _ident()
            try:
                return original(loop, *args, **kwargs)
            except BaseException as error:
                _note(loop, error)
                tasks = _tasks_of(loop)
                if tasks:
                    self._keep(loop, tasks, error, "left run_until_complete()")
                raise
            finally:
                self._runs_in.pop(id(loop), None)

        return run_until_complete

    def _aborting(self, original: Any) -> Any:
        def abort(group: Any, *args: Any, **kwargs: Any) -> Any:
            errors = getattr(group, "_errors", None)
            error = errors[-1] if errors else sys.exc_info()[1]
            members = copy_of(getattr(group, "_tasks", ()))
            self._keep(getattr(group, "_loop", None), members, error, "aborted a TaskGroup")
            return original(group, *args, **kwargs)

        return abort

    def _cancelling_scope(self, original: Any) -> Any:
        def cancel(scope: Any, *args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1)
            # Only where a task group does it; users cancel scopes in the course of things.
            if caller.f_code.co_name in ("task_done", "__aexit__"):
                names = caller.f_locals
                error = names.get("exc") or names.get("exc_val")
                members = copy_of(getattr(names.get("self"), "_tasks", ()))
                if error is not None and members:
                    loop = members[0].get_loop()
                    self._keep(loop, members, error, "cancelled a task group of anyio")
            return original(scope, *args, **kwargs)

        return cancel

    def _creating(self, original: Any) -> Any:
        def create_task(loop: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            task = original(loop, *args, **kwargs)
            try:
                frame = outside_of(self._library, sys._getframe(1))
                if frame is not None:
                    now = unpatched.monotonic()
                    setattr(task, SITE, (frame.f_code, frame.f_lineno, TESTS[0], now))
                debug = getattr(task, "_source_traceback", None)
                if debug:
                    del debug[-1]  # this function, as asyncio does with its own
            except Exception as error:
                put_off(error)  # or a task of another's making, with slots; its site stays unknown
            return task

        return create_task

    def _making_future(self, original: Any) -> Any:
        def create_future(loop: Any) -> Any:
            __tracebackhide__ = True
            future = original(loop)
            self._note_maker(future, sys._getframe(1))
            return future

        return create_future

    def _making_event(self, original: Any) -> Any:
        def __init__(event: Any, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            original(event, *args, **kwargs)
            self._note_maker(event, sys._getframe(1))

        return __init__

    def _note_maker(self, thing: Any, caller: types.FrameType) -> None:
        """Note the line that has made a thing, unless it is one of asyncio's own."""
        try:
            if not caller.f_code.co_filename.startswith(self._library):
                setattr(thing, SITE, (caller.f_code, caller.f_lineno, TESTS[0]))
        except Exception as error:
            put_off(error)  # or one with slots; its site stays unknown

    def _calling_threadsafe(self, original: Any) -> Any:
        runs_in = self._runs_in

        def call_soon_threadsafe(loop: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            handle = original(loop, callback, *args, **kwargs)
            if runs_in.get(id(loop), ident := _ident()) != ident:
                try:
                    frame = outside_of(self._library, sys._getframe(1))
                    where = f" at {Frames().describe(frame).where}" if frame is not None else ""
                    words = f"thread {thread_name(ident) or ident} scheduled a call{where}"
                    reference = weakref.ref(handle)
                    self._threadsafe.append((reference, unpatched.monotonic(), words))
                except Exception as error:
                    put_off(error)  # or a loop of another's making; what it is to do is unknown
            return handle

        return call_soon_threadsafe

    def _changing_readers(self, original: Any) -> Any:
        def change(loop: Any, fd: Any, *args: Any) -> Any:
            __tracebackhide__ = True
            try:
                # The loop's own add_reader() is between.
                caller = sys._getframe(1).f_back
                if not self.taken and caller is not None and HUBS not in caller.f_code.co_filename:
                    self.taken = self._taken_from_hub(loop, fd, original.__name__, caller)
            except Exception as error:
                put_off(error)  # or a hub of another's making; who has taken it stays unknown
            return original(loop, fd, *args)

        return change

    def _taken_from_hub(self, loop: Any, fd: int, name: str, caller: types.FrameType) -> str:
        """Say who ends that a loop calls the hub for a descriptor; ``""`` if it goes on."""
        hub: Any = own_hub()
        own: Any = getattr(hub, "loop", None)
        if own is not loop:
            return ""
        event = "read" if "reader" in name else "write"
        listener = hub.listeners[event].get(fd)
        key = own._selector.get_map().get(fd)
        handle = key.data[event == "write"] if key is not None else None
        if listener is None or getattr(handle, "_callback", None) != hub._file_cb:
            return ""
        frame = outside_of(self._library, caller) or caller
        who = f"{name.removeprefix('_')}({fd}) at {Frames().describe(frame).where}"
        how = "takes the place of" if name.startswith("_add") else "removes"
        return (
            f"{who} {how} what wakes {_waiter(listener)}: it waits to {event} on that descriptor, "
            "and the asyncio hub has one callback of its loop for each"
        )

    def _acquiring(self, original: Any) -> Any:
        async def acquire(lock: Any) -> Any:
            __tracebackhide__ = True
            acquired = await original(lock)
            try:
                caller = sys._getframe(1)
                frame = outside(caller, self._library) or caller
                task = sys.modules["asyncio.tasks"].current_task()
                by = weakref.ref(task), named(task)
                vars(lock).setdefault(ACQUIRED, []).append((frame.f_code, frame.f_lineno, *by))
            except Exception as error:
                put_off(error)  # or no task has run it; who holds the lock stays unknown
            return acquired

        return acquire

    def _releasing(self, original: Any) -> Any:
        def release(lock: Any) -> Any:
            __tracebackhide__ = True
            try:
                held = vars(lock).get(ACQUIRED, [])
                task = sys.modules["asyncio.tasks"].current_task() if len(held) > 1 else None
                same = [each for each in held if each[2]() is task]
                held.remove(same[-1]) if task and same else held.clear()
            except Exception as error:
                put_off(error)
            return original(lock)

        return release

    def _calling(self, original: Any) -> Any:
        runs_in = self._runs_in

        def call_soon(loop: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            handle = original(loop, callback, *args, **kwargs)
            if runs_in.get(id(loop), ident := _ident()) != ident and not self.unheard:
                try:
                    self.unheard = self._unheard(callback, ident, sys._getframe(1))
                except Exception as error:
                    put_off(error)  # what did not wake it stays unknown
            return handle

        return call_soon

    def _unheard(self, callback: Any, ident: int, frame: types.FrameType) -> str:
        task = getattr(callback, "__self__", None)
        does = f"run task {task_name(task)}" if is_task(task) else f"call {callable_name(callback)}"
        return (
            f"thread {thread_name(ident) or f'{ident:#x}'} had the event loop {does}, at "
            f"{self._user(frame)}, which does not wake that loop: from another thread only "
            "call_soon_threadsafe() does"
        )

    def _waking(self, original: Any) -> Any:
        def set_wakeup_fd(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            before = original(*args, **kwargs)
            try:
                now = args[0] if args else -1
                if now != before and before == _wakes(own_hub()):
                    frame = sys._getframe(1)
                    self._deaf = before, now, f" at {self._user(frame)}"
                self._woken = now
            except Exception as error:
                put_off(error)  # who took it stays unknown
            return before

        return set_wakeup_fd

    def _user(self, frame: types.FrameType) -> str:
        """Return the line that has called, past those of asyncio's if there is one."""
        library = (*self._library, of_eventlet() or self._library[0])
        at = Frames().describe(outside(frame, library) or frame)
        return f"{at.location.removeprefix(STANDARD_LIBRARY)} in {at.function}"

    def _stopping(self, original: Any) -> Any:
        def stop(loop: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            try:
                caller = sys._getframe(1)
                # Not that what run_until_complete() ran has ended.
                if caller.f_code.co_name != "_run_until_complete_cb":
                    frame = outside(caller, self._library)
                    site = (frame.f_code, frame.f_lineno) if frame is not None else None
                    setattr(loop, STOPPED, site)
            except Exception as error:
                put_off(error)  # or a loop with slots; who stopped it stays unknown
            return original(loop, *args, **kwargs)

        return stop


def _wakes(hub: Any) -> int | None:
    """Return the descriptor that signals are to be written to for the loop of a hub."""
    fileno = getattr(getattr(getattr(hub, "loop", None), "_csock", None), "fileno", None)
    return fileno() if fileno is not None else None


def _begin(loop: Any) -> None:
    """Forget what left a loop before, unless the hub takes itself for running since then."""
    with contextlib.suppress(Exception):
        if not getattr(own_hub(), "running", False):
            setattr(loop, LEFT, None)


def _note(loop: Any, error: BaseException) -> None:
    """Remember the first error that leaves a loop, but not that its hub has ended already."""
    with contextlib.suppress(Exception):  # a loop with slots
        if getattr(loop, LEFT, None) is None and not is_of_hub(error):
            setattr(loop, LEFT, raised(error))


def _waiter(listener: Any) -> str:
    """Return in words which greenthread waits by a listener, and where."""
    frame = getattr(listener.greenlet, "gr_frame", None)
    if frame is None:
        return "the hub"
    own = outside_of((of_eventlet() or STANDARD_LIBRARY, STANDARD_LIBRARY), frame) or frame
    name = switches.function_at_bottom(frame)
    return f"greenthread {name} at {Frames().describe(own).where}"


def _tasks_of(loop: Any) -> list[Any]:
    try:
        return list(sys.modules["asyncio"].all_tasks(loop))
    except BaseException:
        return []


def _chain_of(error: BaseException | None) -> set[int]:
    """Return the ids of an exception and of all that it came from."""
    ids: set[int] = set()
    ahead: list[Any] = [error]
    while ahead and len(ids) < 1000:
        each = ahead.pop()
        if each is None or id(each) in ids:
            continue
        ids.add(id(each))
        ahead += [each.__cause__, each.__context__]
        if hasattr(type(each), "derive"):
            ahead += each.exceptions
    return ids


def _task_group() -> Any:
    """Return the class, which asyncio has since Python 3.11."""
    return getattr(sys.modules.get("asyncio.taskgroups"), "TaskGroup", None)


class _AfterImport:
    """A finder that finds nothing itself, and has a call made after one module's import."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self._name = name
        self._call = call

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = spec.loader if spec is not None else None
        if loader is not None:
            original = loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                del loader.exec_module
                original(module)
                self._call()

            try:
                loader.exec_module = exec_module
            except AttributeError:
                pass  # a loader in C; the watch begins with the next test
        return spec
