"""What lies behind a file descriptor, in a few words, without disturbing it."""

from __future__ import annotations

import _socket
import posix
from typing import Any

from pytest_eventlet_debug.system.open_descriptors import target

_KINDS = {
    (_socket.AF_INET, _socket.SOCK_STREAM): "TCP",
    (_socket.AF_INET6, _socket.SOCK_STREAM): "TCP",
    (_socket.AF_INET, _socket.SOCK_DGRAM): "UDP",
    (_socket.AF_INET6, _socket.SOCK_DGRAM): "UDP",
    (_socket.AF_UNIX, _socket.SOCK_STREAM): "unix",
    (_socket.AF_UNIX, _socket.SOCK_DGRAM): "unix datagram",
    (_socket.AF_UNIX, _socket.SOCK_SEQPACKET): "unix packet",
}


def describe(fd: int) -> str:
    """Return such as ``TCP 127.0.0.1:80 -> 127.0.0.1:5000``, a path, or ``closed``."""
    try:
        posix.fstat(fd)
    except OSError:
        return "closed"
    except (OverflowError, TypeError):
        return "no descriptor"
    return _socket_words(fd) or target(fd) or "open"


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
