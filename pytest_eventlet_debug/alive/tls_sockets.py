"""What TLS sockets have decrypted already, of which no hub gets an event.

TLS is decrypted by the record, of up to 16 KB. What of that a ``recv()`` did not take is in memory
then, no longer in the kernel, and whoever waits for the descriptor waits for the next record.
"""

from __future__ import annotations

import _socket
from collections.abc import Iterable
import posix
import sys
from typing import Any


class TlsSockets:
    """The TLS sockets of a process. Not to be kept.

    :param sockets: instances of ``ssl.SSLSocket``.
    """

    def __init__(self, sockets: Iterable[Any]) -> None:
        self._sockets = sockets

    def complaint(self, event: str, fd: int) -> str:
        """Say in words what a wait for a descriptor overlooks; nothing if it is right.

        :param event: ``read`` or ``write``.
        """
        try:
            count = self._decrypted(fd) if event == "read" else 0
        except Exception:
            count = 0  # a socket of another's making
        if not count:
            return ""
        number = f"{count:,} bytes" if count > 1 else "1 byte"
        return f"whose TLS socket has {number} decrypted already, for which no event will come"

    def _decrypted(self, fd: int) -> int:
        """Return how many bytes ``recv()`` would return at once; runs no foreign code."""
        kind = getattr(sys.modules.get("_ssl"), "_SSLSocket", None)
        for each in self._sockets:
            if _socket.socket.fileno(each) != fd:
                continue
            inner = object.__getattribute__(each, "__dict__").get("_sslobj")
            # A thread may be reading from one that blocks, and keep all others off meanwhile.
            if type(inner) is kind and not posix.get_blocking(fd):
                return int(kind.pending(inner))
        return 0
