"""The terminal, lent to a child for as long as a debugger is open in it."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import posix
import signal

from pytest_eventlet_debug.system.high_descriptors import move_up

_PATH = "/dev/tty"


class Loan:
    """Standard streams that lead to the terminal, and its foreground; in a child."""

    def __init__(self) -> None:
        self._before: list[int] = []
        self._owner = 0

    def take(self) -> None:
        """Take the terminal, where there is one."""
        if self._before:
            return
        try:
            terminal = posix.open(_PATH, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return
        self._before = [move_up(posix.dup(number)) for number in (0, 1, 2)]
        with contextlib.suppress(OSError):
            self._owner = posix.tcgetpgrp(terminal)
        for number in (0, 1, 2):
            posix.dup2(terminal, number)
        posix.close(terminal)
        _to_the_foreground(0, posix.getpgrp())

    def give_back(self) -> None:
        """Put everything back as it was, as far as this process may name who had it."""
        if not self._before:
            return
        _to_the_foreground(0, self._owner)
        for number, before in enumerate(self._before):
            posix.dup2(before, number)
            posix.close(before)
        self._before = []


def reclaim() -> None:
    """Take the terminal back from a child that has ended with it."""
    to_the_foreground(posix.getpgrp())


def foreground() -> int | None:
    """Return the process group that has the terminal, where there is one."""
    with _terminal() as terminal, contextlib.suppress(OSError):
        return posix.tcgetpgrp(terminal)
    return None


def to_the_foreground(group: int) -> None:
    """Give a process group the terminal, where there is one.

    A child with process ids of its own cannot: outside of its own, it knows none.
    """
    with _terminal() as terminal:
        _to_the_foreground(terminal, group)


@contextlib.contextmanager
def _terminal() -> Iterator[int]:
    """Open the terminal; where there is none, that is the descriptor -1."""
    try:
        terminal = posix.open(_PATH, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        yield -1
        return
    try:
        yield terminal
    finally:
        posix.close(terminal)


def _to_the_foreground(terminal: int, group: int) -> None:
    with _not_stopped(), contextlib.suppress(OSError):
        posix.tcsetpgrp(terminal, group)


@contextlib.contextmanager
def _not_stopped() -> Iterator[None]:
    """Let a process in the background change the terminal."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTTOU])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
