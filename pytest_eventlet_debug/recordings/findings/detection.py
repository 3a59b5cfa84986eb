"""Show the events of a trace to every detector, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import msgspec

from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Tally
from pytest_eventlet_debug.recordings.findings.protocol import ANY_CALL
from pytest_eventlet_debug.recordings.findings.protocol import ANY_FAILED
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import ANY_PAUSE
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.protocol import Detector
from pytest_eventlet_debug.recordings.findings.protocol import Pause
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.registry import DETECTORS
from pytest_eventlet_debug.recordings.findings.tally import Tallying
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Gap
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import Unparsed

_PAUSE_NS = 1_000_000_000


class Detection:
    """All detectors, on one trace.

    :param about: the test whose trace it is.
    """

    def __init__(self, about: About, kinds: Sequence[type[Detector]] = DETECTORS) -> None:
        self._about = about
        trace = Trace(about)
        self._detectors = [kind(trace) for kind in kinds]
        self._tallying = Tallying(about)
        handlers: dict[str, list[Callable[[Any], None]]] = {}
        watchers: list[Detector | Tallying | Trace] = [*self._detectors, self._tallying, trace]
        for detector in watchers:
            for name, handler in detector.handlers().items():
                handlers.setdefault(name, []).append(handler)
        self._has_gap = False
        self._any_call = tuple(handlers.pop(ANY_CALL, ()))
        self._any_failed = tuple(handlers.pop(ANY_FAILED, ()))
        self._any_pause = tuple(handlers.pop(ANY_PAUSE, ()))
        self._any_other = tuple(handlers.pop(ANY_OTHER, ()))
        self._by_name = {name: (*self._any_call, *wanted) for name, wanted in handlers.items()}

    def watch(self, events: Iterable[Event]) -> Iterator[Event]:
        """Pass events on, and show them to the detectors."""
        by_name, any_call = self._by_name.get, self._any_call
        tallying = self._tallying
        counts = tallying.counts
        before: Event | None = None
        last_ns = time_ns = 0
        for event in events:
            if type(event) is Syscall:
                name, time_ns = event.name, event.start_ns
                counts[name] += 1
                for handler in by_name(name, any_call):
                    handler(event)
                if event.errno is not None:
                    for handler in self._any_failed:
                        handler(event)
            else:
                if isinstance(event, Gap):
                    self._has_gap = True
                elif not isinstance(event, Syscall | Unparsed):
                    time_ns = event.time_ns
                for handler in self._any_other:
                    handler(event)
            if time_ns - last_ns >= _PAUSE_NS and before is not None:
                for handler in self._any_pause:
                    handler(Pause(before, time_ns))
            tallying.before = before = event
            last_ns = time_ns
            yield event
        self._tallying.end(last_ns)

    def tally(self) -> Tally:
        """Return the test's figures, once all events have passed."""
        return self._tallying.tally()

    def findings(self) -> list[Finding]:
        """Return what was found, with the test's id and hub, once all events have passed."""
        return [
            self._completed(finding)
            for detector in self._detectors
            for finding in detector.findings()
        ]

    def _completed(self, finding: Finding) -> Finding:
        certainty = finding.certainty
        if self._has_gap and certainty == "certain":
            certainty = "cut trace"
        nodeid, hub = self._about.nodeid, self._about.hub
        return msgspec.structs.replace(finding, nodeid=nodeid, hub=hub, certainty=certainty)
