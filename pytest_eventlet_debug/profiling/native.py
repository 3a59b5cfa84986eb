"""The engine that counts in C, where that was built when the plugin was installed.

It is exact like the two in Python, which serve where there was no compiler, and costs about
what cProfile does: all greenlets count in the same tables, a clock that stands still is a
subtraction, and a switch exchanges one pointer.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import sys

from pytest_eventlet_debug.profiling._native import CallStacks
from pytest_eventlet_debug.profiling.greenlet_engine import TAKEN
from pytest_eventlet_debug.profiling.greenlet_engine import GreenletEngine
from pytest_eventlet_debug.profiling.greenlet_engine import require_free_thread
from pytest_eventlet_debug.profiling.greenlet_engine import root
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.system import switches

_SHORT_OF_MEMORY = "memory ran out, and calls were lost"


class NativeEngine(GreenletEngine):
    """Have each call told to one object, and each switch."""

    def _begin(self, current: object) -> Callable[[], None]:
        if sys.version_info < (3, 12):
            require_free_thread()
        clock = self._clock
        source = clock.now if clock.number is None else clock.number
        stacks = CallStacks(source, clock.stands_still, root)
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


if sys.version_info >= (3, 12):
    from pytest_eventlet_debug.profiling import tool_id

    def _tell(stacks: CallStacks) -> Callable[[], None]:
        """Have all calls told to *stacks*; return what ends that."""
        monitoring = sys.monitoring
        started, left, returned = [stacks.started] * 3, [stacks.left] * 3, [stacks.returned] * 2
        tool = tool_id.take([*started, *left, stacks.called, *returned])
        monitoring.set_events(tool, sum(tool_id.ASKED))

        def stop() -> None:
            monitoring.set_events(tool, 0)
            tool_id.give_back(tool)

        return stop

else:

    def _tell(stacks: CallStacks) -> Callable[[], None]:
        return lambda: None  # begin() and end() see to the thread's profiler
