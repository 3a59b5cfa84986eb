"""Find greenthreads for which something had come, and which did not run before the test ended.

In a turn of its loop, the asyncio hub first runs the greenthreads whose sleep is over, and then
those whose descriptors can be read. Other hubs do it the other way round, so that there
``sleep(0)`` is enough for a server to read what has been sent.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from typing import NamedTuple

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.polls import events_of
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.registrations import Registration
from pytest_eventlet_debug.recordings.trace_events import TEST_LABEL
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

_MOST = 3


class _Due(NamedTuple):
    """What had come for a greenthread."""

    events: str
    wait: Registration
    call: Syscall


class NoTurn:
    """The detector of greenthreads that were about to run when the test ended."""

    kind: ClassVar[Kind] = "no turn"

    def __init__(self, trace: Trace) -> None:
        self._wanted = not trace.about.passed and trace.about.hub in (None, "asyncio")
        self._phase: Phase | None = None
        self._registrations = trace.registrations
        #: What the last wait brought, by the greenthread that has not run since.
        self._due: dict[str, _Due] = {}
        self._found: list[_Due] = []

    def handlers(self) -> Handlers:
        if not self._wanted:
            return {}
        return {
            **dict.fromkeys((name for name in POLLS if name.startswith("epoll")), self._waited),
            ANY_OTHER: self._other,
        }

    def _waited(self, call: Syscall) -> None:
        if self._phase is None or call.pid != self._phase.pid:
            return
        self._due.clear()
        if not call.value or not is_hub(call.greenthread):
            return
        for events, fd in events_of(call):
            wait = self._registrations.current(call.pid, fd)
            if wait is not None and wait.greenthread is not None:
                self._due[wait.greenthread] = _Due(events, wait, call)
        if TEST_LABEL in self._due:  # the test may run first, as they come together
            self._due.clear()

    def _other(self, event: Event) -> None:
        if type(event) is Switch and self._phase is not None and event.pid == self._phase.pid:
            self._due.pop(event.greenthread, None)
        elif type(event) is Phase:
            if self._phase is not None and self._phase.phase == "call":
                self._found = [each for each in self._due.values() if self._goes_on(each)][:_MOST]
            self._due.clear()
            self._phase = event

    def _goes_on(self, due: _Due) -> bool:
        fd = int(due.wait.shown.partition("<")[0])
        return self._registrations.current(due.call.pid, fd) is due.wait

    def findings(self) -> Iterable[Finding]:
        for events, wait, call in self._found:
            yield Finding(
                self.kind,
                f"the test ended before greenthread {wait.greenthread} had its turn, though what "
                f"that waits for had come: {events} on {wait.shown}, asked for{wait.at} (line "
                f"{wait.line}); the asyncio hub first runs those whose sleep is over",
                (
                    Evidence(f"{call.name}({call.args})", STRACE_FILE, call.line),
                    Evidence(f"epoll_ctl({wait.shown})", STRACE_FILE, wait.line),
                ),
            )
