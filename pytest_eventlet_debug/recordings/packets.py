"""Read capture files, pcapng and pcap, one block at a time, and the headers of packets.

Sources: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html,
https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html, RFC 791, 8200, 9293, 768,
792 and 4443. Files of either byte order are read, whoever wrote them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import ipaddress
import os
import struct
from typing import BinaryIO
from typing import Literal
from typing import NamedTuple
from typing import TypeAlias

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101

FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


class PacketsError(Exception):
    """A capture file cannot be read, or not to its end; one line, with the place."""


class Section(NamedTuple):
    """The beginning of a file; a pcapng file may hold several."""

    comment: str | None
    application: str | None


class Interface(NamedTuple):
    """Where the packets that follow were captured."""

    name: str | None
    linktype: int


class Packet(NamedTuple):
    """One captured packet."""

    number: int
    """Its place among the packets of the file; the first is 1."""
    time_ns: int
    """Nanoseconds since the epoch."""
    data: bytes
    """The bytes that were captured, from the link layer's header on."""
    length: int
    """How many bytes it had on the wire."""
    linktype: int
    comment: str | None


class Statistics(NamedTuple):
    """What the capturing program counted; ``None`` where it does not say."""

    received: int | None
    dropped: int | None


class Journal(NamedTuple):
    """An entry of a systemd journal among the packets."""

    time_ns: int
    fields: dict[str, str]


class Secrets(NamedTuple):
    """Keys that open encrypted packets; for TLS in the format of SSLKEYLOGFILE."""

    kind: str
    """Four letters: ``TLSK`` for TLS."""
    data: bytes


Block: TypeAlias = Section | Interface | Packet | Statistics | Journal | Secrets

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
    payload: int
    """Bytes of payload on the wire, which may be more than were captured."""
    at: int
    """Where in the packet's bytes the payload begins."""
    sequence: int
    """TCP: number of the first byte; UDP: 0."""
    acknowledged: int
    flags: int
    quoted: bool
    """Whether an ICMP error tells of it, so that it is not sent here."""


#: No writer makes blocks that large; a broken length would read all the file at once.
_BLOCK_BYTES = 1 << 27

_NANOSECONDS = 1_000_000_000
_MAGICS = {
    b"\xd4\xc3\xb2\xa1": ("<", 1000),
    b"\xa1\xb2\xc3\xd4": (">", 1000),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
    b"\xa1\xb2\x3c\x4d": (">", 1),
}
_SECTION_TYPE = b"\x0a\x0d\x0d\x0a"


def read(path: str | os.PathLike[str]) -> Iterator[Block]:
    """Yield the blocks of a capture file in the order in which they stand in it.

    :raises PacketsError: the file cannot be opened, is none, or breaks off. All that is
        readable has been yielded then.
    """
    try:
        with open(path, "rb") as file:
            yield from parse(file)
    except OSError as error:
        raise PacketsError(f"Cannot read the capture {os.fspath(path)!r}: {error}") from error


def packets(blocks: Iterable[Block]) -> Iterator[Packet]:
    """Yield the packets alone."""
    return (block for block in blocks if type(block) is Packet)


def parse(file: BinaryIO) -> Iterator[Block]:
    """Yield the blocks of an open capture file; memory does not grow with the file.

    Blocks of types that are not known here are skipped, as the formats demand.

    :raises PacketsError: as :func:`read` does.
    """
    magic = file.read(4)
    if magic == _SECTION_TYPE:
        return _pcapng(file)
    if magic in _MAGICS:
        return _pcap(file, *_MAGICS[magic])
    raise PacketsError(f"This is no capture file: it begins with {magic!r}")


def _pcap(file: BinaryIO, order: str, scale: int) -> Iterator[Block]:
    head = file.read(20)
    if len(head) < 20:
        raise PacketsError("The capture breaks off in its header")
    linktype = struct.unpack(order + "HHiIII", head)[5] & 0xFFFF
    yield Section(None, None)
    yield Interface(None, linktype)
    unpack = struct.Struct(order + "4I").unpack
    number = 0
    while head := file.read(16):
        if len(head) < 16:
            raise PacketsError(f"The capture breaks off in the header of packet {number + 1}")
        seconds, fraction, captured, length = unpack(head)
        if captured > _BLOCK_BYTES:
            raise PacketsError(f"Packet {number + 1} claims to have {captured} bytes")
        data = file.read(captured)
        if len(data) < captured:
            raise PacketsError(f"The capture breaks off in packet {number + 1}")
        number += 1
        time_ns = seconds * _NANOSECONDS + fraction * scale
        yield Packet(number, time_ns, data, length, linktype, None)


class _Source(NamedTuple):
    """An interface of a pcapng section, as its packets need it."""

    linktype: int
    snaplen: int
    time_ns: Callable[[int], int]


