"""Ctrl-C that ends a run, but not amid what is to be done as a whole."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib


class CtrlC:
    """Raises ``KeyboardInterrupt`` for a Ctrl-C, at once or after what must not be cut short.

    What children have said would be lost otherwise, or a child that has just been started.
    """

    def __init__(self) -> None:
        self._depth = 0
        self._put_off = False

    def come(self) -> None:
        """Take a Ctrl-C, in a signal handler; a second one is not put off."""
        if self._depth and not self._put_off:
            self._put_off = True
        else:
            self._raise()

    @contextlib.contextmanager
    def put_off(self) -> Iterator[None]:
        """Do a part as a whole; it may hold others of its kind."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
        if self._put_off and not self._depth:
            self._raise()

    def _raise(self) -> None:
        self._put_off = False
        raise KeyboardInterrupt
