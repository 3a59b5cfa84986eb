"""Find greenthreads that wait for a descriptor which another one closes: nothing wakes them.

The kernel takes a descriptor out of an epoll set when it is closed, and tells nobody.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from typing import NamedTuple

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.registrations import Registration
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Signal
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

#: Whoever runs again sooner may have been ended together with what it waited for.
LOST_NS = 1_000_000_000
_MOST = 5


class _Lost(NamedTuple):
    """A wait whose descriptor was closed."""

    wait: Registration
    close: Syscall


class LostWaits:
    """The detector of descriptors that are closed while a greenthread waits for them."""

    kind: ClassVar[Kind] = "closed"

    def __init__(self, trace: Trace) -> None:
        self._until_ns = trace.about.until_ns
        self._main: int | None = None
        self._registrations = trace.registrations
        self._lost: dict[str, _Lost] = {}
        self._found: list[tuple[_Lost, int]] = []
        self._last_ns = 0

    def handlers(self) -> Handlers:
        return {"close": self._closed, ANY_OTHER: self._other}

    def _closed(self, call: Syscall) -> None:
        if call.pid == self._main and call.errno is None:
            fd = call.fd
            wait = self._registrations.current(call.pid, fd) if fd is not None else None
            who = wait.greenthread if wait is not None else None
            is_other = None not in (who, call.greenthread) and who != call.greenthread
            if wait is not None and who is not None and is_other and not is_hub(who):
                remember(self._lost, who, _Lost(wait, call))

    def _other(self, event: Event) -> None:
        if type(event) is Phase:
            self._main = event.pid
        if not isinstance(event, Phase | Switch | Signal | Exit) or event.pid != self._main:
            return
        self._last_ns = event.time_ns
        if type(event) is Switch:
            lost = self._lost.pop(event.greenthread, None)
            if lost is not None:
                self._judge(lost, event.time_ns)

    def _judge(self, lost: _Lost, until_ns: int) -> None:
        if until_ns - lost.close.start_ns >= LOST_NS and len(self._found) < _MOST:
            self._found.append((lost, until_ns - lost.close.start_ns))

    def findings(self) -> Iterable[Finding]:
        for lost in self._lost.values():
            self._judge(lost, self._until_ns or self._last_ns)
        self._lost.clear()
        for (wait, close), since_ns in self._found:
            yield Finding(
                self.kind,
                f"{wait.shown} was closed by greenthread {close.greenthread}{close.where} while "
                f"greenthread {wait.greenthread} waited for it{wait.at} (line {wait.line}); "
                f"{wait.greenthread} did not run for {since_ns / 1e9:.2f} s after that",
                (
                    Evidence(f"close({wait.shown})", STRACE_FILE, close.line),
                    Evidence(f"epoll_ctl({wait.shown})", STRACE_FILE, wait.line),
                ),
                counts={"seconds": since_ns / 1e9},
            )