def _pcapng(file: BinaryIO) -> Iterator[Block]:
    order = "<"
    sources: list[_Source] = []
    number = 0
    at = 0
    kind_bytes = _SECTION_TYPE
    epb = struct.Struct("<5I").unpack_from
    while kind_bytes:
        rest = file.read(4)
        if len(kind_bytes) < 4 or len(rest) < 4:
            raise PacketsError(f"The capture breaks off at byte {at}")
        begin = b""
        if kind_bytes == _SECTION_TYPE:
            begin = file.read(4)
            if begin == b"\x4d\x3c\x2b\x1a":
                order = "<"
            elif begin == b"\x1a\x2b\x3c\x4d":
                order = ">"
            else:
                raise PacketsError(f"The section at byte {at} has no byte order")
            epb = struct.Struct(order + "5I").unpack_from
        (total,) = struct.unpack(order + "I", rest)
        if total < 12 or total % 4 or total > _BLOCK_BYTES:
            raise PacketsError(f"The block at byte {at} claims to have {total} bytes")
        body = begin + file.read(total - 8 - len(begin))
        if len(body) < total - 8 or body[-4:] != rest:
            raise PacketsError(f"The capture breaks off in the block at byte {at}")
        (kind,) = struct.unpack(order + "I", kind_bytes)
        try:
            if kind == 6:
                source_id, high, low, captured, length = epb(body)
                source = sources[source_id]
                end = 20 + captured
                if end > len(body) - 4:
                    raise PacketsError(f"The packet at byte {at} is longer than its block")
                comment = None
                if len(body) - 4 - end >= 8:
                    comment = _comment(body, (end + 3) & ~3, order)
                number += 1
                yield Packet(
                    number,
                    source.time_ns(high << 32 | low),
                    body[20:end],
                    length,
                    source.linktype,
                    comment,
                )
            elif kind == 0x0A0D0D0A:
                sources = []
                options = _options(body, 16, order)
                yield Section(_text(options.get(1)), _text(options.get(4)))
            elif kind == 1:
                linktype, _, snaplen = struct.unpack_from(order + "HHI", body)
                options = _options(body, 8, order)
                sources.append(_Source(linktype, snaplen, _clock(options, order)))
                yield Interface(_text(options.get(2)), linktype)
            elif kind == 3:
                (length,) = struct.unpack_from(order + "I", body)
                source = sources[0]
                captured = min(length, source.snaplen or length, len(body) - 8)
                number += 1
                yield Packet(number, 0, body[4 : 4 + captured], length, source.linktype, None)
            elif kind == 2:
                source_id, _, high, low, captured, length = struct.unpack_from(
                    order + "HHIIII", body
                )
                source = sources[source_id]
                number += 1
                time_ns = source.time_ns(high << 32 | low)
                data = body[20 : min(20 + captured, len(body) - 4)]
                yield Packet(number, time_ns, data, length, source.linktype, None)
            elif kind == 5:
                options = _options(body, 12, order)
                yield Statistics(_count(options.get(4), order), _count(options.get(5), order))
            elif kind == 9:
                yield _journal(body[:-4])
            elif kind == 10:
                kind_of, size = struct.unpack_from(order + "II", body)
                letters = struct.pack(">I", kind_of).decode("latin-1")
                yield Secrets(letters, body[8 : min(8 + size, len(body) - 4)])
        except IndexError:
            raise PacketsError(f"The block at byte {at} names an unknown interface") from None
        except struct.error:
            raise PacketsError(f"The block at byte {at} is too short for its type") from None
        at += total
        kind_bytes = file.read(4)


def _options(body: bytes, at: int, order: str) -> dict[int, bytes]:
    """Return the first value of each option of a block's body."""
    found: dict[int, bytes] = {}
    unpack = struct.Struct(order + "HH").unpack_from
    end = len(body) - 4
    while at + 4 <= end:
        code, size = unpack(body, at)
        if not code:
            break
        found.setdefault(code, body[at + 4 : min(at + 4 + size, end)])
        at += 4 + (size + 3 & ~3)
    return found


def _comment(body: bytes, at: int, order: str) -> str | None:
    return _text(_options(body, at, order).get(1))


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _count(value: bytes | None, order: str) -> int | None:
    if value is None or len(value) != 8:
        return None
    (count,) = struct.unpack(order + "Q", value)
    return int(count)


def _clock(options: dict[int, bytes], order: str) -> Callable[[int], int]:
    """Return the function from an interface's units of time to nanoseconds."""
    resolution = (options.get(9) or b"\x06")[0]
    offset_ns = 0
    offset = options.get(14)
    if offset is not None and len(offset) == 8:
        offset_ns = struct.unpack(order + "q", offset)[0] * _NANOSECONDS
    units = 2 ** (resolution & 0x7F) if resolution & 0x80 else 10**resolution
    if units == _NANOSECONDS and not offset_ns:
        return int
    return lambda time: time * _NANOSECONDS // units + offset_ns


def _journal(body: bytes) -> Journal:
    """Read an entry of the Journal Export Format, https://systemd.io/JOURNAL_EXPORT_FORMATS/."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(body):
        end = body.find(b"\n", at)
        if end < 0:
            break
        name, equals, value = body[at:end].partition(b"=")
        at = end + 1
        if not equals and name:
            size = int.from_bytes(body[at : at + 8], "little")
            value = body[at + 8 : at + 8 + size]
            at += 8 + size + 1
        if name:
            fields[name.decode("utf-8", "replace")] = value.decode("utf-8", "replace")
    when = fields.get("__REALTIME_TIMESTAMP", "")
    known = when.isascii() and when.isdigit() and len(when) <= 20
    return Journal(int(when) * 1000 if known else 0, fields)


_IP_HEAD = struct.Struct("!HBBHII")
_PORTS = struct.Struct("!HH")
_TCP_HEAD = struct.Struct("!HHIIBB")
_ICMP_ERRORS = {1: frozenset((3, 4, 5, 11, 12)), 58: frozenset((1, 2, 3, 4))}
_ETHERTYPE_AT = 12
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
        if len(data) < at + 14:
            if not quoted or len(data) < at + 8:
                return None
            from_port, to_port = _PORTS.unpack_from(data, at)
            sequence = acknowledged = offset = flags = 0
        else:
            from_port, to_port, sequence, acknowledged, offset, flags = _TCP_HEAD.unpack_from(
                data, at
            )
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
            acknowledged,
            flags,
            quoted,
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
            0,
            quoted,
        )
    if not quoted and len(data) > at and data[at] in _ICMP_ERRORS.get(protocol, ()):
        return _network(data, at + 8, quoted=True)
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
