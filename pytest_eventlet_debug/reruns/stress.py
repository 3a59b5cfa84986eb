"""Keep every CPU busy, for races that a quiet machine hides."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import posix
import signal
import sys

from pytest_eventlet_debug.system import unpatched

# Ends by itself where the process that started it is killed.
_LOOP = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(10**6): pass\n"


@contextlib.contextmanager
def stress(processes: int | None = None) -> Iterator[list[int]]:
    """Run busy loops as long as the block runs; yield their process ids.

    :param processes: how many; by default one for each CPU that this process may use.
    """
    count = processes or len(os.sched_getaffinity(0))
    pids: list[int] = []
    try:
        for _ in range(count):
            command = [sys.executable, "-I", "-S", "-c", _LOOP, str(posix.getpid())]
            pid = posix.posix_spawn(
                command[0],
                command,
                unpatched.environment(),
                setsigmask=[signal.SIGINT],  # Ctrl-C is for the run, which ends them
            )
            pids.append(pid)
        yield pids
    finally:
        for pid in pids:
            posix.kill(pid, signal.SIGKILL)
            posix.waitpid(pid, 0)
