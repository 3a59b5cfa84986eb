"""The engine that counts in C, where that was built when the plugin was installed.

It costs about what cProfile does: all greenlets count in the same tables, a clock that
stands still is a subtraction, and a switch exchanges one pointer.
"""

from __future__ import annotations

from collections.abc import Callable
import sys

from pytest_eventlet_debug.profiling import _native
from pytest_eventlet_debug.profiling._native import CallStacks
from pytest_eventlet_debug.profiling.engine import TAKEN
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.engine import require_free_thread
from pytest_eventlet_debug.profiling.greenlet_engine import GreenletEngine
from pytest_eventlet_debug.profiling.greenlet_engine import root
from pytest_eventlet_debug.profiling.stats import OURS_IN_C
from pytest_eventlet_debug.system.code_places import OURS

_SHORT_OF_MEMORY = "memory ran out, and calls were lost"


class NativeEngine(GreenletEngine):
    """Have each call told to one object, and each switch."""

    name = "native"
    _unsubscribe: Callable[[], None]

    def _listen(self) -> CallStacks:
        clock = self._clock
        source = clock.now if clock.number is None else clock.number
        stacks = CallStacks(source, clock.stands_still, root, OURS, OURS_IN_C)
        self._unsubscribe = _subscribe(stacks)
        return stacks

    def _let_go(self, stacks: CallStacks) -> str:
        self._unsubscribe()
        if stacks.taken:
            return TAKEN
        return _SHORT_OF_MEMORY if stacks.short_of_memory else ""


if sys.version_info >= (3, 12):
    _monitoring = sys.monitoring

    #: The tool ids that are tried, those first that nobody else takes. cProfile always takes id 2,
    #: and Hypothesis 3 while it explains a failure; they stay free for the code under test.
    _TOOL_IDS = (5, 4, 3)

    def _subscribe(stacks: CallStacks) -> Callable[[], None]:
        """Have all calls told to *stacks*; return what ends that.

        :raises ProfilingError: all tool ids are in use.
        """
        events = _monitoring.events
        callbacks: dict[int, Callable[..., object]] = {
            **dict.fromkeys((events.PY_START, events.PY_RESUME, events.PY_THROW), stacks.started),
            **dict.fromkeys((events.PY_RETURN, events.PY_YIELD, events.PY_UNWIND), stacks.left),
            **dict.fromkeys((events.C_RETURN, events.C_RAISE), stacks.returned),
            events.CALL: stacks.called,
        }
        tool = next((each for each in _TOOL_IDS if _monitoring.get_tool(each) is None), None)
        if tool is None:
            raise ProfilingError(f"the tool ids {_TOOL_IDS} of sys.monitoring are in use")
        _monitoring.use_tool_id(tool, "pytest-eventlet-debug")
        for event, callback in callbacks.items():
            _monitoring.register_callback(tool, event, callback)
        _monitoring.set_events(tool, sum(callbacks))

        def unsubscribe() -> None:
            _monitoring.set_events(tool, 0)
            for event in callbacks:
                _monitoring.register_callback(tool, event, None)
            _monitoring.free_tool_id(tool)

        return unsubscribe

else:

    def _subscribe(stacks: CallStacks) -> Callable[[], None]:
        """Do nothing: ``begin()`` and ``end()`` see to the thread's profiler.

        :raises ProfilingError: somebody else profiles this thread.
        """
        if sys.getprofile() is not _native.holder:  # which marks lines in a trace
            require_free_thread()
        return lambda: None
