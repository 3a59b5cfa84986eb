"""Who asked for a descriptor's events: the ``epoll_ctl`` calls of a trace."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import re

import msgspec

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

_CONTROL = lazily(
    rf"(\d+)(?:<[^ ]*)?, EPOLL_CTL_(ADD|MOD|DEL), (-?\d+)((?:{ANNOTATION})?)", re.ASCII
)
_EPOLL_EVENT = lazily(r"\{events=([A-Z|]+), data=\{u32=(\d+)", re.ASCII)
_POLL_EVENT = lazily(r"\{fd=(\d+)[^{}]*?, revents=([A-Z|]+)\}", re.ASCII)
_ANNOTATION = lazily(ANNOTATION)
_POLLED = lazily(r"\{fd=(\d+)", re.ASCII)
_SETS = lazily(r"\[([\d ]*)\]", re.ASCII)
_SELECTED = lazily(r"(in|out|except) \[([\d ]+)\]", re.ASCII)


class Registration(msgspec.Struct, frozen=True):
    """A descriptor whose events were asked for."""

    #: The descriptor as strace names it: ``5<TCP:[127.0.0.1:80]>``.
    shown: str
    greenthread: str | None
    line: int
    #: The line of Python that asked, for the end of a phrase.
    at: str = ""
    #: When it asked, nanoseconds since the epoch.
    time_ns: int = 0


class Registrations:
    """Keeps the last ``epoll_ctl`` of each descriptor, and the one that ended last."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Registration] = {}
        self._ended: dict[tuple[int, int], tuple[Registration, Syscall]] = {}

    def handlers(self) -> Mapping[str, Callable[[Syscall], None]]:
        """Return what to call by the names of calls, as a detector does."""
        return {"epoll_ctl": self.control, "close": self.closed}

    def find(self, pid: int, fd: int, line: int) -> Registration | None:
        """Return who had registered a descriptor when the thread *pid* made the call of a line.

        That may be over by now: it was taken back, or the descriptor closed.
        """
        known = self._known.get((pid, fd))
        if known is not None and known.line < line:
            return known
        before, end = self._ended.get((pid, fd), (None, None))
        if before is None or end is None or not before.line < line < end.line:
            return None
        return before

    def current(self, pid: int, fd: int) -> Registration | None:
        """Return who has registered a descriptor with the thread *pid* now."""
        return self._known.get((pid, fd))

    def ended(self, pid: int, fd: int) -> Syscall | None:
        """Return the call that ended the last registration of a descriptor, if any did."""
        if (pid, fd) in self._known:
            return None
        return self._ended.get((pid, fd), (None, None))[1]

    def latest(self, pid: int) -> Mapping[int, Registration]:
        """Return how the thread *pid* registered each descriptor last, taken back or not."""
        ended = {key: before for key, (before, _) in self._ended.items()}
        return {
            fd: each for (thread, fd), each in {**ended, **self._known}.items() if thread == pid
        }

    def control(self, call: Syscall) -> None:
        """Take note of an ``epoll_ctl``."""
        match = _CONTROL.match(call.args)
        if match is None or call.errno is not None:
            return
        fd = int(match[3])
        if match[2] == "DEL":
            self._end(call, fd)
        else:
            shown = match[3] + match[4]
            self._known[call.pid, fd] = Registration(
                shown, call.greenthread, call.line, call.where, call.start_ns
            )

    def closed(self, call: Syscall) -> None:
        """Take note of a ``close``, which takes registrations back."""
        if self._known:
            fd = call.fd
            if fd is not None:
                self._end(call, fd)

    def _end(self, call: Syscall, fd: int) -> None:
        known = self._known.pop((call.pid, fd), None)
        if known is not None:
            self._ended[call.pid, fd] = known, call


class Addition(msgspec.Struct, frozen=True):
    """When a hub began to poll for a descriptor."""

    #: Of the first wait with it.
    line: int
    #: Those that ran since the wait before; one of them had the hub do so, as a rule.
    greenthreads: tuple[str, ...]


class Additions:
    """Learns who asked for a descriptor where the kernel is told of all of them at each wait."""

    def __init__(self) -> None:
        self._polled: dict[int, _Polled] = {}

    def ran(self, pid: int, greenthread: str) -> None:
        """Take note of a greenthread that runs now in the thread *pid*."""
        if not is_hub(greenthread):
            self._of(pid).ran[greenthread] = None

    def waited(self, call: Syscall) -> None:
        """Take note of a wait."""
        if not tells_all(call):
            return
        polled = self._of(call.pid)
        polled.look(call)
        polled.ran = {}

    def find(self, pid: int, fd: int) -> Addition | None:
        """Return when the hub of the thread *pid* began to poll for a descriptor, if it did."""
        return self._of(pid).added.get(fd)

    def _of(self, pid: int) -> _Polled:
        return self._polled.setdefault(pid, _Polled())


def tells_all(call: Syscall) -> bool:
    """Say whether a wait is a hub's, and one that tells the kernel of all descriptors."""
    return not call.name.startswith("epoll") and is_hub(call.greenthread)


class _Polled:
    """What a hub polls for.

    :ivar ran: the greenthreads that have run since its last wait, in order.
    """

    def __init__(self) -> None:
        self.ran: dict[str, None] = {}
        self.added: dict[int, Addition] = {}
        self._text = ""
        self._fds: frozenset[int] | None = None

    def look(self, call: Syscall) -> None:
        text = call.args.rpartition("]")[0]
        if text == self._text:
            return
        self._text = text
        fds = _polled_for(text)
        if fds is None or self._fds is None:
            self.added = {}
        else:
            kept = {fd: each for fd, each in self.added.items() if fd in fds}
            new = Addition(call.line, tuple(self.ran))
            self.added = {**kept, **dict.fromkeys(fds - self._fds, new)}
        self._fds = fds


def _polled_for(text: str) -> frozenset[int] | None:
    """Return the descriptors of a wait, ``None`` where strace does not show all of them."""
    if "..." in text:
        return None
    bare = _ANNOTATION.sub("", text)
    numbers = _POLLED.findall(bare) or " ".join(_SETS.findall(f"{bare}]")).split()
    return frozenset(map(int, numbers))


def events_of(call: Syscall) -> list[tuple[str, int]]:
    """Return what a wait brought: events and the descriptors they are for.

    :param call: an ``epoll_wait``, ``poll`` or ``select`` of any kind.
    """
    if call.name.startswith("epoll"):
        return [(events, int(fd)) for events, fd in _EPOLL_EVENT.findall(call.args)]
    ret = call.ret or ""
    if "select" in call.name:
        found = _SELECTED.findall(ret)
        return [(kind, int(fd)) for kind, numbers in found for fd in numbers.split()]
    return [(events, int(fd)) for fd, events in _POLL_EVENT.findall(ret)]
