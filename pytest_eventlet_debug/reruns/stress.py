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
def stress() -> Iterator[None]:
    """Run a busy loop for each CPU that this process may use, as long as the block runs.

    :raises OSError: one cannot be started.
    """
    pids: list[int] = []
    try:
        for _ in os.sched_getaffinity(0):
            command = [sys.executable, "-I", "-S", "-c", _LOOP, str(posix.getpid())]
            pid = posix.posix_spawn(
                command[0],
                command,
                unpatched.environment(),
                setsigmask=[signal.SIGINT],  # Ctrl-C is for the run, which ends them
            )
            pids.append(pid)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # SIGCHLD is ignored
                posix.kill(pid, signal.SIGKILL)
                posix.waitpid(pid, 0)
