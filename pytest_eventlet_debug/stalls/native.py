"""Watch for stalls from a thread of C, which sees them while they last."""

from __future__ import annotations

import os
from typing import Any

from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.stalls._watcher import Watcher
from pytest_eventlet_debug.stalls.fallback import SwitchWatch
from pytest_eventlet_debug.stalls.fallback import timers_of
from pytest_eventlet_debug.stalls.model import Stall


class NativeWatch:
    """Watches the thread that makes it; there can be one in a process.

    Between a fork and the next phase of a test there may be no thread: see ``_watcher.c``. What
    happens then is noticed when it is over.
    """

    def __init__(self) -> None:
        self._watcher = Watcher(1.0)
        self._after_forks = SwitchWatch()
        self._armed: tuple[float, dict[str, Any] | None] | None = None
        os.register_at_fork(after_in_parent=self._forked, after_in_child=self._forget)

    @property
    def descriptors(self) -> set[int]:
        """The descriptors that it has open."""
        return {self._watcher.descriptor, self._watcher.other_descriptor} - {-1}

    def sees_switches(self) -> bool:
        """Say whether greenlet does here what the thread goes by: try it with two greenlets."""
        import greenlet  # not for those who only load the plugin

        def run() -> None:
            numbers.append(self._watcher.switches)
            greenlet.getcurrent().parent.switch()
            numbers.append(self._watcher.switches)

        numbers: list[int] = []
        other = greenlet.greenlet(run)
        for _ in range(2):
            numbers.append(self._watcher.switches)
            other.switch()
        numbers.append(self._watcher.switches)
        still = self._watcher.switches == numbers[-1]
        return still and len(numbers) == len(set(numbers)) and numbers == sorted(numbers)

    def start(self) -> None:
        """Have the thread made, if there is none."""
        self._watcher.start()

    def arm(self, seconds: float, hubs: dict[str, Any] | None, is_new: bool) -> None:
        """Watch from now on.

        :param seconds: what is too long.
        :param hubs: the dictionary in which eventlet keeps this thread's hub.
        :param is_new: whether another test begins. What earlier ones left in the hub does not
            count unless the test uses the hub.
        """
        self._armed = (seconds, hubs)
        self._watcher.arm(seconds, hubs, timers_of(hubs) if is_new else None)

    def _forked(self) -> None:
        if self._armed is not None and not self._watcher.running:
            self._after_forks.arm(*self._armed, is_new=True)

    def _forget(self) -> None:
        self._armed = None

    def disarm(self) -> list[Stall]:
        """Watch no more; return what was seen since."""
        self._armed = None
        found = [
            Stall(
                seconds, began_ns, tuple(map(Frame._make, [*frames, *bottom])), due, ready, starts
            )
            for seconds, began_ns, frames, bottom, due, ready, starts in self._watcher.disarm()
        ]
        return found + self._after_forks.disarm()

    def stop(self) -> None:
        """End the thread."""
        self._watcher.stop()
        self._after_forks.stop()
