"""The engine that counts in C, where that was built when the plugin was installed.

It is exact like the two in Python, which serve where there was no compiler, and costs about
what cProfile does: all greenlets count in the same tables, a clock that stands still is a
subtraction, and a switch exchanges one pointer.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import sys
from typing import Any

from pytest_eventlet_debug import switches
from pytest_eventlet_debug.profiling._native import CallStacks
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.greenlet_engine import TAKEN
from pytest_eventlet_debug.profiling.greenlet_engine import GreenletEngine
from pytest_eventlet_debug.profiling.stats import Function
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import root_of

_SHORT_OF_MEMORY = "memory ran out, and calls were lost"


class NativeEngine(GreenletEngine):
    """Have each call told to one object, and each switch."""

    def _begin(self, current: object) -> Callable[[], None]:
        if sys.version_info < (3, 12) and sys.getprofile() is not None:
            raise ProfilingError(f"{sys.getprofile()!r} profiles already")
        clock = self._clock
        source = clock.now if clock.number is None else clock.number
        stacks = CallStacks(source, clock.stands_still, _root)
        stop = _tell(stacks)
        switches.subscribe(stacks.switched, first=True)
        stacks.begin(current)
        return functools.partial(self._finish, stacks, stop)

    def _finish(self, stacks: CallStacks, stop: Callable[[], None]) -> None:
        stacks.end()
        stop()
        self._unsubscribe(stacks.switched)
        self._seconds += stacks.seconds
        self._switching += stacks.switching
        self._parts += [Part(*part) for part in stacks.parts()]
        if stacks.taken:
            self._trouble = TAKEN
        elif stacks.short_of_memory:
            self._trouble = _SHORT_OF_MEMORY


def _root(greenlet: Any, origin: Any) -> Function | None:
    function = switches.spawned_function(greenlet, origin)
    return None if function is None else root_of(function)


if sys.version_info >= (3, 12):
    from pytest_eventlet_debug.profiling import tool_id

    def _tell(stacks: CallStacks) -> Callable[[], None]:
        """Have all calls told to *stacks*; return what ends that."""
        monitoring = sys.monitoring
        tool = tool_id.find()
        monitoring.use_tool_id(tool, tool_id.NAME)
        for events, callback in (
            (tool_id.STARTS, stacks.started),
            (tool_id.ENDS, stacks.left),
            ((tool_id.C_START,), stacks.called),
            (tool_id.C_ENDS, stacks.returned),
        ):
            for event in events:
                monitoring.register_callback(tool, event, callback)
        monitoring.set_events(tool, sum(tool_id.ASKED))

        def stop() -> None:
            monitoring.set_events(tool, 0)
            tool_id.give_back(tool)

        return stop

else:

    def _tell(stacks: CallStacks) -> Callable[[], None]:
        return lambda: None  # begin() and end() see to the thread's profiler
