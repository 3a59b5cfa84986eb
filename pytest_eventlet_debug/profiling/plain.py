"""Plain cProfile: one call stack for all greenlets."""

from __future__ import annotations

import cProfile
import sys

from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.clock import ClockName
from pytest_eventlet_debug.profiling.clock import make_clock
from pytest_eventlet_debug.profiling.engine import Profile
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.greenlet_engine import TAKEN
from pytest_eventlet_debug.profiling.greenlet_engine import require_free_thread
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import merge

#: The tool id that cProfile takes on Python 3.12 and newer.
_PROFILER_ID = 2

_TAKEN = f"{TAKEN}, or left it on"


class PlainEngine:
    """What ``cProfile.Profile`` counts.

    It knows nothing of greenlets: where they switch, cumulative times and callers are
    wrong; and on Python 3.12 and newer all threads of the process share one stack.
    """

    def __init__(self, clock: ClockName = "run") -> None:
        """Measure CPU time for ``cpu``, else wall time; nothing is started yet."""
        self._clock: Clock = make_clock(clock)
        # By itself cProfile measures wall time, at less cost.
        timer = (self._clock.now,) if clock == "cpu" else ()
        self._profile = cProfile.Profile(*timer)
        self._running = False
        self._complete = True
        self._tool = _PROFILER_ID
        self._started = 0.0
        self._seconds = 0.0

    def start(self) -> None:
        """Profile from this moment on.

        :raises ProfilingError: another profiler is active.
        """
        if sys.version_info < (3, 12):
            require_free_thread()
        try:
            self._profile.enable()
        except ValueError as error:
            raise ProfilingError(f"{error} ({_other_tool()})") from error
        self._running = True
        self._started = self._clock.now()
        if sys.version_info >= (3, 12):
            self._tool = _leave_the_profilers_place()

    def stop(self) -> None:
        """Take the profiler out."""
        if not self._running:
            return
        self._running = False
        self._seconds += self._clock.now() - self._started
        if sys.version_info >= (3, 12):
            self._complete &= _take_out(self._profile, self._tool)
            return
        present: object = sys.getprofile()
        self._complete &= present is self._profile
        if present is None or present is self._profile:
            self._profile.disable()
        else:
            # disable() would take the test's profiler out.
            _abandoned.append(self._profile)

    def profile(self) -> Profile:
        """Return what was seen."""
        stats = merge([Part(self._profile.getstats())])
        return Profile(stats, self._seconds, 0.0, "" if self._complete else _TAKEN)


#: Profilers that could not be disabled. Freed, they would take somebody else's place away.
_abandoned: list[cProfile.Profile] = []


if sys.version_info >= (3, 12):
    from pytest_eventlet_debug.profiling import tool_id

    def _leave_the_profilers_place() -> int:
        """Let the cProfile that was just enabled work under another tool id.

        cProfile always takes id 2, and a test's own would fail then: "Another profiling
        tool is already active". Its callbacks do not care which id calls them.

        :return: the tool id it has now.
        """
        monitoring = sys.monitoring
        try:
            tool = tool_id.find()
        except ProfilingError:
            return _PROFILER_ID
        events = monitoring.get_events(_PROFILER_ID)
        # A plain call would begin under the profiler and not end under it, and stay on its
        # stack as the caller of all that follows. A map called by `for` is no call to it.
        for _ in map(monitoring.set_events, (_PROFILER_ID,), (0,)):
            pass
        monitoring.use_tool_id(tool, tool_id.NAME)
        for event in _single(monitoring.events):
            callback = monitoring.register_callback(_PROFILER_ID, event, None)
            monitoring.register_callback(tool, event, callback)
        monitoring.free_tool_id(_PROFILER_ID)
        monitoring.set_events(tool, events)
        return tool

    def _take_out(profile: cProfile.Profile, tool: int) -> bool:
        """Disable *profile*, which works under the id *tool*; say whether that went well."""
        monitoring = sys.monitoring
        if tool != _PROFILER_ID:
            monitoring.set_events(tool, 0)
            for event in _single(monitoring.events):
                monitoring.register_callback(tool, event, None)
            monitoring.free_tool_id(tool)
            if monitoring.get_tool(_PROFILER_ID) is not None:
                _abandoned.append(profile)
                return False
            # disable() gives back the id it believes it has.
            monitoring.use_tool_id(_PROFILER_ID, "cProfile")
        profile.disable()
        return True

    def _single(events: object) -> list[int]:
        values = (value for value in vars(events).values() if isinstance(value, int))
        return [value for value in values if value and not value & (value - 1)]


def _other_tool() -> str:
    if sys.version_info >= (3, 12):
        return f"tool {_PROFILER_ID} is {sys.monitoring.get_tool(_PROFILER_ID)!r}"
    return repr(sys.getprofile())
