"""What an engine is: something that profiles the thread it is started in."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING
from typing import Literal
from typing import Protocol
import warnings

from pytest_eventlet_debug.profiling.clock import ClockName
from pytest_eventlet_debug.profiling.clock import make_clock
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.warning_types import EventletDebugWarning

if TYPE_CHECKING:
    from pytest_eventlet_debug.profiling.greenlet_engine import GreenletEngine

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
    kind, trouble = find_greenlet_engine()
    if kind is not None:
        return kind(make_clock(clock))
    warnings.warn(
        EventletDebugWarning(
            f"--cprofile: {trouble}; plain cProfile takes over, which is wrong about callers "
            "and times wherever greenlets switch"
        ),
        stacklevel=2,
    )
    return PlainEngine(clock)


def find_greenlet_engine() -> tuple[type[GreenletEngine] | None, str]:
    """Try the engines that tell greenlets apart, each once in a process, by a trial run.

    :return: the first that works, or ``None`` and what is wrong with the last.
    """
    from pytest_eventlet_debug.profiling import selftest  # it needs this module

    trouble = ""
    for kind in greenlet_engines():
        trouble = selftest.trouble(kind)
        if not trouble:
            return kind, ""
    return None, trouble


def greenlet_engines() -> tuple[type[GreenletEngine], ...]:
    """Return the engines that tell greenlets apart here, the best one first."""
    kinds: list[type[GreenletEngine]] = []
    with contextlib.suppress(ImportError):  # there was no compiler
        from pytest_eventlet_debug.profiling.native import NativeEngine

        kinds.append(NativeEngine)
    if sys.version_info >= (3, 12):
        from pytest_eventlet_debug.profiling.monitoring import MonitoringEngine

        kinds.append(MonitoringEngine)
    else:
        from pytest_eventlet_debug.profiling.setprofile import SetprofileEngine

        kinds.append(SetprofileEngine)
    return tuple(kinds)
