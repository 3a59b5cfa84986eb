"""For how long threads were ready to run and others had the CPUs."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import contextlib
import posix

from pytest_eventlet_debug.system import unpatched


def run_delays(pids: Iterable[int]) -> dict[int, int]:
    """Return how long each thread of processes has been without a CPU since it started, in ns.

    By the id of the thread; nothing where the kernel does not tell. See
    ``Documentation/scheduler/sched-stats.rst`` of the kernel.
    """
    delays = {}
    for pid in pids:
        with contextlib.suppress(OSError, ValueError, IndexError):
            for thread in posix.listdir(f"/proc/{pid}/task"):
                delays[int(thread)] = run_delay(pid, int(thread))
    return delays


def run_delay(pid: int, thread: int) -> int:
    """Return how long a thread has been without a CPU since it started, in ns.

    :raises OSError: it has ended, or the kernel does not tell.
    """
    words = unpatched.read_file(f"/proc/{pid}/task/{thread}/schedstat").split()
    return int(words[1])


def lacked(before: Mapping[int, int], now: Mapping[int, int]) -> float:
    """Return for how many seconds there was no CPU for the thread that lacked it longest.

    Others may wait for that one.

    :param before: the delays at the beginning; a thread that is not among them is new.
    """
    return max((ns - before.get(each, 0) for each, ns in now.items()), default=0) / 1e9
