"""What the finisher gets in memory, for a file that it makes something better of at once."""

from __future__ import annotations

from typing import NamedTuple

from pytest_eventlet_debug.system import files

#: Bytes of one kind, of all tests together, that wait in memory for the finisher.
WAITING_BYTES = 1 << 25


class Unwritten(NamedTuple):
    """The whole content of a file that is not written."""

    path: str
    content: bytes

    def write(self) -> None:
        """Write the file after all.

        :raises OSError: it cannot be written.
        """
        files.replace(self.path, self.content)
