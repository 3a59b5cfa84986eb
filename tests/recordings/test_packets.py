"""Capture files of every kind, and any bytes that are none."""

from __future__ import annotations

import io
from pathlib import Path
import shutil
import struct
import subprocess

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from pytest_eventlet_debug.recordings import packets
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.recordings.packets import Endpoint
from pytest_eventlet_debug.recordings.packets import Interface
from pytest_eventlet_debug.recordings.packets import Journal
from pytest_eventlet_debug.recordings.packets import Packet
from pytest_eventlet_debug.recordings.packets import PacketsError
from pytest_eventlet_debug.recordings.packets import Secrets
from pytest_eventlet_debug.recordings.packets import Section
from pytest_eventlet_debug.recordings.packets import Segment
from pytest_eventlet_debug.recordings.packets import Statistics

TIME_NS = 1_700_000_000_123_456_789
ETHERNET = bytes(12)
V4 = bytes.fromhex("7f0000017f000002")
V6 = bytes(15) + b"\1" + bytes(15) + b"\2"


def blocks(raw: bytes) -> list[packets.Block]:
    return list(packets.parse(io.BytesIO(raw)))


def ip4(protocol: int, payload: bytes, options: bytes = b"", fragment: int = 0) -> bytes:
    first = 0x45 + len(options) // 4
    total = 20 + len(options) + len(payload)
    head = struct.pack("!BBHHHBBH", first, 0, total, 0, fragment, 64, protocol, 0)
    return ETHERNET + b"\x08\x00" + head + V4 + options + payload


def ip6(protocol: int, payload: bytes, source: bytes = V6) -> bytes:
    head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return ETHERNET + b"\x86\xdd" + head + source + payload


def tcp(payload: bytes, flags: int = packets.ACK) -> bytes:
    return struct.pack("!HHIIBBHHH", 1, 2, 3, 4, 0x50, flags, 0, 0, 0) + payload


UDP = struct.pack("!4H", 53, 5353, 8 + 3, 0) + b"abc"


def segment(data: bytes, linktype: int = packets.LINKTYPE_ETHERNET) -> Segment | None:
    return packets.dissect(Packet(1, TIME_NS, data, len(data), linktype, None))


def test_what_we_write_is_read_back() -> None:
    raw = b"".join(
        [
            pcapng.section("a::b[é]", "us 1", "more"),
            pcapng.interface("lo"),
            pcapng.tls_secrets(b"CLIENT_RANDOM 1 2\n"),
            pcapng.journal(TIME_NS, {"SYSLOG_IDENTIFIER": "strace", "MESSAGE": "a\nb = \udc80"}),
            pcapng.packet(TIME_NS, b"12345", 9, "sent by fd 5"),
            pcapng.packet(TIME_NS + 1, b"1234", 4),
            pcapng.statistics(TIME_NS, 10, 3),
        ]
    )
    assert blocks(raw) == [
        Section("a::b[é]", "us 1"),
        Interface("lo", 1),
        Secrets("TLSK", b"CLIENT_RANDOM 1 2\n"),
        Journal(
            TIME_NS // 1000 * 1000,
            {
                "__REALTIME_TIMESTAMP": str(TIME_NS // 1000),
                "SYSLOG_IDENTIFIER": "strace",
                "MESSAGE": "a b = \\udc80",
            },
        ),
        Packet(1, TIME_NS, b"12345", 9, 1, "sent by fd 5"),
        Packet(2, TIME_NS + 1, b"1234", 4, 1, None),
        Statistics(10, 3),
    ]
    raw = pcapng.pcap_header(101) + pcapng.pcap_packet(TIME_NS, b"123", 4)
    assert blocks(raw)[1:] == [Interface(None, 101), Packet(1, TIME_NS, b"123", 4, 101, None)]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "scale"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_pcap_of_either_byte_order_and_clock(order: str, magic: int, scale: int) -> None:
    raw = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 99, 1)
    raw += struct.pack(order + "4I", 7, 5, 3, 3) + b"abc"
    assert blocks(raw)[-1] == Packet(1, 7_000_000_000 + 5 * scale, b"abc", 3, 1, None)


