"""For how long a child has said nothing, and whether that is for want of a CPU."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping

from pytest_eventlet_debug.system import starvation
from pytest_eventlet_debug.system import unpatched

#: The part of a timeout that passes before a lack of CPUs is looked at, which takes milliseconds.
_UNCOUNTED = 0.1

#: How often a timeout passes, at most, before a child that lacks a CPU is taken for hung.
_MOST_TIMEOUTS = 5


class Silence:
    """The silence of a child, which has just said something."""

    def __init__(self) -> None:
        self._heard = unpatched.monotonic()
        self._run_delays: Mapping[int, int] | None = None

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return unpatched.monotonic() - self._heard

    def lacked(self, run_delays: Mapping[int, int]) -> float:
        """Return for how many seconds of it the child had no CPU, though it was ready.

        :param run_delays: those of now, see :meth:`~.process.ChildProcess.run_delays`.
        """
        return min(starvation.lacked(self._run_delays or {}, run_delays), self.seconds)

    def exceeds(self, timeout: float, run_delays: Callable[[], Mapping[int, int]]) -> bool:
        """Say whether it is too long, but for the time in which the child lacked a CPU.

        Other hubs may have had it, or other programs. To be asked now and then.

        :param run_delays: returns those of now.
        """
        if self._run_delays is None and self.seconds >= timeout * _UNCOUNTED:
            self._run_delays = run_delays()
            if self.seconds >= timeout:  # it is this process that lacked a CPU, or was busy
                self._heard = unpatched.monotonic() - timeout * _UNCOUNTED
        if self.seconds < timeout:
            return False
        if self.seconds >= timeout * _MOST_TIMEOUTS:
            return True
        return self.seconds - self.lacked(run_delays()) >= timeout
