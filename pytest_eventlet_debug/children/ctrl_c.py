"""Ctrl-C that ends a run, but not amid what is to be done as a whole."""

from __future__ import annotations


class CtrlC:
    """Notes a Ctrl-C for whoever waits for something, and looks now and then.

    An exception that a signal's handler raises may come anywhere: what children have said would be
    lost, or a child that has just been started. In a destructor, or where some C code drops it, it
    is lost itself.
    """

    def __init__(self) -> None:
        self._has_come = False

    def come(self) -> None:
        """Take a Ctrl-C, in a signal handler.

        :raises KeyboardInterrupt: nobody has looked since the one before.
        """
        if self._has_come:
            raise KeyboardInterrupt
        self._has_come = True

    def forget(self) -> None:
        """Take one that may have come for somebody else's."""
        self._has_come = False

    def look(self) -> None:
        """See whether one has come.

        :raises KeyboardInterrupt: it has.
        """
        if self._has_come:
            self._has_come = False
            raise KeyboardInterrupt
