"""A child process, seen from the one that starts it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.children.process import ChildProcess


def test_one_that_cannot_be_started_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=os.strerror(errno.E2BIG)):
        ChildProcess(
            ChildAssignment(hub="poll", hubs=("poll",), run="1"),
            None,
            [],
            environment={"LONGER_THAN_THE_KERNEL_TAKES": "x" * 200_000},
            working_directory=tmp_path,
            stdout=tmp_path / "out",
            stderr=tmp_path / "err",
        )
    assert os.listdir("/proc/self/fd") == before
