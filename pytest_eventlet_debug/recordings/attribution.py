"""Say which system call sent a packet, and which one took it in.

A trace made with ``strace -yy`` names the connection behind each descriptor, and TCP
numbers its bytes: the byte at which a packet begins leads to the call that wrote it.
Packets without payload belong to the ``connect``, ``shutdown`` or ``close`` that made the
kernel send them; those that the kernel sends of itself (acknowledgements) to none.

strace notes a call's entry before the kernel runs it, on the clock of the packets, so no
packet is older than its call.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
import functools
import operator
import re
from typing import NamedTuple

import msgspec

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.packets import ACK
from pytest_eventlet_debug.recordings.packets import FIN
from pytest_eventlet_debug.recordings.packets import RST
from pytest_eventlet_debug.recordings.packets import SYN
from pytest_eventlet_debug.recordings.packets import Endpoint
from pytest_eventlet_debug.recordings.packets import Protocol
from pytest_eventlet_debug.recordings.packets import Segment
from pytest_eventlet_debug.recordings.packets import endpoint
from pytest_eventlet_debug.recordings.trace_events import Syscall

_SENDS = frozenset(
    (
        *("sendto", "sendmsg", "sendmmsg", "send", "write", "writev", "pwritev2"),
        *("sendfile", "sendfile64"),
    )
)
_RECEIVES = frozenset(("recvfrom", "recvmsg", "recv", "read", "readv", "preadv2"))
_CONTROLS = frozenset(("connect", "shutdown", "close", "dup2", "dup3", "exit_group"))

_SOCKET = lazily(r"(\d{1,10})<(TCP|UDP)(?:v6)?:\[(.*?)\]>", re.ASCII)
_END = r"(?:\[([0-9a-fA-F:.%\w]*)\]|([\d.]+)):(\d{1,5})"
_PAIR = lazily(rf"{_END}->{_END}\Z", re.ASCII)
_ONE = lazily(rf"{_END}\Z", re.ASCII)
_INET = lazily(
    r'sa_family=AF_INET, sin_port=htons\((\d{1,5})\), sin_addr=inet_addr\("([\d.]+)"\)', re.ASCII
)
_INET6 = lazily(
    r"sa_family=AF_INET6, sin6_port=htons\((\d{1,5})\),.*?"
    r'inet_pton\(AF_INET6, "([^"]*)"',
    re.ASCII,
)
_MESSAGE_BYTES = lazily(r"msg_len=(\d{1,10})", re.ASCII)
_SPLICE_TARGET = lazily(r", (\d{1,10})<(TCP)(?:v6)?:\[(.*?)\]>", re.ASCII)

#: A call this much older than a packet without payload did not cause it.
_CONTROL_NS = 20_000_000

#: Strace's own work on a call falls between its entry and the start of what ``-T`` counts.
_SLACK_NS = 1_000_000

_WRAP = 1 << 32


class Call(NamedTuple):
    """A system call on a socket, as far as packets are concerned."""

    #: Line of the trace, from 1.
    line: int
    start_ns: int
    pid: int
    name: str
    fd: int
    greenthread: str | None
    #: The line of Python that made it.
    at: str | None = None


#: The time of a call's entry, to search calls by.
_entered = operator.attrgetter("start_ns")


class Socket(msgspec.Struct, frozen=True):
    """The socket that a call works on, as strace decoded it."""

    fd: int
    protocol: Protocol
    local: Endpoint | None
    remote: Endpoint | None


Flow = tuple[Protocol, Endpoint, Endpoint]


def socket_of(args: str) -> Socket | None:
    """Return the TCP or UDP socket that is a call's first argument, if it is one.

    :param args: the arguments as strace wrote them with ``-yy``.
    """
    match = _SOCKET.match(args)
    return None if match is None else _decoded(*match.groups())


def address_in(args: str) -> Endpoint | None:
    """Return the first IP address that a call names in a ``sockaddr``."""
    match = _INET.search(args) or _INET6.search(args)
    return None if match is None else _endpoint(match[2], match[1])


@functools.lru_cache(maxsize=1 << 12)  # a descriptor is named in call after call
def _decoded(fd: str, protocol: str, inside: str) -> Socket:
    local = remote = None
    pair = _PAIR.match(inside)
    one = None if pair is not None else _ONE.match(inside)
    if pair is not None:
        local = _endpoint(pair[1] or pair[2], pair[3])
        remote = _endpoint(pair[4] or pair[5], pair[6])
    elif one is not None:
        local = _endpoint(one[1] or one[2], one[3])
    return Socket(int(fd), "tcp" if protocol == "TCP" else "udp", local, remote)


def _endpoint(address: str, port: str) -> Endpoint | None:
    try:
        return endpoint(address, int(port))
    except ValueError:
        return None


class _Stream:
    """The bytes that one side of a TCP connection wrote, or read, and by which calls."""

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.calls: list[Call] = []
        self.total = 0
        #: The sequence number of byte 0.
        self.base: int | None = None

    def add(self, call: Call, size: int) -> None:
        self.starts.append(self.total)
        self.calls.append(call)
        self.total += size

    def at(self, offset: int) -> Call | None:
        index = bisect_right(self.starts, offset) - 1
        if index < 0 or offset >= self.total:
            return None
        return self.calls[index]

    def before(self, time_ns: int) -> int:
        """Return how many of the calls had been entered at that time."""
        return bisect_right(self.calls, time_ns, key=_entered)

    def offset(self, index: int) -> int:
        """Return the number of the byte with which a call begins, or would begin."""
        return self.starts[index] if index < len(self.starts) else self.total


class _Datagram(msgspec.Struct, frozen=True):
    call: Call
    size: int
    target: Endpoint | None


class Attribution:
    """Knows the socket calls of a trace and finds those that belong to a packet.

    First :meth:`add` all calls, then ask :meth:`sender` and :meth:`receiver` for each
    packet in time order.
    """

    def __init__(self, calls: Iterable[Syscall] = ()) -> None:
        self._sent: dict[Flow, _Stream] = {}
        self._received: dict[Flow, _Stream] = {}
        self._datagrams: dict[Endpoint, list[_Datagram]] = {}
        self._controls: dict[Flow, list[Call]] = {}
        self._connects: dict[Endpoint, list[Call]] = {}
        self._owners: dict[Flow, int] = {}
        #: Ports of the sockets that appear in the trace.
        self.ports: set[int] = set()
        for call in calls:
            self.add(call)

    def add(self, event: Syscall) -> None:
        """Take note of a system call, in the order of the trace."""
        name = event.name
        socket = socket_of(event.args)
        if socket is None:
            if name == "splice":
                match = _SPLICE_TARGET.search(event.args)
                if match is not None and event.value and event.value > 0:
                    self._send(event, _decoded(*match.groups()))
            return
        for end in (socket.local, socket.remote):
            if end is not None:
                self.ports.add(end.port)
        if socket.local is not None and socket.remote is not None:
            self._owners.setdefault((socket.protocol, socket.local, socket.remote), socket.fd)
        if name in _SENDS:
            self._send(event, socket)
        elif name in _RECEIVES:
            self._receive(event, socket)
        elif name in _CONTROLS:
            self._control(event, socket)

    def _send(self, event: Syscall, socket: Socket) -> None:
        call = _call(event, socket.fd)
        size = event.value
        if event.name == "sendmmsg" and size is not None:
            size = sum(int(each) for each in _MESSAGE_BYTES.findall(event.args))
        if socket.protocol == "udp":
            target = socket.remote or address_in(event.args)
            if target is not None:
                self.ports.add(target.port)
            source = None
            if socket.local is not None and event.errno in (None, "ECONNREFUSED"):
                source = _any(socket.local)
            elif event.errno is None and target is not None:
                source = Endpoint("", 0)  # sending binds: until then strace has no address to show
            if source is not None:
                sent = _Datagram(call, size if size is not None else -1, target)
                self._datagrams.setdefault(source, []).append(sent)
            return
        if socket.local is None or socket.remote is None:
            return
        flow: Flow = ("tcp", socket.local, socket.remote)
        if size is None and event.errno is None:
            size = _WRAP  # it never returned: what comes now is its
        if size is not None and size > 0:
            self._sent.setdefault(flow, _Stream()).add(call, size)

    def _receive(self, event: Syscall, socket: Socket) -> None:
        if socket.local is None or socket.remote is None or socket.protocol != "tcp":
            return
        if event.value is not None and event.value > 0 and "MSG_PEEK" not in event.args:
            flow: Flow = ("tcp", socket.remote, socket.local)
            self._received.setdefault(flow, _Stream()).add(_call(event, socket.fd), event.value)

    def _control(self, event: Syscall, socket: Socket) -> None:
        call = _call(event, socket.fd)
        if event.name == "connect":
            target = address_in(event.args)
            if target is not None:
                self.ports.add(target.port)
                self._connects.setdefault(target, []).append(call)
        elif socket.local is not None and socket.remote is not None:
            flow: Flow = (socket.protocol, socket.local, socket.remote)
            self._controls.setdefault(flow, []).append(call)

    def sender(self, segment: Segment, time_ns: int) -> Call | None:
        """Return the call that had this packet sent; ``None`` if it is the kernel's own."""
        if segment.quoted:
            return None
        flow: Flow = (segment.protocol, segment.source, segment.target)
        if segment.protocol == "udp":
            return self._datagram(segment, time_ns)
        self._note_base(flow, segment, time_ns)
        if segment.payload:
            stream = self._sent.get(flow)
            return None if stream is None else _find(stream, segment, time_ns)
        if segment.flags & SYN:
            if segment.flags & ACK:
                return None
            return _latest(self._connects.get(segment.target), time_ns)
        if segment.flags & (FIN | RST):
            return _latest(self._controls.get(flow), time_ns)
        return None

    def owner(self, segment: Segment) -> int | None:
        """Return the descriptor of the socket that a packet comes from."""
        return self._owners.get((segment.protocol, segment.source, segment.target))

    def receiver(self, segment: Segment) -> Call | None:
        """Return the call that took in the first byte of a TCP packet, if one did."""
        if segment.protocol != "tcp" or not segment.payload or segment.quoted:
            return None
        flow: Flow = ("tcp", segment.source, segment.target)
        stream = self._received.get(flow)
        if stream is None or stream.base is None:
            return None
        return stream.at((segment.sequence - stream.base) % _WRAP)

    def _note_base(self, flow: Flow, segment: Segment, time_ns: int) -> None:
        """Learn which sequence number a stream's first byte has."""
        sent, received = self._sent.get(flow), self._received.get(flow)
        if segment.flags & SYN:
            for stream in (sent, received):
                if stream is not None:
                    # An earlier connection may have had the same two ends.
                    earlier = stream.before(time_ns)
                    stream.base = (segment.sequence + 1 - stream.offset(earlier)) % _WRAP
            return
        if not segment.payload:
            return
        if sent is not None and sent.base is None:
            # The connection is older than the capture: begin with the call under way.
            known = sent.before(time_ns)
            if known:
                sent.base = (segment.sequence - sent.starts[known - 1]) % _WRAP
        if received is not None and received.base is None:
            following = received.before(time_ns)
            if following < len(received.starts):
                received.base = (segment.sequence - received.starts[following]) % _WRAP

    def _datagram(self, segment: Segment, time_ns: int) -> Call | None:
        best: Call | None = None
        for key in (segment.source, Endpoint("", segment.source.port), Endpoint("", 0)):
            known = self._datagrams.get(key, [])
            index = bisect_right(known, time_ns, key=lambda each: each.call.start_ns)
            for each in reversed(known[max(0, index - 64) : index]):
                if each.size not in (-1, segment.payload) or each.target not in (
                    None,
                    segment.target,
                ):
                    continue
                if best is None or each.call.start_ns > best.start_ns:
                    best = each.call
                break
        return best


def _any(local: Endpoint) -> Endpoint:
    """Return where the datagrams of a local address are kept; a wildcard is any address."""
    return Endpoint("", local.port) if local.address in ("0.0.0.0", "::") else local


def _call(event: Syscall, fd: int) -> Call:
    return Call(event.line, event.start_ns, event.pid, event.name, fd, event.greenthread, event.at)


def _find(stream: _Stream, segment: Segment, time_ns: int) -> Call | None:
    if stream.base is None:
        return None
    call = stream.at((segment.sequence - stream.base) % _WRAP)
    return call if call is not None and call.start_ns <= time_ns + _SLACK_NS else None


def _latest(calls: list[Call] | None, time_ns: int) -> Call | None:
    """Return the last call that was entered before, if that was just before."""
    if not calls:
        return None
    index = bisect_right(calls, time_ns, key=_entered) - 1
    if index < 0 or time_ns - calls[index].start_ns > _CONTROL_NS:
        return None
    return calls[index]
