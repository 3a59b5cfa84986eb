"""Say who closed a descriptor that is used afterwards, and who reset a connection.

``EBADF`` tells that a descriptor is closed, ``ECONNRESET`` and ``EPIPE`` that the peer
has gone; who did it stands earlier in the trace. Where the number has been given out
again, a greenthread that still waited on the old one gets what belongs to the new one.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
import re
from typing import ClassVar
from typing import TypeVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import Event
from pytest_eventlet_debug.recordings.strace_log import Syscall

_MOST = 20
#: Connections and descriptors whose end is remembered.
_REMEMBERED = 4096

_USES = names(
    """read readv write writev send sendto sendmsg recv recvfrom recvmsg accept accept4 connect
    shutdown getsockname getpeername setsockopt getsockopt listen bind fstat lseek ioctl fcntl
    close"""
)
_GONE = frozenset(("ECONNRESET", "EPIPE"))

_DESCRIPTOR = re.compile(r"(\d{1,10})(<(?:->|[^<>]|<[^<>]*>)*>)?")
_FLOW = re.compile(r"<(?:TCP|TCPv6):\[(.+)->(.+)\]>\Z")
_FAILED = frozenset(("EBADF", *_GONE))


_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Closed:
    """The detector of descriptors that are used after their end."""

    kind: ClassVar[str] = "closed"

    def __init__(self, about: About) -> None:
        self._processes = Processes(about.pid)
        self._closed: dict[tuple[int | None, int], Syscall] = {}
        self._flows: dict[tuple[str, str], Syscall] = {}
        self._listeners: dict[tuple[int | None, str | None], int] = {}
        self._found: dict[tuple[object, ...], Finding] = {}

    def handlers(self) -> Mapping[str, Callable[[Syscall], None] | Callable[[Event], None]]:
        ends = dict.fromkeys(("close", "shutdown"), self._end)
        accepts = dict.fromkeys(("accept", "accept4"), self._accept)
        uses = dict.fromkeys(_USES, self._call)
        return {**self._processes.handlers(), **uses, **accepts, **ends}

    def _accept(self, call: Syscall) -> None:
        self._call(call)
        who = (self._processes.process(call.pid), call.greenthread)
        number = call.args.partition("<")[0]
        known = self._listeners.get(who)
        if number.isdecimal():
            if known != int(number):
                _remember(self._listeners, who, int(number))
        elif call.errno == "EBADF" and number[0:1] == "-" and known is not None:
            # Python's socket object gives -1 once it is closed.
            self._bad(call, known, -1)

    def _call(self, call: Syscall) -> None:
        errno = call.errno
        if errno is None or errno not in _FAILED:
            return
        match = _DESCRIPTOR.match(call.args)
        if match is None or len(self._found) == _MOST:
            return
        if errno == "EBADF":
            self._bad(call, int(match[1]), int(match[1]))
        else:
            self._gone(call, match)

    def _end(self, call: Syscall) -> None:
        if call.errno is not None:
            self._call(call)
            return
        args = call.args
        if "<TCP" in args:
            match = _DESCRIPTOR.match(args)
            flow = _FLOW.match(match[2] or "") if match is not None else None
            if flow is not None:
                _remember(self._flows, (flow[1], flow[2]), call)
        number = args.partition("<")[0]
        if call.name == "close" and number.isdigit():
            _remember(self._closed, (self._processes.process(call.pid), int(number)), call)

    def _bad(self, call: Syscall, fd: int, given: int) -> None:
        end = self._closed.get((self._processes.process(call.pid), fd))
        if end is not None:
            self._tell(call, f"{call.name}({given}) = -1 EBADF", f"{_shown(end)} was closed", end)

    def _gone(self, call: Syscall, match: re.Match[str]) -> None:
        flow = _FLOW.match(match[2] or "")
        end = self._flows.get((flow[2], flow[1])) if flow is not None else None
        if end is not None:
            did = "closed" if end.name == "close" else "shut down"
            what = f"{call.name}({match[0]}) = -1 {call.errno}"
            self._tell(call, what, f"its other end {_shown(end)} was {did}", end)

    def _tell(self, call: Syscall, what: str, how: str, end: Syscall) -> None:
        if (call.name, end.line) in self._found:
            return
        seconds = (call.start_ns - end.start_ns) / 1e9
        user = self._processes.describe(call.pid, call.greenthread)
        closer = self._processes.describe(end.pid, end.greenthread)
        self._found[call.name, end.line] = Finding(
            self.kind,
            f"{what} by {user}: {how} {seconds:.3f} s before by {closer} (line {end.line})",
            (
                Evidence(what, STRACE_FILE, call.line),
                Evidence(f"{end.name}({_shown(end)})", STRACE_FILE, end.line),
            ),
            counts={"seconds": seconds},
        )

    def findings(self) -> Iterable[Finding]:
        return self._found.values()


def _shown(call: Syscall) -> str:
    """Return a call's descriptor as strace names it."""
    match = _DESCRIPTOR.match(call.args)
    return match[0] if match is not None else call.args


def _remember(known: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Keep a value; the oldest goes when there are too many."""
    known.pop(key, None)
    if len(known) == _REMEMBERED:
        del known[next(iter(known))]
    known[key] = value
