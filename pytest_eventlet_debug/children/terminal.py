"""The terminal that the controller has, and lends to the debuggers of its children."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import os
import posix
import signal

import pytest

from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.system import tty


class Terminal:
    """Who has the terminal, of this process and a child whose debugger is open.

    :param interactive: whether the children have it all the time, as with ``-s``.
    """

    def __init__(self, config: pytest.Config, *, interactive: bool) -> None:
        self._config = config
        self._interactive = interactive
        self._group: int | None = None

    def is_there(self) -> bool:
        """Say whether the user types into this process's stdin."""
        with pytest_internals.stdin_uncaptured(self._config):
            return os.isatty(0)

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Give interactive children the real terminal."""
        if self._interactive:
            with pytest_internals.stdin_uncaptured(self._config):
                yield
        else:
            yield

    def debugger_opens(self) -> None:
        """Know which process group to give the terminal to when the debugger closes."""
        self._group = tty.foreground()

    def debugger_closes(self) -> None:
        """Have the same process group at the terminal as before."""
        if self._group is not None:
            tty.to_the_foreground(self._group)

    def mind_ctrl_z(self, debugged: Iterable[ChildProcess]) -> None:
        """Stop with a child that Ctrl-Z has stopped in its debugger, and have it go on again.

        The shell knows this process's group alone.
        """
        for process in debugged:
            if self._interactive or not process.is_stopped:
                continue
            if tty.foreground() == process.runner:
                tty.to_the_foreground(self._group or posix.getpgrp())
                posix.kill(0, signal.SIGTSTP)
            if tty.foreground() == posix.getpgrp():  # and not in the background
                self._group = posix.getpgrp()
                tty.to_the_foreground(process.runner)
                process.resume()
