"""What an engine is: something that profiles the thread it is started in."""

from __future__ import annotations

from collections.abc import Sequence
import sys
from typing import Literal
from typing import Protocol

import msgspec

from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.profiling.stats import add_up

EngineName = Literal["greenlet", "plain"]

#: Why a profile is incomplete where another profiler came.
TAKEN = "the test replaced our profiler with its own"


class ProfilingError(Exception):
    """A profile cannot begin. The message says in one line why."""


class Profile(msgspec.Struct, frozen=True):
    """What an engine has seen in all the stretches between its starts and stops.

    :param parts: the counts of stacks, not added up; times in seconds of the clock.
    :param seconds: time from start to stop by the same clock.
    :param switching: seconds of it that went into following switches of greenlets.
    :param trouble: why the profile is incomplete, or ``""``.
    :param has_greenlets: whether each greenlet has a stack of its own.
    """

    parts: Sequence[Part]
    seconds: float
    switching: float
    trouble: str
    has_greenlets: bool = True

    @property
    def stats(self) -> Stats:
        """The counts in the form of ``pstats.Stats.stats``, added up now."""
        return add_up(self.parts, has_greenlets=self.has_greenlets)


class Engine(Protocol):
    """Profiles from ``start`` to ``stop``, any number of times in turn."""

    @property
    def name(self) -> str:
        """What it is called in files: ``native``, ``python`` or ``plain``."""

    def start(self) -> None:
        """Profile the present thread from now on.

        :raises ProfilingError: it cannot; nothing has been changed then.
        """

    def stop(self) -> None:
        """Profile no more. Calls that are still open count as calls, up to now."""

    def profile(self) -> Profile:
        """Return what was seen between all starts and stops."""


def require_free_thread() -> None:
    """Make sure that nobody has this thread's place for a profiler.

    :raises ProfilingError: somebody has.
    """
    present: object = sys.getprofile()
    if present is not None:
        raise ProfilingError(f"{present!r} profiles already")
