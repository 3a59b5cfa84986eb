"""pcapng: every byte of the blocks, and what other programs read in them."""

from __future__ import annotations

from pathlib import Path
import shutil
import struct
import subprocess

import pytest

from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings import pcapng

#: A UDP datagram over Ethernet, as lo gives it.
FRAME = (
    bytes.fromhex(
        "000000000000000000000000080045000021000140004011acc87f0000017f000001d431d431000d0000"
    )
    + b"hello"
)


def test_a_packed_capture_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "capture.pcapng"
    whole = pcapng.section("a::b", "us") + pcapng.interface("lo")
    path.write_bytes(whole + b"".join(pcapng.packet(n, bytes(1000), 1000) for n in range(100)))
    before = list(pcapng.read(path))
    packing.pack(path, 1000)
    assert [each.name for each in tmp_path.iterdir()] == ["capture.pcapng.gz"]
    assert list(pcapng.read(path)) == before
    path.with_name("capture.pcapng.gz").write_bytes(b"\x1f\x8b" + bytes(50))
    with pytest.raises(pcapng.PcapngError, match="Cannot read the capture"):
        list(pcapng.read(path))


def test_a_section_holds_its_comment_and_application() -> None:
    block = pcapng.section("a::b", "us 1")
    assert block == (
        b"\x0a\x0d\x0d\x0a\x30\x00\x00\x00"  # type, 48 bytes
        b"\x4d\x3c\x2b\x1a\x01\x00\x00\x00"  # byte order, version 1.0
        b"\xff\xff\xff\xff\xff\xff\xff\xff"  # length of the section: unknown
        b"\x01\x00\x04\x00a::b"
        b"\x04\x00\x04\x00us 1"
        b"\x00\x00\x00\x00\x30\x00\x00\x00"
    )


def test_an_interface_counts_time_in_nanoseconds() -> None:
    block = pcapng.interface("lo")
    assert block == (
        b"\x01\x00\x00\x00\x28\x00\x00\x00"
        b"\x01\x00\x00\x00\x00\x00\x04\x00"  # Ethernet, snaplen 262144
        b"\x02\x00\x02\x00lo\x00\x00"
        b"\x09\x00\x01\x00\x09\x00\x00\x00"
        b"\x00\x00\x00\x00\x28\x00\x00\x00"
    )


def test_a_packet_is_padded_to_four_bytes() -> None:
    block = pcapng.packet(0x0123456789ABCDEF, b"12345", 9)
    assert block == (
        b"\x06\x00\x00\x00\x28\x00\x00\x00\x00\x00\x00\x00"
        b"\x67\x45\x23\x01\xef\xcd\xab\x89"  # high half of the time first
        b"\x05\x00\x00\x00\x09\x00\x00\x00"
        b"12345\x00\x00\x00\x28\x00\x00\x00"
    )


def test_a_packet_can_carry_a_comment() -> None:
    block = pcapng.packet(1, b"1234", 4, "fd 5")
    assert block[28:] == b"1234\x01\x00\x04\x00fd 5\x00\x00\x00\x00\x30\x00\x00\x00"
    assert len(block) == 0x30


def test_statistics_count_what_came_and_what_was_dropped() -> None:
    block = pcapng.statistics(1, 10, 3)
    assert struct.unpack("<6I", block[:20] + block[-4:]) == (5, 52, 0, 0, 1, 52)
    assert block[20:-4] == (struct.pack("<HHQHHQ", 4, 8, 10, 5, 8, 3) + b"\x00\x00\x00\x00")


@pytest.mark.parametrize("text", ["", "é" * 40000, "\udc80 not utf-8", "a::b[\x00]"])
def test_any_comment_gives_a_block_whose_lengths_agree(text: str) -> None:
    block = pcapng.section(text, "us")
    (total,) = struct.unpack_from("<I", block, 4)
    (length,) = struct.unpack_from("<H", block, 26)
    assert total == len(block) == struct.unpack("<I", block[-4:])[0]
    assert length <= 65535
    block[28 : 28 + length].decode("utf-8")


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_reads_the_packet_and_its_time(tmp_path: Path) -> None:
    time_ns = 1_700_000_000_123_456_789
    path = tmp_path / "x.pcapng"
    parts = [
        pcapng.section("a::b", "us"),
        pcapng.interface("lo"),
        pcapng.packet(time_ns, FRAME, len(FRAME), "sent by us"),
        pcapng.statistics(time_ns, 1, 0),
    ]
    path.write_bytes(b"".join(parts))
    fields = [f"-e{name}" for name in ("frame.time_epoch", "udp.payload", "frame.comment")]
    done = subprocess.run(
        ["tshark", "-r", str(path), "-Tfields", *fields], capture_output=True, text=True
    )
    assert done.stdout.rstrip("\n").split("\t") == [
        "1700000000.123456789",
        b"hello".hex(),
        "sent by us",
    ]
