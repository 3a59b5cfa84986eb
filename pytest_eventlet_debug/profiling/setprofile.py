"""The engine in Python for Python 3.10 and 3.11: a ``_lsprof.Profiler`` for each greenlet.

A thread has one profiler. ``enable()`` of one Profiler takes another's place in the thread,
and leaves it with all of its open calls. Threads are apart by nature.
"""

from __future__ import annotations

import _lsprof
from collections.abc import Callable
import sys
from typing import Any

from pytest_eventlet_debug.profiling.greenlet_engine import TAKEN
from pytest_eventlet_debug.profiling.greenlet_engine import GreenletEngine
from pytest_eventlet_debug.profiling.greenlet_engine import require_free_thread
from pytest_eventlet_debug.profiling.stacks import Stack
from pytest_eventlet_debug.profiling.stacks import Stacks
from pytest_eventlet_debug.system import switches

#: Profilers that could not be disabled. Freed, they would take somebody else's place away.
_abandoned: list[_lsprof.Profiler] = []


class _Stacks(Stacks):
    def feeds(self, profiler: _lsprof.Profiler) -> Callable[[], object]:
        return profiler.enable


class SetprofileEngine(GreenletEngine):
    """Give the thread's profiler the stack of whichever greenlet runs."""

    def _begin(self, current: object) -> Callable[[], None]:
        require_free_thread()
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
            running = find(id(target)) or stacks.enter(target, origin)
            running.feeds()
            ended = now()
            switching += ended - began
            cell[0] = ended - running.at

        def end() -> None:
            present: object = getprofile()
            ours = not taken and present is running.profiler
            if ours:
                running.profiler.disable()
            ended = now()
            self._unsubscribe(switched)
            self._seconds += ended - started
            self._switching += switching
            self._close(stacks, running, ended, ours, present)

        switches.subscribe(switched, first=True)
        started = cell[0] = now()
        running.profiler.enable()
        return end

    def _close(
        self, stacks: Stacks, running: Stack, now: float, ours: bool, present: object
    ) -> None:
        """Have open calls counted; where somebody else profiles now, that goes on."""
        if ours or present is None:
            for stack in stacks.freeze(running, now):
                stack.profiler.disable()
        self._parts += stacks.parts()
        if not ours:
            self._trouble = TAKEN
            if present is not None:
                _abandoned.extend(stacks.profilers)