def big_endian(kind: int, body: bytes) -> bytes:
    total = struct.pack(">I", 12 + len(body))
    return struct.pack(">I", kind) + total + body + total


@pytest.mark.parametrize(
    ("option", "time_ns"),
    [
        (b"", 5_000),
        (struct.pack(">HHB3x", 9, 1, 3), 5_000_000),
        (struct.pack(">HHB3x", 9, 1, 0x80 | 10), 5 * 10**9 // 1024),
        (struct.pack(">HHq", 14, 8, 2), 2_000_005_000),
    ],
)
def test_pcapng_counts_time_as_its_interface_says(option: bytes, time_ns: int) -> None:
    raw = big_endian(0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1))
    raw += big_endian(1, struct.pack(">HHI", 1, 0, 0) + option)
    raw += big_endian(0xBAD, b"unknown!")
    raw += big_endian(6, struct.pack(">5I", 0, 0, 5, 2, 2) + b"ab\0\0")
    raw += big_endian(2, struct.pack(">HHIIII", 0, 0, 0, 5, 2, 2) + b"cd\0\0")
    raw += big_endian(3, struct.pack(">I", 2) + b"ef\0\0")
    assert blocks(raw)[2:] == [
        Packet(1, time_ns, b"ab", 2, 1, None),
        Packet(2, time_ns, b"cd", 2, 1, None),
        Packet(3, 0, b"ef", 2, 1, None),
    ]


GOOD = pcapng.section("", "") + pcapng.interface("lo")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no capture file"),
        (b"GIF89a", "no capture file"),
        (b"\x0a\x0d\x0d\x0a" + bytes(20), "no byte order"),
        (pcapng.pcap_header()[:10], "breaks off in its header"),
        (pcapng.pcap_header() + b"123", "header of packet 1"),
        (pcapng.pcap_header() + pcapng.pcap_packet(1, b"abc", 3)[:-1], "in packet 1"),
        (pcapng.pcap_header() + struct.pack("<4I", 0, 0, 2**31, 1), "claims to have 2147483648"),
        (GOOD + pcapng.packet(1, b"a", 1)[:-1], "breaks off in the block at byte"),
        (GOOD + b"\6\0", "breaks off at byte"),
        (GOOD + struct.pack("<II", 6, 7), "claims to have 7 bytes"),
        (pcapng.section("", "") + pcapng.packet(1, b"a", 1), "unknown interface"),
        (GOOD + struct.pack("<4I", 6, 16, 0, 16), "too short"),
        (GOOD + struct.pack("<9I", 6, 36, 0, 0, 0, 99, 99, 0, 36), "longer than its block"),
    ],
)
def test_a_broken_file_is_an_error_that_says_where(raw: bytes, words: str) -> None:
    with pytest.raises(PacketsError, match=words):
        blocks(raw)


def test_what_comes_before_the_break_is_read() -> None:
    source = packets.parse(io.BytesIO(GOOD + pcapng.packet(1, b"a", 1) + b"\6"))
    assert [type(next(source)) for _ in range(3)] == [Section, Interface, Packet]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PacketsError, match=r"Cannot read the capture '.*x\.pcap'"):
        list(packets.read(tmp_path / "x.pcap"))


