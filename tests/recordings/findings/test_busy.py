"""Greenthreads that compute for long, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re

from needs import needs_strace
import pytest
from speed import depends_on_speed

from pytest_eventlet_debug.recordings.findings import file
from pytest_eventlet_debug.recordings.findings.busy import Busy
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import parse

pytestmark = needs_strace

PROGRAM = """
import subprocess
import time
import eventlet
import pytest

def crunch():
    began = time.thread_time()
    for _ in range(2_000_000):
        pass
    for _ in range(int(2_000_000 * 1.5 / (time.thread_time() - began))):  # 1.5 s of CPU
        pass

@pytest.mark.eventlet_blocks  # to watch it would make calls: it is interrupted to be looked at
def test_a_computes():
    eventlet.spawn(crunch).wait()

def test_b_sleeps():
    eventlet.sleep(1.2)

def test_c_is_stopped():
    # Neither a call nor the CPU: somebody stops the process for a while.
    pid = __import__("os").getpid()
    subprocess.Popen(f"kill -STOP {pid}; sleep 1.2; kill -CONT {pid}", shell=True).wait()

def test_d_holds_up_another():
    other = eventlet.spawn_after(0.1, int)
    eventlet.spawn(crunch).wait()
    other.wait()
"""


@depends_on_speed
def test_a_greenthread_that_computes_is_told_and_one_that_sleeps_is_not(
    record: Callable[..., list[Path]],
) -> None:
    computes, *others, holds_up = record(PROGRAM, "epolls", "--eventlet-blocked")
    read = file.read(computes)
    assert read is not None
    found = next(each for each in read.findings if each.kind == "busy")
    assert re.fullmatch(
        r"greenthread \d+:crunch made no system call for \d+\.\d\d s "
        r"\(\d+\.\d\d s of CPU in the call phase\), so that no other could run",
        found.title,
    )
    for directory in others:
        read = file.read(directory)
        assert read is not None
        assert not [each for each in read.findings if each.kind == "busy"]
    # What the test process saw itself, and what the trace shows of it.
    read = file.read(holds_up)
    assert read is not None
    (stall,) = (each for each in read.findings if each.kind in ("busy", "stall"))
    assert re.fullmatch(
        r"greenthread crunch held the hub for \d+\.\d\d s at test_program.py:\d+ in crunch, "
        r"while 1 timer was due, without a system call",
        stall.title,
    )
    assert stall.place.startswith("strace.txt line ")


@pytest.mark.parametrize(
    ("cpu", "seconds", "certainty"),
    [
        (0.17, 1.6, []),
        (0.9, 1.6, []),
        (1.1, 3.5, ["likely"]),
        (1.1, 2.3, ["likely"]),  # in the gap for 0.18 s at least
        (1.3, 1.6, ["certain"]),
    ],
)
def test_a_process_that_others_kept_from_the_cpu_is_not_called_busy(
    cpu: float, seconds: float, certainty: list[str]
) -> None:
    # Of swift's test_PUT_GET_metadata on a loaded machine, where it was 0.17 s.
    trace = """
7 100.000000 access("/.eventlet-debug/phase/1/call/test_x.py::test_x", F_OK) = -1 ENOENT (No such file) <0.000001>
7 100.000100 access("/.eventlet-debug/greenlet/1/test", F_OK) = -1 ENOENT (No such file) <0.000001>
7 100.200000 close(3) = 0 <0.000010>
7 101.580000 close(4) = 0 <0.000010>
"""  # noqa: E501
    ended = 100_000_000_000 + int(seconds * 1e9)
    about = About(phases={"call": (100_000_000_000, ended)}, cpu={"call": cpu})
    detection = Detection(about, [Busy])
    for _ in detection.watch(parse(trace.strip().splitlines())):
        pass
    assert [each.certainty for each in detection.findings()] == certainty


@pytest.mark.parametrize(
    ("other", "consequence"), [("1/test", ""), ("2/hub", ", so that no other could run")]
)
def test_others_are_spoken_of_where_there_are_any(other: str, consequence: str) -> None:
    trace = f"""
7 100.000000 access("/.eventlet-debug/phase/1/call/test_x.py::test_x", F_OK) = -1 ENOENT (-) <0.000001>
7 100.000100 access("/.eventlet-debug/greenlet/1/test", F_OK) = -1 ENOENT (-) <0.000001>
7 101.580000 access("/.eventlet-debug/greenlet/{other}", F_OK) = -1 ENOENT (-) <0.000001>
"""  # noqa: E501
    about = About(phases={"call": (100_000_000_000, 101_600_000_000)}, cpu={"call": 1.5})
    detection = Detection(about, [Busy])
    for _ in detection.watch(parse(trace.strip().splitlines())):
        pass
    (found,) = detection.findings()
    alone = "greenthread 1:test made no system call for 1.58 s (1.50 s of CPU in the call phase)"
    assert found.title == alone + consequence
