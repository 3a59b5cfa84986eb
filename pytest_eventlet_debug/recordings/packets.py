"""Read the headers of packets. Sources: RFC 791, 8200, 9293, 768, 792 and 4443."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import ipaddress
import struct
from typing import Literal
from typing import NamedTuple

from pytest_eventlet_debug.recordings.pcapng import LINKTYPE_ETHERNET
from pytest_eventlet_debug.recordings.pcapng import LINKTYPE_RAW
from pytest_eventlet_debug.recordings.pcapng import Block
from pytest_eventlet_debug.recordings.pcapng import Packet
from pytest_eventlet_debug.recordings.pcapng import packets

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


Protocol = Literal["tcp", "udp"]


class Endpoint(NamedTuple):
    """One end of a flow; IPv4 mapped into IPv6 is written as IPv4."""

    address: str
    port: int

    def __str__(self) -> str:
        where = f"[{self.address}]" if ":" in self.address else self.address
        return f"{where}:{self.port}"


class Segment(NamedTuple):
    """A TCP segment or UDP datagram: who sends what to whom."""

    protocol: Protocol
    source: Endpoint
    target: Endpoint
    #: Bytes of payload on the wire, which may be more than were captured.
    payload: int
    #: Where in the packet's bytes the payload begins.
    at: int
    #: TCP: number of the first byte; UDP: 0.
    sequence: int
    flags: int
    #: Whether an ICMP error tells of it, so that it is not sent here.
    quoted: bool
    #: TCP: how much its sender has room for; scaled, but 0 is 0.
    window: int = 0
    #: Whether the ICMP error says that no socket took it at its port.
    refused: bool = False


_PORTS = struct.Struct("!HH")
_TCP_HEAD = struct.Struct("!HHI4xBBH")
#: Type and code of "port unreachable", by protocol.
_PORT_UNREACHABLE = {1: (3, 3), 58: (1, 4)}
_ICMP_ERRORS = {1: frozenset((3, 4, 5, 11, 12)), 58: frozenset((1, 2, 3, 4))}
_VLANS = (0x8100, 0x88A8)


class Dissected(NamedTuple):
    """A packet with its headers; ``None`` for what :func:`dissect` does not know."""

    packet: Packet
    segment: Segment | None


def dissected(blocks: Iterable[Block]) -> Iterator[Dissected]:
    """Yield the packets among the blocks of a file, with their headers."""
    for packet in packets(blocks):
        yield Dissected(packet, dissect(packet))


def dissect(packet: Packet) -> Segment | None:
    """Read the headers of a packet as far as its TCP or UDP ports.

    Of an ICMP error the packet that it is about is read.

    :return: ``None`` for what is no TCP or UDP over IP, is cut before its ports, or is a
        later fragment.
    """
    data = packet.data
    at = 0
    if packet.linktype == LINKTYPE_ETHERNET:
        if len(data) < 14:
            return None
        kind = data[12] << 8 | data[13]
        at = 14
        while kind in _VLANS and len(data) >= at + 4:
            kind = data[at + 2] << 8 | data[at + 3]
            at += 4
        if kind not in (0x0800, 0x86DD):
            return None
    elif packet.linktype != LINKTYPE_RAW:
        return None
    return _network(data, at, quoted=False)


def _network(data: bytes, at: int, *, quoted: bool) -> Segment | None:
    if len(data) < at + 20:
        return None
    version = data[at] >> 4
    if version == 4:
        header = (data[at] & 15) * 4
        total, protocol = data[at + 2] << 8 | data[at + 3], data[at + 9]
        if header < 20 or (data[at + 6] & 0x1F) | data[at + 7]:
            return None
        source, target = data[at + 12 : at + 16], data[at + 16 : at + 20]
        size = (total or len(data) - at) - header  # 0: segmentation is the card's work
        at += header
    elif version == 6 and len(data) >= at + 40:
        size, protocol = data[at + 4] << 8 | data[at + 5], data[at + 6]
        source, target = data[at + 8 : at + 24], data[at + 24 : at + 40]
        at += 40
        size = size or len(data) - at
        while protocol in (0, 43, 60) and len(data) >= at + 8:
            protocol, extra = data[at], (data[at + 1] + 1) * 8
            at += extra
            size -= extra
    else:
        return None
    return _transport(data, at, protocol, max(size, 0), source, target, quoted)


def _transport(
    data: bytes, at: int, protocol: int, size: int, source: bytes, target: bytes, quoted: bool
) -> Segment | None:
    if protocol == 6:
        if len(data) < at + 16:
            if not quoted or len(data) < at + 8:
                return None
            from_port, to_port = _PORTS.unpack_from(data, at)
            sequence = offset = flags = window = 0
        else:
            head = _TCP_HEAD.unpack_from(data, at)
            from_port, to_port, sequence, offset, flags, window = head
        header = (offset >> 4) * 4
        if header < 20 and not quoted:
            return None
        return Segment(
            "tcp",
            Endpoint(_address(source), from_port),
            Endpoint(_address(target), to_port),
            max(size - header, 0),
            at + header,
            sequence,
            flags,
            quoted,
            window,
        )
    if protocol == 17:
        if len(data) < at + 8:
            return None
        from_port, to_port = _PORTS.unpack_from(data, at)
        return Segment(
            "udp",
            Endpoint(_address(source), from_port),
            Endpoint(_address(target), to_port),
            max(size - 8, 0),
            at + 8,
            0,
            0,
            quoted,
        )
    if not quoted and len(data) > at + 1 and data[at] in _ICMP_ERRORS.get(protocol, ()):
        about = _network(data, at + 8, quoted=True)
        if about is not None and (data[at], data[at + 1]) == _PORT_UNREACHABLE[protocol]:
            return about._replace(refused=True)
        return about
    return None


_addresses: dict[bytes, str] = {}


def _address(raw: bytes) -> str:
    known = _addresses.get(raw)
    if known is None:
        if len(_addresses) > 10_000:
            _addresses.clear()
        known = _addresses[raw] = _written(ipaddress.ip_address(raw))
    return known


def endpoint(address: str, port: int) -> Endpoint:
    """Return an endpoint in the form that :func:`dissect` gives.

    :raises ValueError: that is no IP address.
    """
    return Endpoint(_written(ipaddress.ip_address(address.partition("%")[0])), port)


def _written(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if address.version == 6 else None
    return str(mapped or address)
