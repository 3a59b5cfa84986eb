"""What is known of a stall: plain data, whoever saw it."""

from __future__ import annotations

import dataclasses

from pytest_eventlet_debug.alive.model import Frame


@dataclasses.dataclass(frozen=True)
class Stall:
    """A greenlet that ran for too long without a switch, while others had something to do.

    :param seconds: how long it ran at least; without what it waited for a CPU.
    :param began_ns: when it began to run, in nanoseconds since the epoch.
    :param frames: where it was, innermost first. Nothing of a test that ended without a switch.
    :param due: how many timers were due meanwhile.
    :param ready: for how many listeners an event was there.
    :param starts: the function that one of these timers starts in a new greenthread, if one does.
    :param is_over: whether the frames are of the switch that ended it, and not of the stall.
    """

    seconds: float
    began_ns: int
    frames: tuple[Frame, ...]
    due: int
    ready: int
    starts: str | None = None
    is_over: bool = False
