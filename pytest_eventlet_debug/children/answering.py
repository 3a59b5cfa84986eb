"""What a process that runs tests does when its controller asks it, by a signal, what it does."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import faulthandler
import functools
import posix
import signal
import types

from pytest_eventlet_debug.dump_limits import BEGIN
from pytest_eventlet_debug.dump_limits import END
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.high_descriptors import move_up

# Not a signal that tests use: real-time signals have no meaning of their own.
STACKS_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2) - 3
# What a Python handler answers, once the interpreter comes round to it.
ALIVE_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2) - 4


def answer(*, is_worker: bool = False) -> None:
    """Answer from now on, to where stderr leads now: pytest is about to capture it.

    :param is_worker: whether this is one of pytest-xdist's workers, and says which.
    """
    from pytest_eventlet_debug.alive.on_demand import write_dump  # a handler may not wait for it

    stderr = move_up(posix.dup(2))
    faulthandler.register(STACKS_SIGNAL, stderr, all_threads=True, chain=False)
    with contextlib.suppress(ValueError):  # execnet may be told to have another thread run tests
        signal.signal(
            ALIVE_SIGNAL, functools.partial(_tell_and_stay, write_dump, stderr, is_worker)
        )


def _tell_and_stay(
    write_dump: Callable[[int, types.FrameType | None, str], None],
    stderr: int,
    is_worker: bool,
    number: int,
    frame: types.FrameType | None,
) -> None:
    """Write what is alive, and wait to be killed.

    The signal has interrupted a system call: a test must not go on, and pass, for having been
    asked why it hangs.
    """
    worker = _variable("PYTEST_XDIST_WORKER") if is_worker else ""
    test = _variable("PYTEST_CURRENT_TEST")
    if worker and not test:
        text = f"{BEGIN}{worker} is in no test\n{END}"
        unpatched.write_all(stderr, text.encode("utf-8", "backslashreplace"))
    else:
        write_dump(stderr, frame, f"{worker} is in {test}\n" if worker else "")
    while True:
        unpatched.wait_readable([], None)


def _variable(name: str) -> str:
    """Return an environment variable; nothing where a test has put something else there."""
    try:
        return str(unpatched.environment().get(name) or "")
    except Exception:
        return ""
