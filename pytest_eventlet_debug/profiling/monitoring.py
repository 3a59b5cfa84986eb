"""The engine for Python 3.12 and newer, on a tool id of its own in ``sys.monitoring``.

The callbacks of a ``_lsprof.Profiler`` do not care which tool they are called for. cProfile
always takes id 2, which stays free for the code under test. What is the same for the whole
process are the callbacks: a second thread's calls come to them, too. As soon as there is
one, callbacks are looked up through ``threading.local``, which makes each dearer.
"""

from __future__ import annotations

import _lsprof
from collections.abc import Callable
import operator
import sys
import threading
from typing import Any

from pytest_eventlet_debug.profiling import threads
from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.engine import Profile
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.stacks import Stack
from pytest_eventlet_debug.profiling.stacks import Stacks
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import merge
from pytest_eventlet_debug.tracers import switches

assert sys.version_info >= (3, 12)

_monitoring = sys.monitoring

#: The tool ids that sys.monitoring leaves without a meaning.
_UNNAMED_IDS = (4, 3)

_EVENTS = _monitoring.events

#: The events that cProfile asks for, in the order of ``Stack.feeds``.
_ASKED = (
    *(_EVENTS.PY_START, _EVENTS.PY_RESUME, _EVENTS.PY_THROW),
    *(_EVENTS.PY_RETURN, _EVENTS.PY_YIELD, _EVENTS.PY_UNWIND),
    *(_EVENTS.CALL, _EVENTS.C_RETURN, _EVENTS.C_RAISE),
)

_LEFT_ON = "the test put a profiler of its own in the place of ours, or left it on"
_LOST = "greenlets were switched without our notice: an exception arose in our callback, " + (
    "or the test called greenlet.settrace()"
)

# Taken before eventlet can patch the module.
_local = threading.local


class _Stacks(Stacks):
    # Which method takes which event: see callback_table in CPython's Modules/_lsprof.c.
    def feeds(self, profiler: _lsprof.Profiler) -> tuple[Callable[..., object], ...]:
        # Until Python 3.13, throw() into a generator is told like any other resumption.
        start = profiler._pystart_callback
        throw = getattr(profiler, "_pythrow_callback", start)
        give, call = profiler._pyreturn_callback, profiler._ccall_callback
        back = profiler._creturn_callback
        # Few objects, so that a switch finds them in the CPU's cache.
        return (start, start, throw, give, give, give, call, back, back)


def _by_thread() -> Any:
    """Return a callable whose attribute ``f`` is called instead, in this thread alone.

    In other threads it does nothing. All of it happens in C: a switch of threads within a
    callback in Python would let both into one Profiler.
    """
    nothing = "".format  # takes any arguments
    call = property(operator.attrgetter("f"))
    return type("_ByThread", (_local,), {"f": nothing, "__call__": call})()


