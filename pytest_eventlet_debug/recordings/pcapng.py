"""Packets as blocks of a pcapng file: written, and read back.

Files are little-endian and count nanoseconds, as this plugin writes them; of others the
reader says so. Source: https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import os
import struct
from typing import NamedTuple
from typing import Protocol
from typing import TypeAlias

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101

#: Bytes of the longest packet: no packet is cut.
SNAPLEN = 262144

#: An option's length has 16 bits.
_OPTION_BYTES = 65535

# Types of blocks.
_SECTION = 0x0A0D0D0A
_INTERFACE = 1
_STATISTICS = 5
_PACKET = 6
_JOURNAL = 9
_SECRETS = 10

_BYTE_ORDER = 0x1A2B3C4D
_NANOSECONDS = b"\x09"
_TLS_KEYS = 0x544C534B

# Codes of options.
_OPT_COMMENT = 1
_SHB_USERAPPL = 4
_IF_NAME = 2
_IF_TSRESOL = 9
_ISB_IFRECV = 4
_ISB_IFDROP = 5

_PACKET_HEAD = struct.Struct("<7I")
_LENGTH = struct.Struct("<I")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def section(comment: str, application: str, *more: str) -> bytes:
    """Return a section header block, which begins a file.

    :param comment: the text that Wireshark shows for the file; here a test's node id.
    :param application: the name and version of the program that writes the file.
    :param more: further comments.
    """
    comments = [(_OPT_COMMENT, _text(each)) for each in (comment, *more)]
    options = [*comments, (_SHB_USERAPPL, _text(application))]
    head = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1)  # version 1.0, length unknown
    return _block(_SECTION, head + _options(options))


def interface(name: str, linktype: int = LINKTYPE_ETHERNET) -> bytes:
    """Return an interface description block with time stamps in nanoseconds."""
    options = [(_IF_NAME, _text(name)), (_IF_TSRESOL, _NANOSECONDS)]
    return _block(_INTERFACE, struct.pack("<HHI", linktype, 0, SNAPLEN) + _options(options))


def packet(time_ns: int, data: bytes, length: int, comment: str | None = None) -> bytes:
    """Return an enhanced packet block of the first interface.

    :param time_ns: nanoseconds since the epoch.
    :param data: the bytes captured, from the Ethernet header on.
    :param length: how many bytes the packet had on the wire.
    """
    options = _options([(_OPT_COMMENT, _text(comment))]) if comment else b""
    padding = _PADDING[len(data) & 3]
    total = 32 + len(data) + len(padding) + len(options)
    head = _PACKET_HEAD.pack(
        _PACKET, total, 0, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length
    )
    return b"".join((head, data, padding, options, _LENGTH.pack(total)))


def statistics(time_ns: int, received: int, dropped: int) -> bytes:
    """Return an interface statistics block.

    :param time_ns: when it was counted, in nanoseconds since the epoch.
    :param received: packets that arrived, those dropped included.
    :param dropped: packets the kernel had no room for. Wireshark and capinfos look for
        them in ``isb_ifdrop``, where dumpcap puts what libpcap calls ``ps_drop``.
    """
    options = [
        (_ISB_IFRECV, struct.pack("<Q", received)),
        (_ISB_IFDROP, struct.pack("<Q", dropped)),
    ]
    head = struct.pack("<3I", 0, time_ns >> 32, time_ns & 0xFFFFFFFF)
    return _block(_STATISTICS, head + _options(options))


def journal(time_ns: int, fields: Mapping[str, str]) -> bytes:
    """Return a systemd journal export block: a row of text between the packets.

    Wireshark shows ``MESSAGE`` and ``SYSLOG_IDENTIFIER``. The block's clock counts
    microseconds, so the time is rounded down to these. The format of the entry is
    https://systemd.io/JOURNAL_EXPORT_FORMATS/.

    :param time_ns: nanoseconds since the epoch.
    :param fields: names in capital letters; a newline in a value becomes a space.
    """
    lines = [f"__REALTIME_TIMESTAMP={time_ns // 1000}"]
    lines += [f"{name}={value}" for name, value in fields.items()]
    text = "".join(line.replace("\n", " ") + "\n" for line in lines)
    entry = text.encode("utf-8", "backslashreplace")
    return _block(_JOURNAL, entry + _PADDING[len(entry) & 3])


def tls_secrets(keys: bytes) -> bytes:
    """Return a decryption secrets block, to stand before the packets that need it.

    :param keys: lines in the format of SSLKEYLOGFILE,
        https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-02.html.
    """
    head = struct.pack("<II", _TLS_KEYS, len(keys))
    return _block(_SECRETS, head + keys + _PADDING[len(keys) & 3])


def _block(kind: int, body: bytes) -> bytes:
    total = _LENGTH.pack(12 + len(body))
    return _LENGTH.pack(kind) + total + body + total


def _options(options: Iterable[tuple[int, bytes]]) -> bytes:
    parts = [
        struct.pack("<HH", code, len(value)) + value + _PADDING[len(value) & 3]
        for code, value in options
    ]
    return b"".join(parts) + struct.pack("<HH", 0, 0)


def _text(text: str) -> bytes:
    encoded = text.encode("utf-8", "backslashreplace")
    return encoded[:_OPTION_BYTES].decode("utf-8", "ignore").encode("utf-8")


class PcapngError(Exception):
    """A capture cannot be read, or not to its end; one line, with the place."""


class Section(NamedTuple):
    """The beginning of a file."""

    comment: str | None
    application: str | None


class Interface(NamedTuple):
    """Where the packets that follow were captured."""

    name: str | None
    linktype: int


class Packet(NamedTuple):
    """One captured packet."""

    #: Its place among the packets and journal entries of the file, as in Wireshark, from 1.
    number: int
    #: Nanoseconds since the epoch.
    time_ns: int
    #: The bytes that were captured, from the link layer's header on.
    data: bytes
    #: How many bytes it had on the wire.
    length: int
    linktype: int
    comment: str | None


class Statistics(NamedTuple):
    """What was counted while capturing; ``None`` where the file does not say."""

    received: int | None
    dropped: int | None


Block: TypeAlias = Section | Interface | Packet | Statistics


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


#: No writer makes blocks that large; a broken length would read all the file at once.
_BLOCK_BYTES = 1 << 27

#: What Wireshark shows as a row of its own.
_NUMBERED = (_PACKET, _JOURNAL)

_BLOCK_HEAD = struct.Struct("<II")
_PACKET_BODY = struct.Struct("<5I")
_OPTION_HEAD = struct.Struct("<HH")


def read(path: str | os.PathLike[str]) -> Iterator[Block]:
    """Yield the blocks of a capture in the order in which they stand in it.

    :param path: the file; it may be packed.
    :raises PcapngError: the file cannot be opened, is none of ours, or breaks off. All that
        is readable has been yielded then.
    """
    # The helper, which is to start fast, writes captures and reads none.
    from pathlib import Path

    from pytest_eventlet_debug.recordings import packing

    try:
        with packing.open_to_read(Path(path)) as file:
            yield from parse(file)
    except OSError as error:
        raise PcapngError(f"Cannot read the capture {os.fspath(path)!r}: {error}") from error


def packets(blocks: Iterable[Block]) -> Iterator[Packet]:
    """Yield the packets alone."""
    return (block for block in blocks if type(block) is Packet)


def parse(file: _Source) -> Iterator[Block]:
    """Yield the blocks of an open capture; memory does not grow with the file.

    Journal entries and keys, which are there for Wireshark, are skipped.

    :raises PcapngError: as :func:`read` does.
    """
    reader = _Reader()
    for at, kind, body in _raw_blocks(file):
        try:
            block = reader.block(kind, body)
        except struct.error:
            raise PcapngError(f"The block at byte {at} is too short for its type") from None
        except ValueError as error:
            raise PcapngError(f"The block at byte {at} {error}") from None
        if block is not None:
            yield block


def _raw_blocks(file: _Source) -> Iterator[tuple[int, int, bytes]]:
    """Yield the place, the type and the body of each block."""
    at = 0
    while head := file.read(8):
        if not at and head[:4] != _LENGTH.pack(_SECTION):
            break
        if len(head) < 8:
            raise PcapngError(f"The capture breaks off at byte {at}")
        kind, total = _BLOCK_HEAD.unpack(head)
        if total < 12 or total % 4 or total > _BLOCK_BYTES:
            raise PcapngError(f"The block at byte {at} claims to have {total} bytes")
        rest = file.read(total - 8)
        if len(rest) < total - 8 or rest[-4:] != head[4:]:
            raise PcapngError(f"The capture breaks off in the block at byte {at}")
        yield at, kind, rest[:-4]
        at += total
    if not at:
        raise PcapngError(f"This is no capture file: it begins with {head[:4]!r}")


class _Reader:
    """Makes sense of one block after the other.

    A block that makes none is a ValueError, whose text goes on where "the block" began.
    """

    def __init__(self) -> None:
        self._linktypes: list[int] = []
        self._number = 0

    def block(self, kind: int, body: bytes) -> Block | None:
        if kind in _NUMBERED:
            self._number += 1
        if kind == _PACKET:
            return self._packet(body)
        if kind == _SECTION:
            return self._section(body)
        if kind == _INTERFACE:
            return self._interface(body)
        if kind == _STATISTICS:
            options = _read_options(body, 12)
            return Statistics(_count(options, _ISB_IFRECV), _count(options, _ISB_IFDROP))
        return None

    def _packet(self, body: bytes) -> Packet:
        interface, high, low, captured, length = _PACKET_BODY.unpack_from(body)
        if interface >= len(self._linktypes):
            raise ValueError("names an unknown interface")
        end = _PACKET_BODY.size + captured
        if end > len(body):
            raise ValueError("holds a packet longer than its block")
        options = _read_options(body, (end + 3) & ~3) if len(body) >= end + 8 else {}
        return Packet(
            self._number,
            high << 32 | low,
            body[_PACKET_BODY.size : end],
            length,
            self._linktypes[interface],
            _read_text(options, _OPT_COMMENT),
        )

    def _section(self, body: bytes) -> Section:
        (order,) = _LENGTH.unpack_from(body)
        if order != _BYTE_ORDER:
            raise ValueError("has a different byte order than this plugin writes")
        self._linktypes = []
        options = _read_options(body, 16)
        return Section(_read_text(options, _OPT_COMMENT), _read_text(options, _SHB_USERAPPL))

    def _interface(self, body: bytes) -> Interface:
        (linktype,) = struct.unpack_from("<H", body)
        options = _read_options(body, 8)
        if options.get(_IF_TSRESOL) != _NANOSECONDS:
            raise ValueError("does not count nanoseconds, as this plugin does")
        self._linktypes.append(linktype)
        return Interface(_read_text(options, _IF_NAME), linktype)


def _read_options(body: bytes, at: int) -> dict[int, bytes]:
    """Return the first value of each option of a block's body."""
    found: dict[int, bytes] = {}
    while at + 4 <= len(body):
        code, size = _OPTION_HEAD.unpack_from(body, at)
        if not code:
            break
        found.setdefault(code, body[at + 4 : at + 4 + size])
        at += 4 + (size + 3 & ~3)
    return found


def _read_text(options: Mapping[int, bytes], code: int) -> str | None:
    value = options.get(code)
    return None if value is None else value.decode("utf-8", "replace")


def _count(options: Mapping[int, bytes], code: int) -> int | None:
    value = options.get(code)
    return int.from_bytes(value, "little") if value is not None and len(value) == 8 else None
