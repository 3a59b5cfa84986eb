"""Each test's piece of what one strace writes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pytest_eventlet_debug.helper.trace_piece import TracePiece
from pytest_eventlet_debug.helper.trace_piece import create_source
from pytest_eventlet_debug.helper.trace_piece import end_before

STOP = b'\\"strace-stop\\"'


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
