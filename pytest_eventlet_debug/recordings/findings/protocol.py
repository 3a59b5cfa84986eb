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

    def __init__(self, about: About) -> None: ...

    def handlers(self) -> Handlers:
        """Return what to call: by a call's name, :data:`ANY_CALL` and the like."""

    def findings(self) -> Iterable[Finding]:
        """Return what was found, once the trace has ended; the most telling first."""
