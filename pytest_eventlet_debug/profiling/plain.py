"""Plain cProfile: one call stack for all greenlets."""

from __future__ import annotations

from collections.abc import Iterable
import cProfile
import sys
import time
from typing import Any

from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.engine import TAKEN
from pytest_eventlet_debug.profiling.engine import Profile
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.engine import require_free_thread
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import labelled

#: The tool id that cProfile takes on Python 3.12 and newer, where there is one cProfile.
_PROFILER_ID = 2

_ENABLE = "<method 'enable' of '_lsprof.Profiler' objects>"

_REFUSED = (
    "the test uses cProfile itself, and two of them cannot run at once; "
    "without --cprofile-engine=plain they can"
)


class PlainEngine:
    """What ``cProfile.Profile`` counts.

    It knows nothing of greenlets: where they switch, cumulative times and callers are
    wrong; and on Python 3.12 and newer all threads of the process share one stack.
    """

    name = "plain"

    def __init__(self, clock: Clock) -> None:
        """Measure by *clock*, which does not stand still here; nothing is started yet."""
        self._clock = clock
        # By itself cProfile measures wall time, at less cost.
        timer = () if clock.number == time.CLOCK_MONOTONIC else (clock.now,)
        self._profile = cProfile.Profile(*timer)
        self._running = False
        self._trouble = ""
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

    def stop(self) -> None:
        """Take the profiler out."""
        if not self._running:
            return
        self._running = False
        self._seconds += self._clock.now() - self._started
        if sys.version_info < (3, 12):
            present: object = sys.getprofile()
            if present is not self._profile:
                self._trouble = TAKEN
            if present is not None and present is not self._profile:
                # disable() would take the test's profiler out.
                _abandoned.append(self._profile)
                return
        self._profile.disable()

    def profile(self) -> Profile:
        """Return what was seen."""
        entries = self._profile.getstats()
        trouble = self._trouble or _refusal(entries)
        return Profile([Part(labelled(entries))], self._seconds, 0.0, trouble, has_greenlets=False)


#: Profilers that could not be disabled. Freed, they would take somebody else's place away.
_abandoned: list[cProfile.Profile] = []


def _refusal(entries: Iterable[Any]) -> str:
    """Say that cProfile refused to serve the test, if the test asked it to."""
    if sys.version_info < (3, 12):
        return ""
    return _REFUSED if any(entry.code == _ENABLE for entry in entries) else ""


def _other_tool() -> str:
    if sys.version_info >= (3, 12):
        return f"tool {_PROFILER_ID} is {sys.monitoring.get_tool(_PROFILER_ID)!r}"
    return repr(sys.getprofile())
