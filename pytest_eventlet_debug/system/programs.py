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
from typing import NoReturn

from pytest_eventlet_debug.system import files
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

    :param own_group: whether it is to have no terminal, but a session and a process group of its
        own: whatever is in that group ends as well, and in that session if this process is killed.
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
        with (
            subprocess.Popen(
                argv, text=True, start_new_session=own_group, preexec_fn=begin, **options
            ) as process,
            contextlib.ExitStack() as guarded,
        ):
            try:
                if own_group:
                    guarded.enter_context(_guarded(process.pid))
                signal.pthread_sigmask(signal.SIG_SETMASK, masked)
                yield process
            except BaseException:
                _end(process.pid, os.killpg if own_group else os.kill)
                raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


@contextlib.contextmanager
def _guarded(session: int) -> Iterator[None]:
    """End a session if this process is killed: the kernel would end its leader alone."""
    theirs, ours = os.pipe()
    guard = os.fork()
    if not guard:
        _guard(session, theirs)
    os.close(theirs)
    try:
        yield
    finally:
        os.kill(guard, signal.SIGKILL)
        os.waitpid(guard, 0)
        os.close(ours)


def _guard(session: int, fd: int) -> NoReturn:
    """Wait for the end of a pipe that the process above has open, and kill the session."""
    try:
        os.setsid()  # no Ctrl-C, and no signal to the group of the process above
        files.close_all_but({fd})
        os.read(fd, 1)
        for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getsid(pid) == session:
                    os.kill(pid, signal.SIGKILL)
    finally:
        os._exit(0)


def _end(pid: int, send: Any) -> None:
    """Tell a child to end, and kill it should it not; it is not reaped."""
    with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it has been
        send(pid, signal.SIGTERM)
        deadline = time.monotonic() + _ENDING_SECONDS
        how = os.WEXITED | os.WNOHANG | os.WNOWAIT  # its number stays its own
        while os.waitid(os.P_PID, pid, how) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        send(pid, signal.SIGKILL)
