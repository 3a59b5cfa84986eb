"""The engine for Python 3.10 and 3.11, where a thread has one profiler."""

from __future__ import annotations

import _lsprof
from collections.abc import Callable
import sys
from typing import Any

from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.engine import Profile
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.stacks import Stack
from pytest_eventlet_debug.profiling.stacks import Stacks
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import merge
from pytest_eventlet_debug.tracers import switches

_TAKEN = "the test put a profiler of its own in the place of ours"
_LOST = "greenlets were switched without our notice: an exception arose in our callback, " + (
    "or the test called greenlet.settrace()"
)

#: Profilers that could not be disabled. Freed, they would take somebody else's place away.
_abandoned: list[_lsprof.Profiler] = []


class _Stacks(Stacks):
    def feeds(self, profiler: _lsprof.Profiler) -> Callable[[], object]:
        return profiler.enable


class SetprofileEngine:
    """Give the thread's profiler the stack of whichever greenlet runs.

    ``enable()`` of one Profiler takes another's place in the thread, and leaves it with all
    of its open calls. Threads are apart by nature.
    """

    def __init__(self, clock: Clock) -> None:
        """Measure by *clock*; nothing is started yet."""
        self._clock = clock
        self._parts: list[Part] = []
        self._seconds = 0.0
        self._switching = 0.0
        self._trouble = ""
        self._end: Callable[[], None] | None = None

    def start(self) -> None:
        """Profile the present thread from now on.

        :raises ProfilingError: another profiler is active in it.
        """
        import greenlet  # not for those who only load the plugin

        if sys.getprofile() is not None:
            raise ProfilingError(f"{sys.getprofile()!r} profiles already")
        self._begin(greenlet.getcurrent())

    def _begin(self, current: object) -> None:
        stacks = _Stacks(self._clock)
        now, cell, find = self._clock.now, stacks.cell, stacks.live.get
        getprofile = sys.getprofile
        running = stacks.enter(current)
        switching = 0.0
        taken = False

        def switched(event: str, arguments: tuple[Any, Any]) -> None:
            nonlocal running, switching, taken
            began = now()
            present: object = getprofile()
            if present is not running.profiler:
                taken = True  # and it stays so: what was called meanwhile is unknown
            if taken:
                return
            origin, target = arguments
            running.at = began - cell[0]
            if not origin:
                stacks.leave(origin)
            stack = find(id(target))
            if stack is None:
                running = stack = stacks.enter(target, origin)
                stack.feeds()
                ended = now()
                cell[0] = 0.0
            else:
                running = stack
                if stack.on_native_clock:
                    stacks.resumed(stack)
                stack.feeds()
                ended = now()
                cell[0] = ended - stack.at
            switching += ended - began

        def end() -> None:
            present: object = getprofile()
            ours = not taken and present is running.profiler
            if ours:
                running.profiler.disable()
            ended = now()
            if not switches.subscribed(switched):
                self._trouble = _LOST
            switches.unsubscribe(switched)
            self._seconds += ended - started
            self._switching += switching
            self._close(stacks, running, ended, ours, present)

        switches.subscribe(switched, first=True)
        self._end = end
        started = now()
        running.profiler.enable()

    def _close(
        self, stacks: Stacks, running: Stack, now: float, ours: bool, present: object
    ) -> None:
        """Have open calls counted; where somebody else profiles now, that goes on."""
        if ours or present is None:
            for stack in stacks.freeze(running, now):
                stack.profiler.disable()
        self._parts += stacks.parts()
        if not ours:
            self._trouble = _TAKEN
            if present is not None:
                _abandoned.extend(stacks.profilers)

    def stop(self) -> None:
        """Profile no more."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def profile(self) -> Profile:
        """Return what was seen."""
        return Profile(merge(self._parts), self._seconds, self._switching, self._trouble)
