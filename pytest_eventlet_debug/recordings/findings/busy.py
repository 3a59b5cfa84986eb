"""Find greenthreads that compute for long without a system call: the hub cannot run meanwhile.

A trace shows a gap and not what fills it. The clock of the thread's CPU time does, which is read
at both ends of each phase: what it counts and what lies outside of the gaps cannot hold, was used
in them. Only gaps in which no other thread or process makes a call either are seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import msgspec

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.model import Certainty
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import ANY_PAUSE
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Pause
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.stalls import BEGAN
from pytest_eventlet_debug.recordings.trace_events import TEST_LABEL
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: How long a gap must be, and how long the phase must have computed, whatever others do.
MIN_NS = 1_000_000_000
#: How much of the gaps the CPU time must explain; on a loaded machine others want the CPU, too.
MIN_CPU_SHARE = 0.25
#: How much of them it must explain where all else was computing as well.
CERTAIN_SHARE = 0.25
_MOST = 20


class _Gap(msgspec.Struct, frozen=True):
    phase: str
    greenthread: str
    begun_ns: int
    seconds: float
    line: int


class Busy:
    """The detector of greenthreads that compute for long."""

    kind: ClassVar[Kind] = "busy"

    def __init__(self, trace: Trace) -> None:
        self._about = trace.about
        self._main: int | None = None
        self._phase = ""
        self._has_others = False
        self._found: list[_Gap] = []

    def handlers(self) -> Handlers:
        return {ANY_PAUSE: self._pause, ANY_OTHER: self._other}

    def _other(self, event: Event) -> None:
        if type(event) is Phase:
            self._main, self._phase = event.pid, event.phase
        elif type(event) is Switch and event.pid == self._main and event.greenthread != TEST_LABEL:
            self._has_others = True

    def _pause(self, pause: Pause) -> None:
        before = pause.before
        if type(before) is Syscall:
            # A call that did not return may still last.
            if before.duration_ns is None:
                return
            begun_ns = before.start_ns + before.duration_ns
        elif type(before) is Switch:
            begun_ns = before.time_ns
        else:
            return
        seconds = (pause.until_ns - begun_ns) / 1e9
        if before.pid != self._main or not self._phase or before.greenthread is None:
            return
        if seconds * 1e9 >= MIN_NS and len(self._found) < _MOST:
            self._found.append(
                _Gap(self._phase, before.greenthread, begun_ns, seconds, before.line)
            )

    def findings(self) -> Iterable[Finding]:
        consequence = ", so that no other could run" if self._has_others else ""
        for gap in sorted(self._found, key=lambda each: -each.seconds):
            certainty, used = self._judge(gap.phase)
            if certainty is None:
                continue
            yield Finding(
                self.kind,
                f"greenthread {gap.greenthread} made no system call for {gap.seconds:.2f} s{used}"
                f"{consequence}",
                (Evidence("the last call or switch before", STRACE_FILE, gap.line),),
                certainty,
                {"seconds": gap.seconds, BEGAN: gap.begun_ns / 1e9},
            )

    def _judge(self, phase: str) -> tuple[Certainty | None, str]:
        """Say how sure it is that the gaps of a phase were used to compute, with the CPU time."""
        cpu, times = self._about.cpu.get(phase), self._about.phases.get(phase)
        if cpu is None or times is None:
            return "likely", ""  # it did not come to its end
        gaps = sum(each.seconds for each in self._found if each.phase == phase)
        if cpu < max(MIN_NS / 1e9, MIN_CPU_SHARE * gaps):
            return None, ""  # it was stopped, or others had the CPU
        proven = cpu - ((times[1] - times[0]) / 1e9 - gaps)
        used = f" ({cpu:.2f} s of CPU in the {phase} phase)"
        return ("certain" if proven >= CERTAIN_SHARE * gaps else "likely"), used
