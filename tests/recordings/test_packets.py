"""Captures that are read back, bytes that are none, and the headers of packets."""

from __future__ import annotations

import io
from pathlib import Path
import struct

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from pytest_eventlet_debug.recordings import packets
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.recordings.packets import Endpoint
from pytest_eventlet_debug.recordings.packets import Segment
from pytest_eventlet_debug.recordings.pcapng import Interface
from pytest_eventlet_debug.recordings.pcapng import Packet
from pytest_eventlet_debug.recordings.pcapng import PcapngError
from pytest_eventlet_debug.recordings.pcapng import Section
from pytest_eventlet_debug.recordings.pcapng import Statistics

TIME_NS = 1_700_000_000_123_456_789
ETHERNET = bytes(12)
V4 = bytes.fromhex("7f0000017f000002")
V6 = bytes(15) + b"\1" + bytes(15) + b"\2"


def blocks(raw: bytes) -> list[pcapng.Block]:
    return list(pcapng.parse(io.BytesIO(raw)))


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


def segment(data: bytes, linktype: int = pcapng.LINKTYPE_ETHERNET) -> Segment | None:
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
        Packet(2, TIME_NS, b"12345", 9, 1, "sent by fd 5"),
        Packet(3, TIME_NS + 1, b"1234", 4, 1, None),
        Statistics(10, 3),
    ]


GOOD = pcapng.section("", "") + pcapng.interface("lo")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "no capture file"),
        (b"GIF89a", "no capture file"),
        (struct.pack("<4I", 0x0A0D0D0A, 16, 0x4D3C2B1A, 16), "different byte order"),
        (
            pcapng.section("", "") + struct.pack("<5I", 1, 20, 1, 0, 20),
            "does not count nanoseconds",
        ),
        (GOOD + pcapng.packet(1, b"a", 1)[:-1], "breaks off in the block at byte"),
        (GOOD + b"\6\0", "breaks off at byte"),
        (GOOD + struct.pack("<II", 6, 7), "claims to have 7 bytes"),
        (pcapng.section("", "") + pcapng.packet(1, b"a", 1), "unknown interface"),
        (GOOD + struct.pack("<4I", 6, 16, 0, 16), "too short"),
        (GOOD + struct.pack("<9I", 6, 36, 0, 0, 0, 99, 99, 0, 36), "longer than its block"),
    ],
)
def test_a_broken_file_is_an_error_that_says_where(raw: bytes, words: str) -> None:
    with pytest.raises(PcapngError, match=words):
        blocks(raw)


def test_what_comes_before_the_break_is_read() -> None:
    source = pcapng.parse(io.BytesIO(GOOD + pcapng.packet(1, b"a", 1) + b"\6"))
    assert [type(next(source)) for _ in range(3)] == [Section, Interface, Packet]


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PcapngError, match=r"Cannot read the capture '.*x\.pcapng'"):
        list(pcapng.read(tmp_path / "x.pcapng"))


HERE, THERE = Endpoint("127.0.0.1", 1), Endpoint("127.0.0.2", 2)
QUOTED = Segment("udp", HERE._replace(port=53), THERE._replace(port=5353), 3, 70, 0, 0, True)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (ip4(6, tcp(b"abc")), Segment("tcp", HERE, THERE, 3, 54, 3, packets.ACK, False)),
        (
            ip4(6, tcp(b"", packets.SYN), options=bytes(4)),
            Segment("tcp", HERE, THERE, 0, 58, 3, packets.SYN, False),
        ),
        (
            ip6(6, tcp(b"abc")),
            Segment("tcp", Endpoint("::1", 1), Endpoint("::2", 2), 3, 74, 3, 16, False),
        ),
        (
            ip6(17, UDP, source=bytes(10) + b"\xff\xff" + V4[:4] + bytes(15) + b"\2"),
            Segment("udp", Endpoint("127.0.0.1", 53), Endpoint("::2", 5353), 3, 62, 0, 0, False),
        ),
        (
            ip6(0, bytes([17, 0]) + bytes(6) + UDP),
            Segment("udp", Endpoint("::1", 53), Endpoint("::2", 5353), 3, 70, 0, 0, False),
        ),
        (ip4(1, b"\3\1" + bytes(6) + ip4(17, UDP)[14:]), QUOTED),
        (ip4(1, b"\3\3" + bytes(6) + ip4(17, UDP)[14:]), QUOTED._replace(refused=True)),
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
    raw = segment(plain[14:], pcapng.LINKTYPE_RAW)
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
        GOOD + pcapng.packet(TIME_NS, ip6(17, UDP), 60),
    ]
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    raw = bytearray(draw(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    return bytes(raw[: draw(st.integers(0, len(raw)))]) + draw(st.binary(max_size=20))


@settings(max_examples=300)
@given(st.one_of(st.binary(max_size=200), damaged()))
def test_no_input_raises_anything_but_its_own_error(raw: bytes) -> None:
    try:
        for block in pcapng.parse(io.BytesIO(raw)):
            if type(block) is Packet:
                packets.dissect(block)
    except PcapngError:
        pass


@settings(max_examples=200)
@given(st.binary(max_size=120), st.sampled_from([b"\x08\x00", b"\x86\xdd", b"\x81\x00"]))
def test_no_packet_is_too_strange_to_dissect(data: bytes, kind: bytes) -> None:
    found = segment(ETHERNET + kind + data)
    assert found is None or found.payload >= 0
    segment(data, pcapng.LINKTYPE_RAW)
