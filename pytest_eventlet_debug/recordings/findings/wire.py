"""Find packets that tell: resets, requests that got no answer or a late one, bytes sent twice.

The model is what tshark calls expert information. Beside it stands who caused a packet:
the call, greenthread and line of the trace that was made at the same time.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec.structs import replace

from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import span
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.attribution import Call
from pytest_eventlet_debug.recordings.findings.dns_exchange import DnsExchange
from pytest_eventlet_debug.recordings.findings.http_stream import HttpStream
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.packets import ACK
from pytest_eventlet_debug.recordings.packets import FIN
from pytest_eventlet_debug.recordings.packets import RST
from pytest_eventlet_debug.recordings.packets import SYN
from pytest_eventlet_debug.recordings.packets import Endpoint
from pytest_eventlet_debug.recordings.packets import Segment
from pytest_eventlet_debug.recordings.pcapng import Packet

#: An answer that takes longer is told, and so is a peer that takes in nothing for as long.
LATE_NS = 1_000_000_000
#: A message that goes on later than that may be waited for.
MISSING_NS = 500_000_000
_MOST = 20
_CONNECTIONS = 10_000
_WRAP = 1 << 32
_HALF = 1 << 31

_REQUEST = lazily(rb"([A-Z]{3,10} \S{1,60})\S* HTTP/1\.[01]\r?\n")


_FAILED = lazily(rb"HTTP/1\.[01] (5\d\d)\b")
#: The last line of a traceback at the end of an answer: what was raised.
_RAISED = lazily(
    rb"Traceback \(most recent call last\):\n(?:.*\n)*([A-Za-z_][\w.]*(?:: [ -~]{1,200})?)\s*\Z"
)


class _Side:
    """What one end of a connection has sent."""

    __slots__ = ("last", "next", "stream")

    def __init__(self) -> None:
        #: The last packet with data.
        self.last: Packet | None = None
        #: The sequence number after the last byte.
        self.next: int | None = None
        self.stream = HttpStream()


class _Request:
    """A request on its way: who asked, when, and in which packet."""

    def __init__(self, text: str, packet: Packet, call: Call | None) -> None:
        self.text = text
        self.packet = packet
        self.call = call


class _Connection:
    """Both sides of a TCP connection, and the request that waits for an answer."""

    __slots__ = ("asked", "client", "left", "request", "reset", "right")

    def __init__(self) -> None:
        self.left = _Side()
        self.right = _Side()
        #: Who spoke first. What looks like a request of the other's may have been answered before.
        self.client: Endpoint | None = None
        self.request: tuple[Endpoint, _Request] | None = None
        #: The method of the last request.
        self.asked = ""
        self.reset = False


class _Refused:
    """What an endpoint refused, and the place of what is said of that."""

    __slots__ = ("count", "index", "since_ns")

    def __init__(self, index: int, since_ns: int) -> None:
        self.index = index
        self.since_ns = since_ns
        self.count = 1


class Wire:
    """Looks at the packets of a test, in time order.

    :param calls: the socket calls of the same test; empty without a trace.
    :param died_ns: when the test's process died, if it did: the kernel closes and resets its
        connections then, which is nobody's doing.
    :param dying_ns: since when it may have died, where that is not known: of what happens from
        then on, only what data or a new connection follows is told.
    :param failed_ns: when the test failed, if it did: it may have waited for data until then.
    """

    kind: ClassVar[Kind] = "wire"

    def __init__(
        self,
        calls: Attribution,
        died_ns: int | None = None,
        dying_ns: int | None = None,
        failed_ns: int | None = None,
    ) -> None:
        self._calls = calls
        self._failed_ns = failed_ns
        self._died_ns = died_ns
        self._dying_ns = dying_ns
        self._lived_ns = 0
        self._connections: dict[tuple[Endpoint, Endpoint], _Connection] = {}
        self._found: list[tuple[int, Finding]] = []
        self._refused: dict[Endpoint, _Refused] = {}
        self._refused_queries: dict[Endpoint, _Refused] = {}
        self._dns = DnsExchange()
        self._full: dict[Endpoint, tuple[Packet, Segment]] = {}
        self._last_ns = 0

    def see(self, packet: Packet, segment: Segment | None) -> None:
        """Take in a packet.

        :param segment: what :func:`~pytest_eventlet_debug.recordings.packets.dissect` made of it.
        """
        if segment is None or (segment.quoted and not segment.refused):
            return
        if self._died_ns is not None and packet.time_ns > self._died_ns:
            return
        if self._failed_ns is not None and packet.time_ns > self._failed_ns:
            self._note_missing()
        if segment.quoted:
            self._see_refused_datagram(packet, segment)
            return
        if segment.protocol == "udp":
            self._see_datagram(packet, segment)
            return
        ends = min(segment.source, segment.target), max(segment.source, segment.target)
        if segment.flags & SYN and not segment.flags & ACK:
            remember(self._connections, ends, _Connection(), _CONNECTIONS)
        connection = self._connections.get(ends)
        if connection is None:
            return  # older than the capture: what is missing of it looks like trouble
        self._last_ns = packet.time_ns
        if segment.payload or segment.flags & SYN:
            self._lived_ns = packet.time_ns
        self._see_window(packet, segment)
        if segment.flags & SYN and segment.flags & ACK and segment.source in self._refused:
            self._on_accepted_at_last(packet, segment.source)
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

    def _see_datagram(self, packet: Packet, segment: Segment) -> None:
        data = packet.data[segment.at : segment.at + segment.payload]
        wrong = self._dns.see(segment.source, segment.target, data)
        if wrong is not None:
            self._lived_ns = packet.time_ns
            what = f"{segment.source} {wrong}"
            self._tell(f"{what}{self._cause(segment, packet)}", packet, what)

    def _see_refused_datagram(self, packet: Packet, segment: Segment) -> None:
        """Tell of DNS queries alone: who sends other datagrams may not care for their fate."""
        if segment.protocol != "udp":
            return
        data = packet.data[segment.at : segment.at + segment.payload]
        question = self._dns.refused(segment.source, segment.target, data)
        if question is not None:
            end = segment.target
            once = f"no socket took the DNS query for {question} at {end}"
            often = f"no socket took {{:,}} DNS queries at {end}"
            self._refuse(self._refused_queries, end, packet, once, often)

    def _see_window(self, packet: Packet, segment: Segment) -> None:
        """Take note of whether a packet's sender has room for more."""
        is_full = not segment.window and not segment.flags & (SYN | FIN | RST)
        if is_full:
            self._full.setdefault(segment.source, (packet, segment))
        elif self._full:
            for end in (
                (segment.source, segment.target) if segment.flags & RST else (segment.source,)
            ):
                full = self._full.pop(end, None)
                if full is not None:
                    self._was_full(*full, packet.time_ns)

    def _was_full(self, packet: Packet, segment: Segment, until_ns: int) -> None:
        took_ns = until_ns - packet.time_ns
        if took_ns >= LATE_NS:
            fd = self._calls.owner(segment)
            whose = f" (fd {fd})" if fd is not None else ""
            what = (
                f"{segment.source}{whose} accepted no data for {took_ns / 1e9:.2f} s, while "
                f"{segment.target} had more to send: nobody read, so its window was zero"
            )
            self._tell(what, packet, what)

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
        end = segment.source
        once = f"{end} refused a connection: nobody listened there"
        often = f"{end} refused {{:,}} connections: nobody listened there"
        self._refuse(self._refused, end, packet, once, often)

    def _refuse(
        self, known: dict[Endpoint, _Refused], end: Endpoint, packet: Packet, once: str, often: str
    ) -> None:
        """Count what an endpoint refuses, and say so once.

        :param often: has a place for the number.
        """
        refused = known.get(end)
        if refused is None:
            known[end] = _Refused(len(self._found), packet.time_ns)
            self._tell(once, packet, once)
        else:
            refused.count += 1
            self._retell(refused.index, often.format(refused.count))

    def _on_accepted_at_last(self, packet: Packet, end: Endpoint) -> None:
        """Say how long it took until somebody listened; what it refuses later is told apart."""
        refused = self._refused.pop(end)
        how_many = "a connection" if refused.count == 1 else f"{refused.count:,} connections"
        after = f"{span(packet.time_ns - refused.since_ns)} after"
        which = "that" if refused.count == 1 else "the first"
        what = (
            f"{end} refused {how_many}: nobody listened there until it accepted one {after} {which}"
        )
        self._retell(refused.index, what)

    def _on_data(self, connection: _Connection, packet: Packet, segment: Segment) -> None:
        side = _side(connection, segment)
        if side.next is not None:
            behind = (side.next - segment.sequence) % _WRAP
            # One byte again is a keep-alive, or asks whether the window has opened.
            if 0 < behind < _HALF and segment.payload > 1:
                what = f"{segment.source} retransmitted {min(behind, segment.payload)} bytes"
                self._tell(f"{what} to {segment.target}", packet, what)
                return
        if connection.client is None:
            connection.client = segment.source
        self._see_http(connection, packet, segment, side)
        side.last = packet
        self._answered(connection, packet, segment)
        match = _REQUEST.match(packet.data, segment.at)
        if match is not None and connection.client == segment.source:
            text = match[1].decode("ascii", "replace")
            call = self._calls.sender(segment, packet.time_ns)
            connection.request = segment.source, _Request(text, packet, call)

    def _see_http(
        self, connection: _Connection, packet: Packet, segment: Segment, side: _Side
    ) -> None:
        """Follow the messages of one side as long as every byte is there.

        And as long as requests come one by one: an answer is read by the method of its request.
        """
        stream = side.stream
        if stream.lost:
            return
        data = packet.data[segment.at : segment.at + segment.payload]
        if len(data) < segment.payload or side.next != segment.sequence:
            stream.lost = True
            return
        other = _other_side(connection, segment).stream
        is_request = stream.is_between and _REQUEST.match(data) is not None
        several = connection.asked and (connection.request is not None or not other.is_between)
        if is_request and several:
            stream.lost = other.lost = True
            return
        if is_request:
            connection.asked = data.partition(b" ")[0].decode("ascii")
        known = stream.requests + is_request
        wrong = stream.feed(data, connection.asked)
        if stream.requests > known:
            stream.lost = other.lost = True
        elif wrong is not None:
            self._tell(f"{segment.source}: {wrong}{self._cause(segment, packet)}", packet, wrong)

    def _answered(self, connection: _Connection, packet: Packet, segment: Segment) -> None:
        if connection.request is None or connection.request[0] == segment.source:
            return
        request = connection.request[1]
        connection.request = None
        took_ns = packet.time_ns - request.packet.time_ns
        failed = _FAILED.match(packet.data, segment.at)
        if failed is not None:
            raised = _RAISED.search(packet.data[segment.at : segment.at + segment.payload])
            if raised is not None:
                error = raised[1].decode("ascii", "backslashreplace")
                what = f"{request.text} was answered with {failed[1].decode()}: {error}"
                self._tell(f"{what}{self._cause(segment, packet)}", packet, what)
        if took_ns >= LATE_NS:
            what = f"{request.text} was answered after {took_ns / 1e9:.2f} s"
            self._tell(f"{what}{self._cause(segment, packet)}", packet, what)

    def _on_end(self, connection: _Connection, packet: Packet, segment: Segment) -> None:
        stream = _side(connection, segment).stream
        wrong = stream.broken_off()
        if wrong is not None and self._is_next(connection, segment):
            stream.lost = True
            what = f"{wrong} before {segment.source} closed"
            self._tell(f"{what}{self._cause(segment, packet)}", packet, what)
        waits = connection.request
        if waits is None or waits[0] == segment.source:
            return
        connection.request = None
        took = span(packet.time_ns - waits[1].packet.time_ns)
        what = f"{segment.source} closed without an answer to {waits[1].text}, {took} after it"
        self._tell(f"{what}{self._cause(segment, packet)}", packet, what)

    def _note_missing(self) -> None:
        """Say which messages had begun as the test failed, and had not gone on for a while."""
        failed_ns, self._failed_ns = self._failed_ns, None
        for ends, connection in self._connections.items():
            for source, side in zip(ends, (connection.left, connection.right), strict=True):
                missing = side.stream.missing() if not connection.reset else None
                if failed_ns is None or missing is None or side.last is None:
                    continue
                waited_ns = failed_ns - side.last.time_ns
                if waited_ns >= MISSING_NS:
                    what = f"{source}: {missing}, the last {span(waited_ns)} before the test failed"
                    self._tell(what, side.last, missing)

    @staticmethod
    def _is_next(connection: _Connection, segment: Segment) -> bool:
        """Say whether all that came before a packet has been seen, its own bytes included."""
        known = _side(connection, segment).next
        return known is not None and known == segment.sequence

    def _cause(self, segment: Segment, packet: Packet) -> str:
        call = self._calls.sender(segment, packet.time_ns)
        if call is None:
            return ""
        whose = f" by greenthread {call.greenthread}" if call.greenthread else ""
        return f": {call.name}({call.fd}){whose}, trace line {call.line}"

    def _tell(self, title: str, packet: Packet, text: str) -> None:
        if len(self._found) < _MOST:
            evidence = (Evidence(text, CAPTURE_FILE, packet.number),)
            self._found.append((packet.time_ns, Finding(self.kind, title, evidence)))

    def _retell(self, index: int, title: str) -> None:
        if index < len(self._found):
            time_ns, finding = self._found[index]
            self._found[index] = time_ns, replace(finding, title=title)

    def findings(self) -> list[Finding]:
        """Return what was found, in time order."""
        self._note_missing()
        for full in self._full.values():
            self._was_full(*full, self._last_ns)
        self._full.clear()
        if self._dying_ns is None:
            return [finding for _, finding in self._found]
        until_ns = max(self._dying_ns, self._lived_ns)
        return [finding for time_ns, finding in self._found if time_ns <= until_ns]


def _side(connection: _Connection, segment: Segment) -> _Side:
    return connection.left if segment.source < segment.target else connection.right


def _other_side(connection: _Connection, segment: Segment) -> _Side:
    return connection.right if segment.source < segment.target else connection.left
