"""Each test's piece of what one strace writes."""

from __future__ import annotations

import os
from pathlib import Path
import struct

import pytest

from pytest_eventlet_debug.helper.marks_in_memory import MarksInMemory
from pytest_eventlet_debug.helper.protocol import MARKS_BYTES
from pytest_eventlet_debug.helper.protocol import MARKS_ROOM
from pytest_eventlet_debug.helper.trace_piece import TracePiece
from pytest_eventlet_debug.helper.trace_piece import create_source
from pytest_eventlet_debug.helper.trace_piece import end_before
from pytest_eventlet_debug.system.files import memory_file

STOP = b'\\"strace-stop\\"'
NEXT = b'\\"strace-next\\"'


@pytest.fixture
def source(tmp_path: Path) -> int:
    return create_source(str(tmp_path))


def test_the_source_has_no_name(tmp_path: Path, source: int) -> None:
    assert list(tmp_path.iterdir()) == []
    assert os.fstat(source).st_nlink == 0


def test_a_piece_begins_behind_the_line_that_is_being_written(tmp_path: Path, source: int) -> None:
    os.write(source, b"1 recvfrom(500, ")
    piece = TracePiece(source, str(tmp_path / "strace.txt"), False, None)
    piece.copy()
    assert (tmp_path / "strace.txt").read_bytes() == b""
    os.write(source, b"<unfinished ...>\n1 read(3, ")
    piece.copy()
    os.write(source, b'"") = 0\n1 getpid() = 1\n')
    end = os.fstat(source).st_size
    os.write(source, b"1 close(3) = 0\n")
    piece.finish(end)
    assert (tmp_path / "strace.txt").read_bytes() == b'1 read(3, "") = 0\n1 getpid() = 1\n'


def test_a_piece_ends_before_the_request_that_ends_it(source: int) -> None:
    assert end_before(source, 7, STOP) is None
    os.write(source, b"7 getpid() = 7\n")
    assert end_before(source, 7, STOP) is None
    end = os.fstat(source).st_size
    os.write(source, b'7 sendto(500, "[1, \\"strace-stop\\", {}]", 24 <unfinished ...>\n8 read(3, ')
    assert end_before(source, 7, STOP) == end
    assert end_before(source, 8, STOP) is None  # somebody else's


def test_what_is_copied_takes_no_room_twice(tmp_path: Path, source: int) -> None:
    path = tmp_path / "strace.txt"
    path.write_bytes(b"before\n")
    piece = TracePiece(source, str(path), True, None)
    line = b"1 getpid() = 1\n"
    for _ in range(40):
        os.write(source, line * 10_000)
        piece.copy()
    assert os.fstat(source).st_blocks * 512 < 2 << 20
    piece.finish()
    assert path.read_bytes() == b"before\n" + line * 400_000


def test_a_piece_begins_behind_the_request_of_a_test_that_does_not_wait(
    tmp_path: Path, source: int
) -> None:
    os.write(source, b"7 1.000001 getpid() = 7\n")
    begin = os.fstat(source).st_size
    os.write(source, b'7 1.000002 sendto(500, "[1, \\"strace-stop\\"]", 9) = 9\n8 1.000003 read(')
    piece = TracePiece(source, str(tmp_path / "strace.txt"), False, None, (begin, NEXT))
    piece.copy()
    os.write(source, b'3, "") = 0\n7 1.000004 sendto(500, "[0, \\"strace-next\\"]", 9')
    piece.copy()
    assert (tmp_path / "strace.txt").read_bytes() == b""
    os.write(source, b") = 9\n7 1.000005 getpid() = 7\n")
    piece.finish()
    assert (tmp_path / "strace.txt").read_bytes() == b"7 1.000005 getpid() = 7\n"


#: What strace writes at a time, with the marks that are made before, by their time in microseconds.
PARTS = [
    ([3], b"7 0.000001 read(3, "),  # half a line
    ([5], b'"") = 0\n8 0.000002 close(3) = 0\n7 0.000004 close(4) = 0\n7 0.0'),
    ([6, 7], b"00005 getpid() = 7\n7     0.000007 getpid() = 7\n"),
    ([9], b""),
]


@pytest.mark.parametrize("looks", [True, False])
def test_marks_stand_before_the_first_line_that_is_not_earlier(
    tmp_path: Path, source: int, looks: bool
) -> None:
    memory = memory_file("marks")
    os.ftruncate(memory, MARKS_BYTES)
    at = MARKS_ROOM - 24  # the first one goes round the ring's end
    os.pwrite(memory, struct.pack("QQ", at, at), 0)
    piece = TracePiece(source, str(tmp_path / "x"), False, None, None, MarksInMemory(memory))
    for times, data in PARTS:
        for microseconds in times:
            path = b'/%d"' % microseconds
            record = struct.pack("QII8s", microseconds * 1000 + 999, 7, len(path), path)
            for number, byte in enumerate(record):
                os.pwrite(memory, bytes([byte]), 16 + (at + number) % MARKS_ROOM)
            at += len(record)
            os.pwrite(memory, struct.pack("Q", at), 0)
        os.write(source, data)
        if looks:
            piece.copy()
    piece.finish()
    lines = (tmp_path / "x").read_text().splitlines()
    assert lines[2] == (
        r'7     0.000003 access("/3\"", F_OK) = -1 ENOENT (No such file or directory) <0.000000>'
    )
    order = [line.split()[1] for line in lines]
    # Marks that no line follows are written when they have become old.
    assert order == sorted(order)
    assert len(order) == 10
    assert [number for number, line in enumerate(lines) if "access(" in line] == [2, 4, 6, 7, 9]
