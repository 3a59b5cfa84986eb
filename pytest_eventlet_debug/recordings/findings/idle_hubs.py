"""Find threads that make a hub of their own and do not run it, so that nothing in it happens.

eventlet gives a hub to each thread that asks for one, by waking a greenthread for example: an
event, a queue or a lock that is used from a plain thread schedules the switch in the hub of
that thread, and not in that of the greenthread which waits.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.call_names import EPOLL_SETS
from pytest_eventlet_debug.recordings.findings.call_names import WAITS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.protocol import ANY_FAILED
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Syscall

_MOST = 5
_STARTS = names("clone clone3")
#: Of the calls that make a hub, the next one fails when the descriptors are used up.
_USED_UP = frozenset(("EMFILE", "ENFILE"))


class IdleHubs:
    """The detector of threads that make a hub and never wait in it."""

    kind: ClassVar[Kind] = "hub idle"

    def __init__(self, trace: Trace) -> None:
        self._passed = trace.about.passed
        self._main: int | None = None
        self._threads: dict[int, Syscall] = {}
        self._idle: dict[int, Syscall] = {}

    def handlers(self) -> Handlers:
        if self._passed:
            return {}
        return {
            **dict.fromkeys(_STARTS, self._started),
            **dict.fromkeys(EPOLL_SETS, self._made),
            **dict.fromkeys(WAITS, self._waited),  # a hub without listeners sleeps
            ANY_FAILED: self._failed,
            ANY_OTHER: self._other,
        }

    def _other(self, event: Event) -> None:
        if type(event) is Phase:
            self._main = event.pid

    def _started(self, call: Syscall) -> None:
        if call.pid == self._main and "CLONE_THREAD" in call.args and call.value:
            self._threads[call.value] = call

    def _made(self, call: Syscall) -> None:
        if call.pid != self._main and len(self._idle) < _MOST and call.errno is None:
            self._idle[call.pid] = call

    def _failed(self, call: Syscall) -> None:
        if call.errno in _USED_UP:
            self._waited(call)

    def _waited(self, call: Syscall) -> None:
        if self._idle:
            self._idle.pop(call.pid, None)

    def findings(self) -> Iterable[Finding]:
        for thread, call in self._idle.items():
            start = self._threads.get(thread)
            if start is not None:
                yield Finding(
                    self.kind,
                    f"thread {thread}, started{start.where}, made a hub of its own and never ran "
                    "it: if it was to wake a greenthread of another thread, by an event for "
                    "example, that does not happen",
                    (Evidence(f"{call.name}({call.args})", STRACE_FILE, call.line),),
                    "likely",
                )