HERE, THERE = Endpoint("127.0.0.1", 1), Endpoint("127.0.0.2", 2)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (ip4(6, tcp(b"abc")), Segment("tcp", HERE, THERE, 3, 54, 3, 4, packets.ACK, False)),
        (
            ip4(6, tcp(b"", packets.SYN), options=bytes(4)),
            Segment("tcp", HERE, THERE, 0, 58, 3, 4, packets.SYN, False),
        ),
        (
            ip6(6, tcp(b"abc")),
            Segment("tcp", Endpoint("::1", 1), Endpoint("::2", 2), 3, 74, 3, 4, 16, False),
        ),
        (
            ip6(17, UDP, source=bytes(10) + b"\xff\xff" + V4[:4] + bytes(15) + b"\2"),
            Segment("udp", Endpoint("127.0.0.1", 53), Endpoint("::2", 5353), 3, 62, 0, 0, 0, False),
        ),
        (
            ip6(0, bytes([17, 0]) + bytes(6) + UDP),
            Segment("udp", Endpoint("::1", 53), Endpoint("::2", 5353), 3, 70, 0, 0, 0, False),
        ),
        (
            ip4(1, b"\3\3" + bytes(6) + ip4(17, UDP)[14:]),
            Segment("udp", HERE._replace(port=53), THERE._replace(port=5353), 3, 70, 0, 0, 0, True),
        ),
        (ip4(1, b"\x08" + bytes(40)), None),
        (ip4(6, tcp(b""), fragment=1), None),
        (ip4(132, bytes(20)), None),
        (ETHERNET + b"\x08\x06" + bytes(28), None),
        (b"", None),
    ],
)
def test_headers_are_read_to_the_ports(data: bytes, expected: Segment | None) -> None:
    assert segment(data) == expected


def test_a_vlan_tag_and_a_link_without_header_are_known() -> None:
    plain = ip4(6, tcp(b"abc"))
    tagged = segment(plain[:12] + b"\x81\x00\x00\x05" + plain[12:])
    raw = segment(plain[14:], packets.LINKTYPE_RAW)
    assert tagged is not None
    assert raw is not None
    assert tagged.payload == raw.payload == 3
    assert segment(plain, 113) is None


def test_an_endpoint_is_written_as_in_the_trace() -> None:
    assert str(packets.endpoint("::ffff:127.0.0.1", 80)) == "127.0.0.1:80"
    assert str(packets.endpoint("0:0:0:0:0:0:0:1", 80)) == "[::1]:80"


SEEDS = st.sampled_from(
    [
        GOOD + pcapng.packet(TIME_NS, ip4(6, tcp(b"abc")), 57, "x") + pcapng.statistics(1, 2, 3),
        GOOD + pcapng.journal(1, {"A": "b"}) + pcapng.tls_secrets(b"abc"),
        pcapng.pcap_header() + pcapng.pcap_packet(TIME_NS, ip6(17, UDP), 60),
        big_endian(0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1))
        + big_endian(1, struct.pack(">HHI", 1, 0, 0)),
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw[: draw(st.integers(0, len(raw)))]) + draw(st.binary(max_size=20))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), damaged()))
def test_no_input_raises_anything_but_its_own_error(raw: bytes) -> None:
    try:
        for block in packets.parse(io.BytesIO(raw)):
            if type(block) is Packet:
                packets.dissect(block)
    except PacketsError:
        pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00"]))
def test_no_packet_is_too_strange_to_dissect(data: bytes, kind: bytes) -> None:
    found = segment(ETHERNET + kind + data)
    assert found is None or found.payload >= 0
    segment(data, packets.LINKTYPE_RAW)


@pytest.mark.skipif(not shutil.which("editcap"), reason="editcap is not installed")
@pytest.mark.parametrize("kind", ["pcap", "nsecpcap", "pcapng"])
def test_files_of_wiresharks_writers_are_read(tmp_path: Path, kind: str) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    data = ip4(6, tcp(b"abc"))
    ours.write_bytes(GOOD + pcapng.packet(TIME_NS, data, len(data)))
    subprocess.run(["editcap", "-F", kind, str(ours), str(theirs)], check=True, capture_output=True)
    (packet,) = packets.packets(packets.read(theirs))
    assert packet.data == data
    assert packet.time_ns == (TIME_NS // 1000 * 1000 if kind == "pcap" else TIME_NS)
