"""What a hub waits for that tells the kernel so at each wait: ``poll`` and ``select``."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.registrations import Registration
from pytest_eventlet_debug.recordings.findings.registrations import events_of
from pytest_eventlet_debug.recordings.findings.registrations import tells_all
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

_READABLE = lazily(rf"\{{fd=((\d+)(?:{ANNOTATION})?), events=POLLIN")
_SELECTED = lazily(r"\d+, \[")
_DESCRIPTOR = lazily(rf"((\d+)(?:{ANNOTATION})?)(?: |\])")


class PolledWaits:
    """Follows for which descriptors a thread's hub waits until they can be read."""

    def __init__(self) -> None:
        #: The greenthreads that have run since the last wait, two at most.
        self._ran: dict[str, None] = {}
        self._text: str | None = None
        self._polled: dict[int, Registration] = {}
        self._ended: dict[int, tuple[Registration, Syscall]] = {}

    def ran(self, greenthread: str) -> None:
        """Note a greenthread that runs."""
        if len(self._ran) < 2 and not is_hub(greenthread):
            self._ran[greenthread] = None

    def waited(self, call: Syscall) -> None:
        """Note a wait of the thread."""
        if not tells_all(call):
            return
        if call.args != self._text:
            self._text = call.args
            self._look(call)
        self._ran = {}
        for _, fd in events_of(call):
            self._polled.pop(fd, None)
            self._ended.pop(fd, None)
            self._text = None

    def _look(self, call: Syscall) -> None:
        asked = _asked_for(call)
        for fd in self._polled.keys() - asked.keys():
            self._ended[fd] = self._polled.pop(fd), call
        who = next(iter(self._ran)) if len(self._ran) == 1 else None
        for fd in asked.keys() - self._polled.keys():
            self._ended.pop(fd, None)
            self._polled[fd] = Registration(asked[fd], who, call.line, "", call.start_ns)

    def latest(self) -> Mapping[int, tuple[Registration, Syscall | None]]:
        """Return the last wait for each descriptor that brought nothing, and what ended it."""
        return {**self._ended, **{fd: (each, None) for fd, each in self._polled.items()}}


def _asked_for(call: Syscall) -> dict[int, str]:
    """Return what a wait is to find readable, as strace shows it; nothing of a list that it cut."""
    if "..." in call.args:
        return {}
    if "poll" in call.name:
        return {int(fd): shown for shown, fd in _READABLE.findall(call.args)}
    begin = _SELECTED.match(call.args)
    found = {}
    position = begin.end() if begin is not None else len(call.args)
    while match := _DESCRIPTOR.match(call.args, position):
        found[int(match[2])] = match[1]
        if match[0].endswith("]"):
            break
        position = match.end()
    return found
