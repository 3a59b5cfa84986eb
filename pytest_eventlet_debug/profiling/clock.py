"""The clocks that a profile is measured by.

Each is a C callable. In a Python function signal handlers would run, and ``_lsprof`` swallows
what they raise: Ctrl-C and timeouts would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
import time
from typing import Literal

import msgspec

from pytest_eventlet_debug.system import unpatched

ClockName = Literal["run", "wall", "cpu"]


class Clock(msgspec.Struct, frozen=True):
    """What to measure, and whether that stands still while a greenlet is switched out.

    :param now: a C callable that returns seconds.
    :param stands_still: a greenlet's clock shows the time that this greenlet ran.
    :param number: the clock of the system that *now* reads, see clock_gettime(2), or ``None``.
    """

    now: Callable[[], float]
    stands_still: bool = True
    number: int | None = None


def make_clock(name: ClockName) -> Clock:
    """Return the clock called *name*.

    ``run`` is wall time while the greenlet ran, ``wall`` has its waiting in it, ``cpu`` is
    the CPU time of the thread while the greenlet ran.
    """
    if name == "cpu":
        return Clock(unpatched.thread_time, number=time.CLOCK_THREAD_CPUTIME_ID)
    return Clock(unpatched.perf_counter, name == "run", number=time.CLOCK_MONOTONIC)
