"""What an engine is: something that profiles the thread it is started in."""

from __future__ import annotations

import dataclasses
import sys
from typing import Literal
from typing import Protocol
import warnings

from pytest_eventlet_debug.profiling.clock import ClockName
from pytest_eventlet_debug.profiling.clock import make_clock
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.warning_types import EventletDebugWarning

EngineName = Literal["greenlet", "plain"]

ENGINES: tuple[EngineName, ...] = ("greenlet", "plain")


class ProfilingError(Exception):
    """A profile cannot begin. The message says in one line why."""


@dataclasses.dataclass(frozen=True)
class Profile:
    """What an engine has seen in all the stretches between its starts and stops.

    :param stats: in the form of ``pstats.Stats.stats``; times in seconds of the clock.
    :param seconds: time from start to stop by the same clock.
    :param switching: seconds of it that went into following switches of greenlets.
    :param trouble: why the profile is incomplete, or ``""``.
    """

    stats: Stats
    seconds: float
    switching: float
    trouble: str


class Engine(Protocol):
    """Profiles from ``start`` to ``stop``, any number of times in turn."""

    def start(self) -> None:
        """Profile the present thread from now on.

        :raises ProfilingError: it cannot; nothing has been changed then.
        """

    def stop(self) -> None:
        """Profile no more. Calls that are still open count as calls, up to now."""

    def profile(self) -> Profile:
        """Return what was seen between all starts and stops."""


def make_engine(name: EngineName = "greenlet", clock: ClockName = "run") -> Engine:
    """Return a new engine.

    :param name: ``greenlet`` for one call stack for each greenlet, ``plain`` for cProfile.
    :param clock: what to measure; the plain engine has no say in whose time it is.
    """
    from pytest_eventlet_debug.profiling.plain import PlainEngine

    if name == "plain":
        return PlainEngine(clock)
    from pytest_eventlet_debug.profiling.selftest import trouble  # it makes engines, too

    found = trouble()
    if found:
        warnings.warn(
            EventletDebugWarning(
                f"--cprofile: {found}; plain cProfile takes over, which is wrong about callers "
                "and times wherever greenlets switch"
            ),
            stacklevel=2,
        )
        return PlainEngine(clock)
    return make_greenlet_engine(clock)


def make_greenlet_engine(clock: ClockName) -> Engine:
    """Return the engine for this version of Python, without a test of whether it works."""
    if sys.version_info >= (3, 12):
        from pytest_eventlet_debug.profiling.monitoring import MonitoringEngine

        return MonitoringEngine(make_clock(clock))
    from pytest_eventlet_debug.profiling.setprofile import SetprofileEngine

    return SetprofileEngine(make_clock(clock))
