"""What hubs wait for that tell the kernel of all of it at each wait: ``poll`` and ``selects``.

Nothing in the trace says who asked the hub for a descriptor. It was one of the greenthreads that
ran between the wait without it and the first with it, as a rule: the one that found nothing to read
there, if one did.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from pytest_eventlet_debug.recordings.findings.polls import asked_for
from pytest_eventlet_debug.recordings.findings.polls import events_of
from pytest_eventlet_debug.recordings.findings.polls import tells_all
from pytest_eventlet_debug.recordings.findings.polls import without_timeout
from pytest_eventlet_debug.recordings.findings.registrations import Registration
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub


class PolledWaits:
    """Follows for which descriptors a thread's hub waits until they can be read."""

    def __init__(self) -> None:
        #: The greenthreads that have run since the last wait, two at most.
        self._ran: dict[str, None] = {}
        #: The calls since then that found nothing, by descriptor.
        self._empty: dict[int | None, Syscall] = {}
        self._text: str | None = None
        self._polled: dict[int, Registration] = {}
        self._ended: dict[int, tuple[Registration, Syscall]] = {}

    def ran(self, greenthread: str) -> None:
        """Note a greenthread that runs."""
        if len(self._ran) < 2 and not is_hub(greenthread):
            self._ran[greenthread] = None

    def found_nothing(self, call: Syscall) -> None:
        """Note a call that would have had to wait for something to read."""
        self._empty[call.fd] = call

    def waited(self, call: Syscall) -> None:
        """Note a wait of the thread."""
        if not tells_all(call):
            return
        text = without_timeout(call)
        if text != self._text:
            self._text = text
            self._look(call)
        self._ran, self._empty = {}, {}
        for _, fd in events_of(call):
            self._polled.pop(fd, None)
            self._ended.pop(fd, None)
            self._text = None

    def _look(self, call: Syscall) -> None:
        asked = {fd: each.shown for fd, each in (asked_for(call) or {}).items() if each.to_read}
        for fd in self._polled.keys() - asked.keys():
            self._ended[fd] = self._polled.pop(fd), call
        only = next(iter(self._ran)) if len(self._ran) == 1 else None
        for fd in asked.keys() - self._polled.keys():
            self._ended.pop(fd, None)
            empty = self._empty.get(fd)
            who, at = (empty.greenthread, empty.where) if empty is not None else (only, "")
            self._polled[fd] = Registration(asked[fd], who, call.line, at, call.start_ns)

    def latest(self) -> Mapping[int, tuple[Registration, Syscall | None]]:
        """Return the last wait for each descriptor that brought nothing, and what ended it."""
        return {**self._ended, **{fd: (each, None) for fd, each in self._polled.items()}}


class Addition(msgspec.Struct, frozen=True):
    """When a hub began to poll for a descriptor."""

    #: Of the first wait with it.
    line: int
    #: Those that ran since the wait before.
    greenthreads: tuple[str, ...]


class Additions:
    """Follows since when the hub of each thread polls for each descriptor."""

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


class _Polled:
    """What a hub polls for.

    :ivar ran: the greenthreads that have run since its last wait, in order.
    """

    def __init__(self) -> None:
        self.ran: dict[str, None] = {}
        self.added: dict[int, Addition] = {}
        self._text = ""
        self._asked: frozenset[int] | None = None

    def look(self, call: Syscall) -> None:
        text = without_timeout(call)
        if text == self._text:
            return
        self._text = text
        asked = asked_for(call)
        fds = frozenset(asked) if asked is not None else None
        if fds is None or self._asked is None:
            self.added = {}
        else:
            kept = {fd: each for fd, each in self.added.items() if fd in fds}
            new = Addition(call.line, tuple(self.ran))
            self.added = {**kept, **dict.fromkeys(fds - self._asked, new)}
        self._asked = fds
