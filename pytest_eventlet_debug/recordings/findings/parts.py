"""Which part each socket and pipe of a test plays, whatever number a run gave to it."""

from __future__ import annotations

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import ACCEPTS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.system.high_descriptors import HIGH_DESCRIPTOR

PAIRS = names("socketpair pipe pipe2")
_NAMING = {"bind": "listener", "listen": "listener", "connect": "client"}

_DESCRIPTOR = lazily(r"(\d{1,10})<(TCP|UDP|UNIX|pipe)[\w-]*:\[")
_PAIR = lazily(r"\[(\d+)[^ ]*, (\d+)")


def ends_of_pair(call: Syscall) -> tuple[int, ...]:
    """Return the two descriptors that one of :data:`PAIRS` made; nothing if it failed."""
    match = _PAIR.search(call.args) if call.errno is None else None
    return (int(match[1]), int(match[2])) if match is not None else ()


class Parts:
    """Follows descriptors through the calls of one process.

    A socket is a ``listener 1`` once it is bound, a ``client 2`` once it connects, a
    ``connection 1`` if it was accepted; the ends of pairs are ``pair 1 a``, ``pipe 1 b``.
    """

    def __init__(self) -> None:
        self._known: dict[int | None, str] = {}
        self._counts: dict[str, int] = {}

    def of(self, call: Syscall) -> str | None:
        """Return the part that a call's first argument has played so far."""
        return self._known.get(call.fd)

    def follow(self, call: Syscall) -> str | None:
        """Take note of a call on a socket or pipe; return the part that this plays."""
        name = call.name
        fd = call.fd
        part = self._known.get(fd)
        if part is None and name in _NAMING and self.has(call):
            part = self._known[fd] = self._named(_NAMING[name])
        if part is None:
            if name in PAIRS:
                self._make_pair(call)
        elif name in ACCEPTS:
            if call.value is not None and call.value >= 0:
                self._known[call.value] = self._named("connection")
        elif name == "close":
            del self._known[fd]
        return part

    def forget_pair(self, call: Syscall) -> list[str]:
        """Take back that a call made a pair, before another is made; return the parts."""
        parts = [self._known.pop(end) for end in ends_of_pair(call) if end in self._known]
        if parts:
            self._counts["pair"] -= 1
        return parts

    @staticmethod
    def has(call: Syscall) -> bool:
        """Say whether a call's first argument is a socket or pipe, and not this plugin's own."""
        match = _DESCRIPTOR.match(call.args)
        return match is not None and int(match[1]) < HIGH_DESCRIPTOR

    def _make_pair(self, call: Syscall) -> None:
        ends = ends_of_pair(call)
        if ends:
            name = self._named("pair" if call.name == "socketpair" else "pipe")
            self._known.update(zip(ends, (f"{name} a", f"{name} b"), strict=True))

    def _named(self, kind: str) -> str:
        number = self._counts[kind] = self._counts.get(kind, 0) + 1
        return f"{kind} {number}"
