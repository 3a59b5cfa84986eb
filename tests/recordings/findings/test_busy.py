"""Greenthreads that compute for long, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re
import shutil

import pytest

from pytest_eventlet_debug.recordings.findings import file

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace not installed")

PROGRAM = """
import subprocess
import time
import eventlet

def test_a_computes():
    def crunch():
        end = time.monotonic() + 1.3  # no system call on Linux
        rounds = 3  # on a loaded machine, too
        while time.monotonic() < end or rounds > 0:
            rounds -= 1
            for _ in range(10_000_000):
                pass
    eventlet.spawn(crunch).wait()

def test_b_sleeps():
    eventlet.sleep(1.2)

def test_c_is_stopped():
    # Neither a call nor the CPU: somebody stops the process for a while.
    pid = __import__("os").getpid()
    subprocess.Popen(f"kill -STOP {pid}; sleep 1.2; kill -CONT {pid}", shell=True).wait()
"""


def test_a_greenthread_that_computes_is_told_and_one_that_sleeps_is_not(
    record: Callable[..., list[Path]],
) -> None:
    computes, *others = record(PROGRAM, "epolls")
    read = file.read(computes)
    assert read is not None
    found = next(each for each in read.findings if each.kind == "busy")
    assert re.fullmatch(
        r"greenthread \d+:crunch ran for \d+\.\d\d s without a system call "
        r"\(\d+\.\d\d s of CPU in the call\), so that the hub and all others stood still",
        found.title,
    )
    for directory in others:
        read = file.read(directory)
        assert read is not None
        assert not [each for each in read.findings if each.kind == "busy"]
