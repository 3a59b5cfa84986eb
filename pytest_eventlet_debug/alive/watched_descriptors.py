"""What hubs really watch, as the kernel and asyncio's selector tell it.

A hub's own table of listeners may say one thing and the kernel another: a descriptor that was
closed behind the hub's back has left the epoll set, and whoever waits for it waits for ever.
"""

from __future__ import annotations

import posix
from typing import Any

import msgspec

from pytest_eventlet_debug.alive.tls_sockets import TlsSockets
from pytest_eventlet_debug.system import unpatched

_EVENTS = {"read": 0x001, "write": 0x004}  # EPOLLIN, EPOLLOUT


class _Entry(msgspec.Struct, frozen=True):
    """What an epoll set has for a descriptor."""

    events: int
    #: The file's, in kernels that tell it (since 4.13).
    inode: int | None


class Watched:
    """The epoll sets of hubs, each read when it is asked for first. Not to be kept.

    :param tls_sockets: what may have data of which hubs do not know.
    """

    def __init__(self, tls_sockets: TlsSockets) -> None:
        self._tls_sockets = tls_sockets
        self._sets: dict[int, dict[int, _Entry] | None] = {}

    def complaint(self, hub: Any, event: str, fd: int) -> str:
        """Say in words what is wrong with how a hub watches a descriptor; nothing if it is right.

        :param event: ``read`` or ``write``.
        """
        try:
            complaint = self._complaint(hub, event, fd)
        except Exception:
            complaint = ""  # a hub of another's making
        return complaint or self.overlooked(event, fd)

    def overlooked(self, event: str, fd: int) -> str:
        """Say in words what has come already for a descriptor, whatever hub watches it."""
        return self._tls_sockets.complaint(event, fd)

    def _complaint(self, hub: Any, event: str, fd: int) -> str:
        loop = getattr(hub, "loop", None)
        selector = getattr(loop, "_selector", None)
        if selector is not None:
            key = selector.get_map().get(fd)
            # The loop keeps (reader, writer) with it.
            if key is None or key.data[0 if event == "read" else 1] is None:
                return "which the hub's asyncio loop does not watch"
        entries = self._entries(hub, selector)
        if entries is None:
            return ""
        entry = entries.get(fd)
        if entry is None:
            return "which the hub's epoll set no longer has"
        if entry.inode not in (None, posix.fstat(fd).st_ino):
            return "for which the hub's epoll set has another file"
        if not entry.events & _EVENTS[event]:
            return f"which the hub's epoll set does not watch for {event}"
        return ""

    def strays(self, hub: Any) -> list[int]:
        """Return the descriptors that a hub's epoll set has and for which nobody waits.

        Their events wake the hub in vain.
        """
        try:
            selector = getattr(getattr(hub, "loop", None), "_selector", None)
            entries = self._entries(hub, selector) or {}
            known = set(selector.get_map()) if selector is not None else set()
            for waiting in (*hub.listeners.values(), *hub.secondaries.values()):
                known.update(waiting)
        except Exception:
            return []  # a hub of another's making
        return [fd for fd, entry in entries.items() if fd not in known and _wakes(entry)]

    def _entries(self, hub: Any, selector: Any) -> dict[int, _Entry] | None:
        if id(hub) not in self._sets:
            holder = getattr(selector, "_selector", None) or getattr(hub, "poll", None)
            fileno = getattr(holder, "fileno", None)  # select.poll() has none, nor anything to read
            self._sets[id(hub)] = _read_epoll(fileno()) if fileno is not None else None
        return self._sets[id(hub)]


def _wakes(entry: _Entry) -> bool:
    return bool(entry.events & sum(_EVENTS.values()))


def _read_epoll(fd: int) -> dict[int, _Entry] | None:
    """Read an epoll set: ``tfd``, ``events`` and ``ino`` in proc_pid_fdinfo(5)."""
    try:
        text = unpatched.read_file(f"/proc/self/fdinfo/{fd}").decode("ascii", "replace")
    except OSError:
        return None
    found: dict[int, _Entry] = {}
    for line in text.splitlines():
        if line.startswith("tfd:"):
            words = line.replace(":", ": ").split()
            fields = dict(zip(words[::2], words[1::2], strict=False))
            inode = fields.get("ino:")
            found[int(fields["tfd:"])] = _Entry(
                int(fields["events:"], 16), int(inode, 16) if inode else None
            )
    return found
