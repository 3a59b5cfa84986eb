"""Which descriptors are open, asked again and again."""

from __future__ import annotations

import os
from pathlib import Path
import select
import sys

import pytest

from pytest_eventlet_debug.system.open_descriptors import DIRECTORY
from pytest_eventlet_debug.system.open_descriptors import OpenDescriptors

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.mark.parametrize("process", ["self", "another"])
def test_a_number_that_is_used_again_has_a_new_name(tmp_path: Path, process: str) -> None:
    directory = DIRECTORY if process == "self" else f"/proc/{os.getpid()}/fd"
    opened = OpenDescriptors(directory)
    names = ["a", "b"]
    for name in names:
        (tmp_path / name).touch()
    number = os.open(tmp_path / "a", os.O_RDONLY)
    try:
        assert opened.look()[number] == opened.look()[number] == str(tmp_path / "a")
        os.dup2(other := os.open(tmp_path / "b", os.O_RDONLY), number)
        os.close(other)
        assert opened.look()[number] == str(tmp_path / "b")
        with select.epoll() as epoll:
            os.dup2(epoll.fileno(), number)
        assert opened.look()[number] == "anon_inode:[eventpoll]"
        # All such files have one inode.
        os.dup2(other := os.pidfd_open(os.getpid()), number)
        os.close(other)
        assert opened.look()[number] != "anon_inode:[eventpoll]"
    finally:
        os.close(number)
    assert number not in opened.look()
