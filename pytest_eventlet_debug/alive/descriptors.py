"""What lies behind a file descriptor, in a few words, without disturbing it."""

from __future__ import annotations

import _socket
import os
import posix
import stat
import sys
from typing import Any

_KINDS = {
    (_socket.AF_INET, _socket.SOCK_STREAM): "TCP",
    (_socket.AF_INET6, _socket.SOCK_STREAM): "TCP",
    (_socket.AF_INET, _socket.SOCK_DGRAM): "UDP",
    (_socket.AF_INET6, _socket.SOCK_DGRAM): "UDP",
    (_socket.AF_UNIX, _socket.SOCK_STREAM): "unix",
    (_socket.AF_UNIX, _socket.SOCK_DGRAM): "unix datagram",
    (_socket.AF_UNIX, _socket.SOCK_SEQPACKET): "unix packet",
}

DIRECTORY = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def describe(fd: int) -> str:
    """Return such as ``TCP 127.0.0.1:80 -> 127.0.0.1:5000``, a path, or ``closed``."""
    try:
        posix.fstat(fd)
    except OSError:
        return "closed"
    except (OverflowError, TypeError):
        return "no descriptor"
    return _socket_words(fd) or target(fd) or "open"


def target(fd: int) -> str | None:
    """Return what the kernel calls it: a path, ``socket:[1]``; ``None`` if it is not open."""
    try:
        return os.fsdecode(posix.readlink(f"{DIRECTORY}/{fd}"))
    except (OSError, ValueError):
        return None


class OpenDescriptors:
    """Lists the descriptors that are open, and asks what the kernel calls them once for each.

    What it keeps are dictionaries of numbers and texts, which the garbage collector does not
    count: it takes tuples of those out of its lists as it meets them, and a test that counts
    objects would find fewer than there were.
    """

    def __init__(self) -> None:
        self._identities: dict[int, str] = {}
        self._words: dict[int, str] = {}

    def look(self) -> dict[int, str]:
        """Return all open descriptors with what the kernel calls them."""
        try:
            numbers = [int(name) for name in posix.listdir(DIRECTORY)]
        except (OSError, ValueError):
            return {}
        identities: dict[int, str] = {}
        found: dict[int, str] = {}
        for number in numbers:
            identity = _identity(number)
            is_known = identity is not None and self._identities.get(number) == identity
            words = self._words.get(number) if is_known else target(number)
            if identity is not None:
                identities[number] = identity
            # The one that read the directory is closed by now.
            if words is not None:
                found[number] = words
        self._identities, self._words = identities, found
        return dict(found)


def _identity(fd: int) -> str | None:
    """Return what tells the file behind a descriptor from others; ``None`` if nothing does."""
    try:
        status = posix.fstat(fd)
    except OSError:
        return None
    if not stat.S_IFMT(status.st_mode):
        return None  # those without an inode, such as an epoll set, have one together
    return f"{status.st_dev} {status.st_ino} {status.st_mode} {status.st_ctime_ns}"


def _socket_words(fd: int) -> str | None:
    # A default timeout would make a descriptor non-blocking that is merely looked at.
    default = _socket.getdefaulttimeout()
    if default is not None:
        _socket.setdefaulttimeout(None)
    try:
        sock = _socket.socket(fileno=fd)
    except (OSError, ValueError):
        return None
    finally:
        if default is not None:
            _socket.setdefaulttimeout(default)
    try:
        return _words(sock)
    except Exception:
        return None
    finally:
        sock.detach()


def _words(sock: _socket.socket) -> str:
    kind = _KINDS.get((sock.family, sock.type), f"socket of family {int(sock.family)}")
    own = _address(sock.getsockname())
    try:
        peer = _address(sock.getpeername())
    except OSError:
        peer = None
    listens = False
    try:
        listens = bool(sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN))
    except OSError:
        pass
    if listens:
        return f"{kind} {own}, listening"
    return f"{kind} {own} -> {peer}" if peer is not None else f"{kind} {own}, not connected"


def _address(address: Any) -> str:
    if type(address) is tuple and len(address) >= 2:
        host, port = str(address[0]), address[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if type(address) is bytes:
        return ascii(address)[1:]
    text = str(address)
    if not text:
        return "(no name)"
    return text if text.isprintable() else ascii(text)
