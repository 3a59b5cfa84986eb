"""Programs that a subcommand starts, and that end with it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
import signal
import subprocess
import time
from typing import Any

from pytest_eventlet_debug.system import unpatched

#: What a user ends a command with, or a terminal that is closed.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: Seconds for a program to end by itself when it is told to.
_ENDING_SECONDS = 5.0


@contextlib.contextmanager
def running(
    argv: Sequence[str], *, own_group: bool = False, **options: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a program, and wait for its end. An exception in the block ends it.

    :param own_group: whether it is to have no terminal, but a process group: whatever is in that
        ends as well.
    :param options: as for :class:`subprocess.Popen`.
    :raises OSError: it cannot be started.
    """
    parent = os.getpid()
    # A handler that raised while the program is being started would leave it behind.
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)

    def begin() -> None:
        unpatched.end_with(parent)
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)

    try:
        with subprocess.Popen(
            argv, text=True, start_new_session=own_group, preexec_fn=begin, **options
        ) as process:
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)
                yield process
            except BaseException:
                _end(process.pid, os.killpg if own_group else os.kill)
                raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


def _end(pid: int, send: Any) -> None:
    """Tell a child to end, and kill it should it not; it is not reaped."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has been
        send(pid, signal.SIGTERM)
        deadline = time.monotonic() + _ENDING_SECONDS
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT  # its number stays its own
        while os.waitid(os.P_PID, pid, how) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        send(pid, signal.SIGKILL)
