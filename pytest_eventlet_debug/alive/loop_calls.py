"""Note what another thread has a loop call that does not hear of it, or comes to it late."""

from __future__ import annotations

from _thread import get_ident as _ident
from collections import deque
from collections.abc import Mapping
import sys
import types
from typing import Any
import weakref

from pytest_eventlet_debug.alive.callers import WATCHED_ASYNCIO
from pytest_eventlet_debug.alive.callers import user_line
from pytest_eventlet_debug.alive.function_watch import FirstSeenWatch
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import copy_of
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.task_waits import is_task
from pytest_eventlet_debug.alive.task_waits import task_name
from pytest_eventlet_debug.alive.tasks import HELD
from pytest_eventlet_debug.alive.tasks import NO_TURN
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.handler_errors import put_off

#: Where asyncio has the functions that end sleeps and timeouts.
_OF_SLEEPS = ("asyncio.futures", "asyncio.tasks", "asyncio.timeouts")
#: Calls of other threads that are looked for in the loop of the hub.
_MOST_CALLS = 20


class LoopCallWatch(FirstSeenWatch):
    """Wraps ``call_soon()`` and ``call_soon_threadsafe()`` of loops.

    :param runs_in: the thread that runs each loop, by id of the loop.
    """

    def __init__(self, runs_in: Mapping[int, int]) -> None:
        super().__init__()
        self._runs_in = runs_in
        #: Calls that other threads had a loop make in this test, when, and where in words.
        self._threadsafe: deque[tuple[weakref.ref[Any], float, str]] = deque(maxlen=_MOST_CALLS)

    def _forget(self) -> None:
        super()._forget()
        self._threadsafe.clear()

    def _wrap_all(self) -> None:
        if type(_ident) is types.BuiltinFunctionType:  # else it was patched before this
            self._wrap_of_loop("call_soon", self._calling)
            self._wrap_of_loop("call_soon_threadsafe", self._calling_threadsafe)

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

    def _calling_threadsafe(self, original: Any) -> Any:
        runs_in = self._runs_in

        def call_soon_threadsafe(loop: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            handle = original(loop, callback, *args, **kwargs)
            if runs_in.get(id(loop), ident := _ident()) != ident:
                try:
                    frame = outside_of(WATCHED_ASYNCIO, sys._getframe(1))
                    where = f" at {Frames().describe(frame).where}" if frame is not None else ""
                    words = f"thread {thread_name(ident) or ident} scheduled a call{where}"
                    reference = weakref.ref(handle)
                    self._threadsafe.append((reference, unpatched.monotonic(), words))
                except Exception as error:
                    put_off(error)  # or a loop of another's making; what it is to do is unknown
            return handle

        return call_soon_threadsafe

    def _calling(self, original: Any) -> Any:
        runs_in = self._runs_in

        def call_soon(loop: Any, callback: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            handle = original(loop, callback, *args, **kwargs)
            if runs_in.get(id(loop), ident := _ident()) != ident and not self._first:
                try:
                    self._first = _unheard(callback, ident, sys._getframe(1))
                except Exception as error:
                    put_off(error)  # what did not wake it stays unknown
            return handle

        return call_soon


def _unheard(callback: Any, ident: int, frame: types.FrameType) -> str:
    task = getattr(callback, "__self__", None)
    does = f"run task {task_name(task)}" if is_task(task) else f"call {callable_name(callback)}"
    return (
        f"thread {thread_name(ident) or f'{ident:#x}'} had the event loop {does}, at "
        f"{user_line(frame)}, which does not wake that loop: from another thread only "
        "call_soon_threadsafe() does"
    )
