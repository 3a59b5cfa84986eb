"""Find connections that a test waits for, and that no process has accepted.

The kernel completes a connection as soon as there is a listener. A client can connect, and send,
though the server never calls ``accept()``: it has stopped, it is held up, or another listener
shares its port, as ``SO_REUSEPORT`` permits, and was given the connection.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar
from typing import TypeAlias

import msgspec

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import ACCEPTS
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.channels import READS
from pytest_eventlet_debug.recordings.findings.channels import WRITES
from pytest_eventlet_debug.recordings.findings.inherited import Inherited
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.own_waits import OwnWaits
from pytest_eventlet_debug.recordings.findings.own_waits import Wait
from pytest_eventlet_debug.recordings.findings.own_waits import own
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Gap
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import Unparsed

#: A server may take as long to accept a connection.
MIN_NS = 500_000_000
_MOST = 5

_COPIES = ("dup", "dup2", "dup3", "fcntl")
_WAITS = READS | WRITES | POLLS | {"epoll_ctl"}
#: How an ``accept()`` ends that finds nobody yet.
_TRIES = frozenset(("EAGAIN", "EINTR"))
_PORT = lazily(r"sin6?_port=htons\((\d+)\)")
_LOCAL = lazily(r"\d+<TCP\w*:\[[^>]*:(\d+)\]>")
_PAIR = lazily(r"\d+<TCP\w*:\[[^>]*:(\d+)->[^>]*:(\d+)\]>")

#: A process, and a descriptor of it.
_Key: TypeAlias = tuple[int, int | None]


class _Listener(msgspec.Struct):
    """A socket that listens."""

    fd: int | None
    port: int
    listen: Syscall
    accepted: int = 0
    #: The call that accepted last, or failed to.
    last: Syscall | None = None

    def __str__(self) -> str:
        count = f"accepted {self.accepted} others" if self.accepted > 1 else "accepted none"
        if self.accepted == 1:
            count = "accepted one other"
        if self.last is not None and self.last.errno is not None:
            count += f", its last {self.last.name}() failed with {self.last.errno}"
            count += f"{own(self.last.where)} (line {self.last.line})"
        return f"{self.fd}, made{own(self.listen.where)}, {count}"


class NotAccepted:
    """The detector of connections that nobody accepts."""

    kind: ClassVar[Kind] = "not accepted"

    def __init__(self, trace: Trace) -> None:
        self._passed = trace.about.passed
        self._until_ns = trace.about.until_ns
        self._main: int | None = None
        self._processes = trace.processes
        self._waits = OwnWaits(self._processes)
        self._inherited = Inherited(self._processes)
        #: The ports of ``bind()``, by process and descriptor.
        self._bound: dict[_Key, int] = {}
        #: The ports of ``connect()`` of the test process, by descriptor, with the line.
        self._connected: dict[int | None, tuple[int, int]] = {}
        self._listeners: dict[_Key, _Listener] = {}
        #: Ports of which not all is known.
        self._unsure: set[int] = set()
        self._accepted: dict[tuple[int, int], None] = {}
        self._is_cut = False
        self._last_ns = 0

    def handlers(self) -> Handlers:
        if self._passed:
            return {}
        return {
            **dict.fromkeys(_WAITS, self._waited),
            **dict.fromkeys(ACCEPTS, self._accept),
            "bind": self._bind,
            "listen": self._listen,
            "getsockname": self._learn,
            "connect": self._connect,
            "close": self._close,
            "close_range": self._inherited.drop_all,
            **dict.fromkeys(_COPIES, self._copy),
            ANY_OTHER: self._other,
        }

    def _other(self, event: Event) -> None:
        if isinstance(event, Gap):
            self._is_cut = True
        elif isinstance(event, Exit):
            self._inherited.end(event)
        elif not isinstance(event, Unparsed | Syscall):
            self._last_ns = event.time_ns
            if type(event) is Phase:
                self._main = event.pid
            elif type(event) is Switch and self._main in (None, event.pid):
                self._waits.ran(event)

    def _waited(self, call: Syscall) -> None:
        if call.pid == self._main and (self._listeners or self._inherited):
            self._last_ns = call.start_ns
            self._waits.register(call)
            self._waits.see(call)

    def _key(self, call: Syscall) -> _Key:
        """Return the process that makes a call, and the descriptor that this is about."""
        return self._processes.process(call.pid) or 0, call.fd

    def _bind(self, call: Syscall) -> None:
        port = _PORT.search(call.args)
        if call.errno is None and port is not None:
            remember(self._bound, self._key(call), int(port[1]))

    def _listen(self, call: Syscall) -> None:
        key = self._key(call)
        if call.errno is None and key in self._bound and key not in self._listeners:
            remember(self._listeners, key, _Listener(call.fd, self._bound.pop(key), call))
            self._learn(call)

    def _learn(self, call: Syscall) -> None:
        """Learn a port that the kernel chose."""
        listener, local = self._listeners.get(self._key(call)), _LOCAL.match(call.args)
        if listener is not None and listener.port == 0 and local is not None:
            listener.port = int(local[1])

    def _accept(self, call: Syscall) -> None:
        self._learn(call)
        if call.errno in _TRIES or (call.errno is None and call.value is None):
            return
        listener = self._listeners.get(self._key(call))
        if listener is None:  # a forked process has it of the test process
            listener = self._listeners.get((self._processes.main or 0, call.fd))
        if listener is not None:
            listener.last = call
        if call.errno is not None:
            return
        pair = _PAIR.match(call.ret or "")
        if pair is not None:
            remember(self._accepted, (int(pair[1]), int(pair[2])), None)
        elif listener is not None:
            self._unsure.add(listener.port)
        if listener is not None:
            listener.accepted += 1

    def _connect(self, call: Syscall) -> None:
        port = _PORT.search(call.args)
        if call.pid == self._main and port is not None and call.errno in (None, "EINPROGRESS"):
            remember(self._connected, call.fd, (call.line, int(port[1])))

    def _close(self, call: Syscall) -> None:
        if call.errno is not None:
            return
        key = self._key(call)
        self._bound.pop(key, None)
        listener = self._listeners.pop(key, None)
        if listener is not None:
            if listener.port not in self._unsure and key[0] == (self._processes.main or 0):
                self._inherited.close(
                    listener.fd, listener.port, str(listener), listener.listen, call
                )
            self._unsure.add(listener.port)  # it may have taken the connection with it
        elif self._processes.children():
            self._inherited.drop(call)
        if call.pid == self._main:
            self._waits.register(call)

    def _copy(self, call: Syscall) -> None:
        if call.errno is None and self._key(call) in self._listeners:
            self._inherited.copy(call)

    def findings(self) -> Iterable[Finding]:
        if self._is_cut:
            return  # the call that accepted it may be missing
        found = 0
        waits = list(self._waits.for_data(self._main))
        for wait in waits:
            waited_ns = self._end_ns(wait) - wait.since_ns
            listeners = self._for(wait)
            inherited = "" if listeners else self._held(wait)
            if not (listeners or inherited) or waited_ns < MIN_NS:
                continue
            first = listeners[0] if listeners else None
            if first is None:
                which = inherited
            elif len(listeners) == 1:
                which = f"the listener {first}{self._instead(first, wait, waits)}"
            else:
                which = f"port {first.port} has {len(listeners)} listeners, "
                which += ", and ".join(map(str, listeners))
            yield Finding(
                self.kind,
                f"{wait.who} waited for {waited_ns / 1e9:.2f} s for {wait.shown}{own(wait.where)}, "
                f"a connection that nobody accepted: {which}",
                (Evidence(wait.shown, STRACE_FILE, wait.line),),
                counts={"seconds": waited_ns / 1e9},
            )
            found += 1
            if found == _MOST:
                return

    def _end_ns(self, wait: Wait) -> int:
        return (wait.end.start_ns if wait.end is not None else self._until_ns) or self._last_ns

    def _instead(self, listener: _Listener, client: Wait, waits: Iterable[Wait]) -> str:
        """Say in words for what a greenthread waits instead of accepting, if that is known."""
        last = listener.last
        if last is None or last.pid != self._main or last.greenthread is None:
            return ""
        server = self._processes.describe(last.pid, last.greenthread)
        for each in waits:
            begin_ns = max(client.since_ns, each.since_ns)
            shared_ns = min(self._end_ns(client), self._end_ns(each)) - begin_ns
            if (
                each is not client
                and each.who == server
                and each.line > last.line
                and shared_ns >= MIN_NS
            ):
                return (
                    f", and {server}, which accepted there last, waited meanwhile for {each.shown}"
                    f"{own(each.where)} (line {each.line})"
                )
        return ""

    def _unanswered(self, wait: Wait) -> tuple[int, int]:
        """Return the line that connects what is waited for, and the port; 0 if it is accepted."""
        pair = _PAIR.match(wait.shown)
        line, port = self._connected.get(int(wait.shown.partition("<")[0]), (0, 0))
        if pair is None or port != int(pair[2]) or line > wait.line:
            return 0, 0
        return (0, 0) if (port, int(pair[1])) in self._accepted else (line, port)

    def _held(self, wait: Wait) -> str:
        """Say who has the listener that a connection waits at, if it is closed here."""
        line, port = self._unanswered(wait)
        if port == 0 or any(each.port == port for each in self._listeners.values()):
            return ""
        return self._inherited.holder(port, line)

    def _for(self, wait: Wait) -> list[_Listener]:
        """Return the listeners that a connection may wait at; none if it does not."""
        line, port = self._unanswered(wait)
        if port == 0 or port in self._unsure:
            return []
        all_of_port = [each for each in self._listeners.values() if each.port == port]
        return all_of_port if any(each.listen.line < line for each in all_of_port) else []
