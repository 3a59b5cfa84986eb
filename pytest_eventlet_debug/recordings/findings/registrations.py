"""Who asked for a descriptor's events: the ``epoll_ctl`` calls of a trace."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import re

import msgspec

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall

_CONTROL = lazily(
    rf"(\d+)(?:<[^ ]*)?, EPOLL_CTL_(ADD|MOD|DEL), (-?\d+)((?:{ANNOTATION})?)", re.ASCII
)


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
