"""What a detector is: something that looks for one kind of finding as a trace passes by."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from typing import ClassVar
from typing import Protocol
from typing import TypeAlias

import msgspec

from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.openings import Openings
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.registrations import Registrations
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: In the place of a call's name: every call; every call that failed; every event that is no call;
#: every :class:`Pause`.
ANY_CALL = "*"
ANY_FAILED = "!"
ANY_OTHER = ""
ANY_PAUSE = "..."


class About(msgspec.Struct, frozen=True):
    """What is known of a test before its trace is read.

    :param nodeid: the test, with its hub.
    :param hub: the hub's name.
    :param pid: the test process, or ``None`` where ``test.json`` does not say.
    :param phases: start and end of each phase that ran, nanoseconds since the epoch.
    :param cpu: seconds of CPU that the thread of the test used in each of them.
    :param left: descriptors that the test left open.
    :param passed: whether it ended, and nothing in it failed.
    :param until_ns: the time, nanoseconds since the epoch, if the test still runs.
    """

    nodeid: str = ""
    hub: str | None = None
    pid: int | None = None
    phases: dict[str, tuple[int, int]] = {}
    cpu: dict[str, float] = {}
    left: tuple[int, ...] = ()
    passed: bool = False
    until_ns: int | None = None


class Trace:
    """A trace as it passes by: the test whose it is, and what several detectors follow in it.

    While a call is handed over, that is as it was before the call.
    """

    def __init__(self, about: About) -> None:
        self.about = about
        self.processes = Processes(about.pid)
        self.openings = Openings(self.processes)
        self.registrations = Registrations()

    def handlers(self) -> Mapping[str, Callable[[Syscall], None]]:
        """Return what to call by the names of calls, once all detectors have seen them."""
        return {
            **self.processes.handlers(),
            **self.openings.handlers(),
            **self.registrations.handlers(),
            "close": self._closed,
        }

    def _closed(self, call: Syscall) -> None:
        self.openings.closed(call)
        self.registrations.closed(call)


class Pause(msgspec.Struct, frozen=True):
    """A second or more between two events of a trace, calls that block included."""

    before: Event
    #: When the next event began, nanoseconds since the epoch.
    until_ns: int


#: What to call with which calls, other events and pauses, by the names above or a call's.
Handlers: TypeAlias = Mapping[
    str, Callable[[Syscall], None] | Callable[[Event], None] | Callable[[Pause], None]
]


class Detector(Protocol):
    """Sees each event of one trace once, in the order of the trace, and tells at its end.

    A trace may have millions of events: memory must not grow with it, and only what
    :meth:`handlers` names is handed over.
    """

    kind: ClassVar[Kind]

    def __init__(self, trace: Trace) -> None: ...

    def handlers(self) -> Handlers:
        """Return what to call: by a call's name, :data:`ANY_CALL` and the like."""

    def findings(self) -> Iterable[Finding]:
        """Return what was found, once the trace has ended; the most telling first."""
