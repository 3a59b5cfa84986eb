"""Kills processes that need not be children of this one, and waits until they are dead."""

from __future__ import annotations

from collections.abc import Iterable
import posix
import signal

from pytest_eventlet_debug.system import unpatched

#: Seconds for a process to end after SIGKILL, at most: an answer from a disk may take longer.
_DYING_SECONDS = 5.0


def kill(pids: Iterable[int]) -> set[int]:
    """Kill processes; return descriptors, which :func:`wait_until_dead` closes."""
    dying = set()
    for pid in pids:
        try:
            fd = posix.pidfd_open(pid)
        except (AttributeError, OSError):  # it is gone, or there are none before Linux 5.3
            fd = -1
        try:
            posix.kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            if fd >= 0:
                posix.close(fd)
        else:
            dying |= {fd} - {-1}
    return dying


def wait_until_dead(dying: set[int]) -> None:
    """Wait until processes have let go of all that they had open.

    :param dying: what :func:`kill` has returned.
    """
    deadline = unpatched.monotonic() + _DYING_SECONDS
    left = dying
    while left and (seconds := deadline - unpatched.monotonic()) > 0:
        left = left - {*unpatched.wait_readable(left, seconds)}
    for fd in dying:
        posix.close(fd)
