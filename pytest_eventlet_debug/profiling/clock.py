"""Clocks for a profile, among them one that stands still while a greenlet is away.

When a clock is a Python function, signal handlers run inside it, where ``_lsprof`` swallows
what they raise: Ctrl-C and timeouts would be lost. So a clock here is made of C callables
alone.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import dataclasses
import gc
import itertools
import operator
import time
from typing import Literal

ClockName = Literal["run", "wall", "cpu"]

CLOCKS: tuple[ClockName, ...] = ("run", "wall", "cpu")

# Taken before eventlet can patch the module.
_perf_counter = time.perf_counter
_thread_time = time.thread_time


@dataclasses.dataclass(frozen=True)
class Clock:
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
        return Clock(_thread_time, number=time.CLOCK_THREAD_CPUTIME_ID)
    return Clock(_perf_counter, name == "run", number=time.CLOCK_MONOTONIC)


def less(now: Callable[[], float]) -> tuple[Callable[[], float], list[float]]:
    """Return a C callable for ``now() - cell[0]``, and *cell*, a list of one number."""
    numbers, cell = _changeable_constant()
    times = itertools.starmap(now, itertools.repeat(()))
    return map(operator.sub, times, numbers).__next__, cell


def _changeable_constant() -> tuple[Iterator[float], list[float]]:
    """Return an iterator that yields ``cell[0]`` forever, and *cell*.

    ``itertools.cycle`` goes round in a list that it keeps to itself, and no call is needed
    to take a number from there.
    """
    numbers = itertools.cycle((0.0,))
    next(numbers)
    next(numbers)  # the end of the tuple has been seen; only the list is left
    kept = gc.get_referents(numbers)
    if len(kept) == 1 and type(kept[0]) is list and kept[0] == [0.0]:
        cell: list[float] = kept[0]
        cell[0] = 1.0
        if next(numbers) == 1.0:
            cell[0] = 0.0
            return numbers, cell
    cell = [0.0]
    return map(cell.__getitem__, itertools.repeat(0)), cell
