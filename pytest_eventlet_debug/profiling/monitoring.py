"""The engine in Python for Python 3.12 and newer: a ``_lsprof.Profiler`` for each greenlet.

The callbacks of a ``_lsprof.Profiler`` do not care which tool they are called for. They are
the same for the whole process, and a second thread's calls come to them, too. So they are
looked up through ``threading.local``.
"""

from __future__ import annotations

import _lsprof
from collections.abc import Callable
import operator
import sys
import threading
from typing import Any

from pytest_eventlet_debug.profiling import tool_id
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.greenlet_engine import TAKEN
from pytest_eventlet_debug.profiling.greenlet_engine import GreenletEngine
from pytest_eventlet_debug.profiling.stacks import Stack
from pytest_eventlet_debug.profiling.stacks import Stacks
from pytest_eventlet_debug.system import switches

assert sys.version_info >= (3, 12)

_monitoring = sys.monitoring

_LEFT_ON = f"{TAKEN}, or left it on"

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
        return (start, start, throw, give, give, give, call, back, back)


def _by_thread() -> Any:
    """Return a callable whose attribute ``f`` is called instead, in this thread alone.

    In other threads it does nothing. All of it happens in C: a switch of threads within a
    callback in Python would let both into one Profiler.
    """
    nothing = "".format  # takes any arguments
    call = property(operator.attrgetter("f"))
    return type("_ByThread", (_local,), {"f": nothing, "__call__": call})()


class MonitoringEngine(GreenletEngine):
    """Have each call told to the stack of whichever greenlet runs."""

    def _begin(self, current: object) -> Callable[[], None]:
        other = _monitoring.get_tool(_monitoring.PROFILER_ID)
        if other is not None:
            raise ProfilingError(
                "Another profiling tool is already active "
                f"(tool {_monitoring.PROFILER_ID} is {other!r})"
            )
        stacks = _Stacks(self._clock)
        now, cell, find = self._clock.now, stacks.cell, stacks.live.get
        callbacks = tuple(_by_thread() for _ in tool_id.ASKED)
        tool = tool_id.take(callbacks)
        running = stacks.enter(current)
        switching = 0.0

        def feed(stack: Stack) -> None:
            for callback, method in zip(callbacks, stack.feeds, strict=True):
                callback.f = method

        def switched(event: str, arguments: tuple[Any, Any]) -> None:
            nonlocal running, switching
            began = now()
            origin, target = arguments
            running.at = began - cell[0]
            if not origin:
                stacks.leave(origin)
            running = find(id(target)) or stacks.enter(target, origin)
            feed(running)
            ended = now()
            switching += ended - began
            cell[0] = ended - running.at

        def end() -> None:
            _monitoring.set_events(tool, 0)
            ended = now()
            tool_id.give_back(tool)
            self._unsubscribe(switched)
            self._seconds += ended - started
            self._switching += switching
            self._close(stacks, running, ended)

        switches.subscribe(switched, first=True)
        feed(running)
        # From here on every call is told, but not ours, which is no call that began so.
        started = cell[0] = now()
        _monitoring.set_events(tool, sum(tool_id.ASKED))
        return end

    def _close(self, stacks: Stacks, running: Stack, now: float) -> None:
        """Have open calls counted: only ``disable()`` does that, after ``enable()``."""
        if _monitoring.get_tool(_monitoring.PROFILER_ID) is None:
            for stack in stacks.freeze(running, now):
                stack.profiler.enable()
                stack.profiler.disable()
        else:
            self._trouble = _LEFT_ON
        self._parts += stacks.parts()
