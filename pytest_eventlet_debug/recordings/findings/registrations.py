"""Who asked for a descriptor's events: the ``epoll_ctl`` calls of a trace."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import re
from typing import NamedTuple

from pytest_eventlet_debug.recordings.strace_log import Syscall

_CONTROL = re.compile(
    r"(\d+)(?:<[^ ]*)?, EPOLL_CTL_(ADD|MOD|DEL), (-?\d+)((?:<(?:->|[^<>]|<[^<>]*>)*>)?)", re.ASCII
)
_EPOLL_EVENT = re.compile(r"\{events=([A-Z|]+), data=\{u32=(\d+)", re.ASCII)
_POLL_EVENT = re.compile(r"\{fd=(\d+)[^{}]*?, revents=([A-Z|]+)\}", re.ASCII)
_SELECTED = re.compile(r"(in|out|except) \[([\d ]+)\]", re.ASCII)


class Registration(NamedTuple):
    """A descriptor whose events were asked for."""

    shown: str
    """The descriptor as strace names it: ``5<TCP:[127.0.0.1:80]>``."""
    greenthread: str | None
    line: int
    at: str = ""
    """The line of Python that asked, for the end of a phrase."""


class Registrations:
    """Keeps the last ``epoll_ctl`` of each descriptor until that is closed or taken back."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], Registration] = {}

    def handlers(self) -> Mapping[str, Callable[[Syscall], None]]:
        """Return what to call by the names of calls, as a detector does."""
        return {"epoll_ctl": self.control, "close": self.closed}

    def find(self, pid: int, fd: int) -> Registration | None:
        """Return who registered a descriptor in the thread *pid*."""
        return self._known.get((pid, fd))

    def control(self, call: Syscall) -> None:
        """Take note of an ``epoll_ctl``."""
        match = _CONTROL.match(call.args)
        if match is None or call.errno is not None:
            return
        fd = int(match[3])
        if match[2] == "DEL":
            self._known.pop((call.pid, fd), None)
        else:
            shown = match[3] + match[4]
            self._known[call.pid, fd] = Registration(shown, call.greenthread, call.line, call.where)

    def closed(self, call: Syscall) -> None:
        """Take note of a ``close``, which takes registrations back."""
        if self._known:
            number = call.args.partition("<")[0]
            if number.isdigit():
                self._known.pop((call.pid, int(number)), None)


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
