"""Packets as bytes of a file: pcapng, and the older pcap with nanoseconds.

Pure functions, little-endian, linktype Ethernet. Sources:
https://www.ietf.org/archive/id/draft-ietf-opsawg-pcapng-02.html for pcapng,
https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html for pcap.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import struct

LINKTYPE_ETHERNET = 1
LINKTYPE_RAW = 101

#: Bytes of the longest packet: no packet is cut.
SNAPLEN = 262144

#: An option's length has 16 bits.
_OPTION_BYTES = 65535

_OPT_COMMENT = 1
_SHB_USERAPPL = 4
_IF_NAME = 2
_IF_TSRESOL = 9
_ISB_IFRECV = 4
_ISB_IFDROP = 5

_PACKET_HEAD = struct.Struct("<7I")
_LENGTH = struct.Struct("<I")
_PCAP_HEAD = struct.Struct("<4I")
_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")


def section(comment: str, application: str, *more: str) -> bytes:
    """Return a section header block, which begins a file.

    :param comment: the text that Wireshark shows for the file; here a test's node id.
    :param application: the name and version of the program that writes the file.
    :param more: further comments.
    """
    comments = [(_OPT_COMMENT, _text(each)) for each in (comment, *more)]
    options = [*comments, (_SHB_USERAPPL, _text(application))]
    head = struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)  # version 1.0, length unknown
    return _block(0x0A0D0D0A, head + _options(options))


def interface(name: str, linktype: int = LINKTYPE_ETHERNET) -> bytes:
    """Return an interface description block with time stamps in nanoseconds."""
    options = [(_IF_NAME, _text(name)), (_IF_TSRESOL, b"\x09")]
    return _block(1, struct.pack("<HHI", linktype, 0, SNAPLEN) + _options(options))


def packet(time_ns: int, data: bytes, length: int, comment: str | None = None) -> bytes:
    """Return an enhanced packet block of the first interface.

    :param time_ns: nanoseconds since the epoch.
    :param data: the bytes captured, from the Ethernet header on.
    :param length: how many bytes the packet had on the wire.
    """
    options = _options([(_OPT_COMMENT, _text(comment))]) if comment else b""
    padding = _PADDING[len(data) & 3]
    total = 32 + len(data) + len(padding) + len(options)
    head = _PACKET_HEAD.pack(6, total, 0, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length)
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
    return _block(5, head + _options(options))


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
    return _block(9, entry + _PADDING[len(entry) & 3])


def tls_secrets(keys: bytes) -> bytes:
    """Return a decryption secrets block, to stand before the packets that need it.

    :param keys: lines in the format of SSLKEYLOGFILE,
        https://www.ietf.org/archive/id/draft-ietf-tls-keylogfile-02.html.
    """
    head = struct.pack("<II", 0x544C534B, len(keys))
    return _block(10, head + keys + _PADDING[len(keys) & 3])


def pcap_header(linktype: int = LINKTYPE_ETHERNET) -> bytes:
    """Return the header of a pcap file with nanoseconds (magic 0xa1b23c4d)."""
    return struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, SNAPLEN, linktype)


def pcap_packet(time_ns: int, data: bytes, length: int) -> bytes:
    """Return one packet of a pcap file; the parameters are those of :func:`packet`."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return _PCAP_HEAD.pack(seconds, nanoseconds, len(data), length) + data


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
