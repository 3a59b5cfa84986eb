"""Say that a trace was longer than its limit, so that its middle is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Gap


class LongTrace:
    """The detector of traces that were too long."""

    kind: ClassVar[Kind] = "long trace"

    def __init__(self, trace: Trace) -> None:
        self._gaps: list[Gap] = []

    def handlers(self) -> Handlers:
        return {ANY_OTHER: self._other}

    def _other(self, event: Event) -> None:
        if type(event) is Gap:
            self._gaps.append(event)

    def findings(self) -> Iterable[Finding]:
        for gap in self._gaps:
            megabytes = gap.size / 1e6
            yield Finding(
                self.kind,
                f"{megabytes:,.1f} MB in the middle of the trace are left out: "
                "it is longer than --strace-limit",
                (Evidence("the gap", STRACE_FILE, gap.line),),
                counts={"bytes": gap.size},
            )