class MonitoringEngine:
    """Have each call told to the stack of whichever greenlet runs."""

    def __init__(self, clock: Clock, *, by_thread: bool = False) -> None:
        """Measure by *clock*; nothing is started yet.

        :param by_thread: keep other threads apart before there is one.
        """
        self._clock = clock
        self._by_thread = by_thread
        self._parts: list[Part] = []
        self._seconds = 0.0
        self._switching = 0.0
        self._trouble = ""
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Profile the present thread from now on.

        :raises ProfilingError: another profiler is active, or all tool ids are in use.
        """
        import greenlet  # not for those who only load the plugin

        other = _monitoring.get_tool(_monitoring.PROFILER_ID)
        if other is not None:
            raise ProfilingError(
                "Another profiling tool is already active "
                f"(tool {_monitoring.PROFILER_ID} is {other!r})"
            )
        free = [tool for tool in _UNNAMED_IDS if _monitoring.get_tool(tool) is None]
        if not free:
            raise ProfilingError(f"the tool ids {_UNNAMED_IDS} of sys.monitoring are in use")
        self._begin(free[0], greenlet.getcurrent())

    def _begin(self, tool: int, current: object) -> None:
        stacks = _Stacks(self._clock)
        now, cell, find = self._clock.now, stacks.cell, stacks.live.get
        register = _monitoring.register_callback
        start, resume, throw, give, stop, unwind, call, back, up = _ASKED
        running = stacks.enter(current)
        switching = 0.0

        def switched(event: str, arguments: tuple[Any, Any]) -> None:
            nonlocal running, switching
            began = now()
            origin, target = arguments
            running.at = began - cell[0]
            if not origin:
                stacks.leave(origin)
            stack = find(id(target))
            if stack is None:
                running = stack = stacks.enter(target, origin)
                at = None
            else:
                running = stack
                if stack.on_native_clock:
                    stacks.resumed(stack)
                at = stack.at
            # A loop would cost another fifth of a microsecond.
            f1, f2, f3, f4, f5, f6, f7, f8, f9 = stack.feeds
            register(tool, start, f1)
            register(tool, resume, f2)
            register(tool, throw, f3)
            register(tool, give, f4)
            register(tool, stop, f5)
            register(tool, unwind, f6)
            register(tool, call, f7)
            register(tool, back, f8)
            register(tool, up, f9)
            ended = now()
            switching += ended - began
            cell[0] = 0.0 if at is None else ended - at

        apart = tuple(_by_thread() for _ in _ASKED)

        def switched_by_thread(event: str, arguments: tuple[Any, Any]) -> None:
            nonlocal running, switching
            began = now()
            origin, target = arguments
            running.at = began - cell[0]
            if not origin:
                stacks.leave(origin)
            stack = find(id(target))
            if stack is None:
                running = stack = stacks.enter(target, origin)
                at = None
            else:
                running = stack
                if stack.on_native_clock:
                    stacks.resumed(stack)
                at = stack.at
            for feed, by_thread in zip(stack.feeds, apart, strict=True):
                by_thread.f = feed
            ended = now()
            switching += ended - began
            cell[0] = 0.0 if at is None else ended - at

        callback = switched

        def keep_apart() -> None:
            """Go on with callbacks that tell threads apart; called in the first thread."""
            nonlocal callback
            threads.unwatch(keep_apart)
            for event, feed, by_thread in zip(_ASKED, running.feeds, apart, strict=True):
                by_thread.f = feed
                register(tool, event, by_thread)
            if callback is switched:
                callback = switched_by_thread
                if switches.subscribed(switched):
                    switches.unsubscribe(switched)
                    switches.subscribe(callback, first=True)

        def end() -> None:
            _monitoring.set_events(tool, 0)
            ended = now()
            threads.unwatch(keep_apart)
            for event in _ASKED:
                register(tool, event, None)
            _monitoring.free_tool_id(tool)
            if not switches.subscribed(callback):
                self._trouble = _LOST
            switches.unsubscribe(callback)
            self._seconds += ended - started
            self._switching += switching
            self._close(stacks, running, ended)

        _monitoring.use_tool_id(tool, "pytest-eventlet-debug")
        switches.subscribe(callback, first=True)
        if self._by_thread or threads.several():
            keep_apart()
        else:
            for event, feed in zip(_ASKED, running.feeds, strict=True):
                register(tool, event, feed)
            threads.watch(keep_apart)
        self._end = end
        # From here on every call is told, but not ours, which is no call that began so.
        started = now()
        _monitoring.set_events(tool, sum(_ASKED))

    def _close(self, stacks: Stacks, running: Stack, now: float) -> None:
        """Have open calls counted: only ``disable()`` does that, after ``enable()``."""
        if _monitoring.get_tool(_monitoring.PROFILER_ID) is None:
            for stack in stacks.freeze(running, now):
                stack.profiler.enable()
                stack.profiler.disable()
        else:
            self._trouble = _LEFT_ON
        self._parts += stacks.parts()

    def stop(self) -> None:
        """Profile no more."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def profile(self) -> Profile:
        """Return what was seen."""
        return Profile(merge(self._parts), self._seconds, self._switching, self._trouble)
