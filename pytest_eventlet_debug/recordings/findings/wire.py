"""Find packets that tell: resets, requests that got no answer or a late one, bytes sent twice.

The model is what tshark calls expert information. Beside it stands who caused a packet:
the call, greenthread and line of the trace that was made at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable
import re

from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.attribution import Call
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.packets import ACK
from pytest_eventlet_debug.recordings.packets import FIN
from pytest_eventlet_debug.recordings.packets import RST
from pytest_eventlet_debug.recordings.packets import SYN
from pytest_eventlet_debug.recordings.packets import Endpoint
from pytest_eventlet_debug.recordings.packets import Segment
from pytest_eventlet_debug.recordings.packets import dissect
from pytest_eventlet_debug.recordings.pcapng import Packet

LATE_NS = 1_000_000_000
"""An answer that takes longer is told."""
_MOST = 20
_CONNECTIONS = 10_000
_WRAP = 1 << 32
_HALF = 1 << 31

_REQUEST = re.compile(rb"([A-Z]{3,10} \S{1,60})\S* HTTP/1\.[01]\r?\n")


class _Side:
    """What one end of a connection has sent."""

    __slots__ = ("next", "sent")

    def __init__(self) -> None:
        self.next: int | None = None
        """The sequence number after the last byte."""
        self.sent = 0


class _Request:
    """A request on its way: who asked, when, and in which packet."""

    def __init__(self, text: str, packet: Packet, call: Call | None) -> None:
        self.text = text
        self.packet = packet
        self.call = call


class _Connection:
    """Both sides of a TCP connection, and the request that waits for an answer."""

    __slots__ = ("left", "request", "reset", "right")

    def __init__(self) -> None:
        self.left = _Side()
        self.right = _Side()
        self.request: tuple[Endpoint, _Request] | None = None
        self.reset = False


class Wire:
    """Looks at the packets of a test, in time order.

    :param calls: the socket calls of the same test; empty without a trace.
    """

    kind = "wire"

    def __init__(self, calls: Attribution) -> None:
        self._calls = calls
        self._connections: dict[tuple[Endpoint, Endpoint], _Connection] = {}
        self._found: list[Finding] = []
        self._refused: set[Endpoint] = set()

    def see(self, packet: Packet, segment: Segment | None) -> None:
        """Take in a packet.

        :param segment: what :func:`~pytest_eventlet_debug.recordings.packets.dissect` made of it.
        """
        if segment is None or segment.protocol != "tcp" or segment.quoted:
            return
        ends = min(segment.source, segment.target), max(segment.source, segment.target)
        if segment.flags & SYN and not segment.flags & ACK:
            if len(self._connections) == _CONNECTIONS:
                del self._connections[next(iter(self._connections))]
            self._connections[ends] = _Connection()
        connection = self._connections.get(ends)
        if connection is None:
            return  # older than the capture: what is missing of it looks like trouble
        if segment.flags & RST:
            self._on_reset(connection, packet, segment)
        elif segment.payload:
            self._on_data(connection, packet, segment)
        if segment.flags & FIN:
            self._on_end(connection, packet, segment)
        side = _side(connection, segment)
        length = segment.payload + bool(segment.flags & SYN) + bool(segment.flags & FIN)
        after = (segment.sequence + length) % _WRAP
        if side.next is None or (after - side.next) % _WRAP < _HALF:
            side.next = after
        side.sent += segment.payload

    def _on_reset(self, connection: _Connection, packet: Packet, segment: Segment) -> None:
        if connection.reset:
            return
        connection.reset = True
        if segment.flags & ACK and segment.sequence == 0:  # the answer to a SYN
            self._on_refused(packet, segment)
            return
        who = self._cause(segment, packet)
        waits = connection.request
        unanswered = ""
        if waits is not None and waits[0] == segment.target:
            unanswered = f", {waits[1].text} unanswered"
        what = f"{segment.source} reset the connection to {segment.target}{unanswered}"
        self._tell(f"{what}{who}", packet, what)

    def _on_refused(self, packet: Packet, segment: Segment) -> None:
        if segment.source not in self._refused:
            self._refused.add(segment.source)
            what = f"{segment.source} refused a connection: nobody listened there"
            self._tell(what, packet, what)

    def _on_data(self, connection: _Connection, packet: Packet, segment: Segment) -> None:
        side = _side(connection, segment)
        if side.next is not None:
            behind = (side.next - segment.sequence) % _WRAP
            # One byte again is a keep-alive, or asks whether the window has opened.
            if 0 < behind < _HALF and segment.payload > 1:
                what = f"{segment.source} sent {min(behind, segment.payload)} bytes once more"
                self._tell(f"{what} to {segment.target}", packet, what)
                return
        self._answered(connection, packet, segment)
        match = _REQUEST.match(packet.data, segment.at)
        if match is not None:
            text = match[1].decode("ascii", "replace")
            call = self._calls.sender(segment, packet.time_ns)
            connection.request = segment.source, _Request(text, packet, call)

    def _answered(self, connection: _Connection, packet: Packet, segment: Segment) -> None:
        if connection.request is None or connection.request[0] == segment.source:
            return
        request = connection.request[1]
        connection.request = None
        took_ns = packet.time_ns - request.packet.time_ns
        if took_ns >= LATE_NS:
            what = f"{request.text} was answered after {took_ns / 1e9:.2f} s"
            self._tell(f"{what}{self._cause(segment, packet)}", packet, what)

    def _on_end(self, connection: _Connection, packet: Packet, segment: Segment) -> None:
        waits = connection.request
        if waits is None or waits[0] == segment.source:
            return
        connection.request = None
        took = (packet.time_ns - waits[1].packet.time_ns) / 1e9
        what = (
            f"{segment.source} closed without an answer to {waits[1].text}, {took:.3f} s after it"
        )
        self._tell(f"{what}{self._cause(segment, packet)}", packet, what)

    def _cause(self, segment: Segment, packet: Packet) -> str:
        call = self._calls.sender(segment, packet.time_ns)
        if call is None:
            return ""
        whose = f" by greenthread {call.greenthread}" if call.greenthread else ""
        return f": {call.name}({call.fd}){whose}, {STRACE_FILE} line {call.line}"

    def _tell(self, title: str, packet: Packet, text: str) -> None:
        if len(self._found) < _MOST:
            evidence = (Evidence(text, CAPTURE_FILE, packet.number),)
            self._found.append(Finding(self.kind, title, evidence))

    def findings(self) -> list[Finding]:
        """Return what was found, in time order."""
        return self._found


def find(packets: Iterable[Packet], calls: Attribution) -> list[Finding]:
    """Return what the packets of a test tell.

    :param packets: in time order.
    :param calls: the socket calls of the same test.
    """
    wire = Wire(calls)
    for packet in packets:
        wire.see(packet, dissect(packet))
    return wire.findings()


def _side(connection: _Connection, segment: Segment) -> _Side:
    return connection.left if segment.source < segment.target else connection.right
