"""Find greenthreads that may read the answer to what another one has asked for and given up.

A client that keeps connections sends a request and waits for its answer. If a Timeout or
``kill()`` ends that wait, and the connection goes back to its pool as it is, the answer is still to
come: whoever gets the connection next sends a request of its own, and reads that first.

Only of a client is it certain that what it sends before it tries to read asks for something. So
nothing is told of a connection whose ``connect()`` the trace does not have.

An AMQP client sends much that has no answer, and gets much that it has not asked for. There it
takes a method that has an answer, and a method that answers it.
"""

from __future__ import annotations

from collections.abc import Iterable
import os
from typing import ClassVar

import msgspec

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings import amqp
from pytest_eventlet_debug.recordings.findings.channels import DATA
from pytest_eventlet_debug.recordings.findings.channels import READS
from pytest_eventlet_debug.recordings.findings.channels import WRITES
from pytest_eventlet_debug.recordings.findings.channels import End
from pytest_eventlet_debug.recordings.findings.channels import data_of
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.findings.channels import transfer
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.own_waits import own
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.strace_log import unescape
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

_MOST = 5


class _Asked(msgspec.Struct):
    """What was sent on a connection of which nothing has been read since."""

    end: End
    #: The first send of the greenthread that asked.
    call: Syscall
    #: Its last attempt to read, which found nothing.
    tried: Syscall | None = None
    #: Whether it has run after that.
    ran: bool = False
    #: What another one sent after that.
    next: Syscall | None = None
    #: What the first send asked for, on a connection to an AMQP broker.
    method: amqp.Method | None = None
    #: What of a frame's header has been read without the rest.
    header: bytes = b""


class StaleAnswers:
    """The detector of answers that may be those to the requests of others."""

    kind: ClassVar[Kind] = "stale answer"

    def __init__(self, trace: Trace) -> None:
        self._passed = trace.about.passed
        self._main: int | None = None
        #: The descriptors that were connected, and whether the other side is an AMQP broker.
        self._clients: dict[int, bool] = {}
        self._asked: dict[tuple[str, str], _Asked] = {}
        #: What each greenthread waits for.
        self._waiting: dict[str, _Asked] = {}
        self._found: list[Finding] = []

    def handlers(self) -> Handlers:
        if self._passed:
            return {}
        return {
            **dict.fromkeys(WRITES, self._sent),
            **dict.fromkeys(READS, self._read),
            "connect": self._connected,
            "close": self._closed,
            ANY_OTHER: self._other,
        }

    def _other(self, event: Event) -> None:
        if type(event) is Phase:
            self._main = event.pid
        elif type(event) is Switch and event.pid == self._main:
            asked = self._waiting.pop(event.greenthread, None)
            if asked is not None:
                asked.ran = True

    def _end(self, call: Syscall) -> End | None:
        """Return the connection of a client that a greenthread's call is about, if any."""
        who = call.greenthread
        if not self._clients or call.pid != self._main or who is None or is_hub(who):
            return None
        end = end_of(call.args)
        return end if end is not None and end.fd in self._clients else None

    def _connected(self, call: Syscall) -> None:
        if call.pid == self._main and call.fd is not None:
            remember(self._clients, call.fd, False)

    def _sent(self, call: Syscall) -> None:
        end = self._end(call)
        if end is None or (call.value or 0) <= 0:
            return
        who = call.greenthread
        asked = self._asked.get((end.channel, end.side))
        has_tried = asked is not None and asked.tried is not None
        if asked is not None and has_tried and (asked.call.greenthread == who or not asked.ran):
            # It goes on with the connection, or shares it.
            self._forget(end)
            return
        method = None
        if self._to_broker(end.fd, call):
            method = next((each for each in amqp.methods(_bytes(call)) if each.is_answered), None)
            if method is None:
                return
        if asked is None or not has_tried:
            if asked is None or asked.call.greenthread != who:
                asked = _Asked(end, call, method=method)
                remember(self._asked, (end.channel, end.side), asked)
        elif asked.next is None and _channel(asked.method) == _channel(method):
            asked.next = call

    def _to_broker(self, fd: int, call: Syscall) -> bool:
        if not self._clients[fd] and _bytes(call).startswith(amqp.PROTOCOL):
            self._clients[fd] = True
        return self._clients[fd]

    def _read(self, call: Syscall) -> None:
        end = self._end(call)
        asked = self._asked.get((end.channel, end.side)) if end is not None else None
        if end is None or asked is None:
            return
        who = call.greenthread
        if call.errno == "EAGAIN" and who is not None:
            if who == asked.call.greenthread:
                asked.tried, asked.ran = call, False
                remember(self._waiting, who, asked)
            return
        if asked.next is not None and asked.next.greenthread == who and (call.value or 0) > 0:
            if not _may_answer(asked, call):
                return
            self._tell(asked, asked.next, call)
        self._forget(end)

    def _forget(self, end: End) -> None:
        self._asked.pop((end.channel, end.side), None)

    def _closed(self, call: Syscall) -> None:
        end = end_of(call.args) if self._clients and call.pid == self._main else None
        if end is not None:  # whoever closes it, if only the hub, which drops what nobody holds
            self._forget(end)
            self._clients.pop(end.fd, None)

    def _tell(self, asked: _Asked, sent: Syscall, read: Syscall) -> None:
        tried = asked.tried
        if tried is None or len(self._found) == _MOST:
            return
        self._found.append(
            Finding(
                self.kind,
                f"on {asked.end.shown} greenthread {sent.greenthread} sent {data_of(sent)}"
                f"{own(sent.where)} and got {data_of(read)} (line {read.line}): that, or its "
                f"beginning, may be the answer to {data_of(asked.call)} of greenthread "
                f"{asked.call.greenthread}, which sent that{own(asked.call.where)} (line "
                f"{asked.call.line}), waited (line {tried.line}), and ran again without reading it",
                tuple(
                    Evidence(transfer(each), STRACE_FILE, each.line)
                    for each in (sent, asked.call, tried, read)
                ),
                "likely",
            )
        )

    def findings(self) -> Iterable[Finding]:
        return self._found


def _bytes(call: Syscall) -> bytes:
    """Return what a call transferred, as far as strace shows it."""
    data = DATA.search(call.args)
    return os.fsencode(unescape(data[1])) if data is not None else b""


def _channel(method: amqp.Method | None) -> int | None:
    return None if method is None else method.channel


def _may_answer(asked: _Asked, read: Syscall) -> bool:
    """Return whether what was read may be the answer; a broker sends unasked, too."""
    if asked.method is None:
        return True
    data = asked.header + _bytes(read)
    asked.header = data if len(data) <= amqp.HEADER_SIZE else b""
    return any(each.answers(asked.method) for each in amqp.methods(data))
