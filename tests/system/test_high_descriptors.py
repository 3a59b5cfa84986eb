"""Descriptors of our own stay clear of the tests'."""

from __future__ import annotations

import fcntl
import os
import resource

import pytest

from pytest_eventlet_debug.system.high_descriptors import HIGH_DESCRIPTOR
from pytest_eventlet_debug.system.high_descriptors import move_up


def test_a_descriptor_moves_up_and_is_closed_by_exec() -> None:
    read_end, write_end = os.pipe()
    moved = move_up(read_end)
    os.write(write_end, b"x")
    assert os.read(moved, 1) == b"x"
    assert moved >= HIGH_DESCRIPTOR
    assert fcntl.fcntl(moved, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(read_end)
    os.close(moved)
    os.close(write_end)


def test_a_descriptor_moves_as_high_as_a_low_limit_permits() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    read_end, write_end = os.pipe()
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        moved = move_up(read_end)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    os.close(moved)
    os.close(write_end)
    assert 84 <= moved < 100
