"""What the engines that tell greenlets apart have in common."""

from __future__ import annotations

from collections.abc import Callable
import sys
from typing import Any

from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.engine import Profile
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.stats import Function
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import merge
from pytest_eventlet_debug.profiling.stats import root_of
from pytest_eventlet_debug.system import switches

#: Why a profile is incomplete where another profiler came.
TAKEN = "the test put a profiler of its own in the place of ours"

_LOST = "greenlets were switched without our notice: an exception arose in our callback, " + (
    "or the test called greenlet.settrace()"
)


def require_free_thread() -> None:
    """Make sure that nobody has this thread's place for a profiler.

    :raises ProfilingError: somebody has.
    """
    present: object = sys.getprofile()
    if present is not None:
        raise ProfilingError(f"{present!r} profiles already")


def root(greenlet: Any, origin: Any) -> Function | None:
    """Return what a greenlet that begins to run is shown under, if that is known.

    :param origin: the greenlet that switched to it.
    """
    function = switches.spawned_function(greenlet, origin)
    return None if function is None else root_of(function)


class GreenletEngine:
    """Profile by *clock* from each ``start`` to the next ``stop``; see :class:`Engine`."""

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

        :raises ProfilingError: it cannot; nothing has been changed then.
        """
        import greenlet  # not for those who only load the plugin

        self._end = self._begin(greenlet.getcurrent())

    def _begin(self, current: object) -> Callable[[], None]:
        """Begin in the greenlet that runs; return what ends it and adds to the counts.

        :raises ProfilingError: see :meth:`start`.
        """
        raise NotImplementedError

    def _unsubscribe(self, callback: switches.Callback) -> None:
        """Follow switches no more, and note if that was so before."""
        if not switches.subscribed(callback):
            self._trouble = _LOST
        switches.unsubscribe(callback)

    def stop(self) -> None:
        """Profile no more."""
        end, self._end = self._end, None
        if end is not None:
            end()

    def profile(self) -> Profile:
        """Return what was seen."""
        return Profile(merge(self._parts), self._seconds, self._switching, self._trouble)
