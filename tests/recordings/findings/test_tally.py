"""What a test costs on each hub, from recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings import file
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.model import Tally
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.tally import compare
from pytest_eventlet_debug.recordings.strace_log import parse

Record = Callable[..., list[Path]]


def tally_of(directory: Path) -> Tally:
    found = file.read(directory)
    assert found is not None
    assert found.tally is not None
    return found.tally


DIFFERENT = """
import eventlet
import eventlet.hubs

def test_a_first_one_that_pays_for_imports():
    eventlet.sleep(0)

def test_costs():
    listener = eventlet.listen(("127.0.0.1", 0))
    if "asyncio" in type(eventlet.hubs.get_hub()).__module__:
        for _ in range(40):
            listener.getsockname()
    else:
        eventlet.sleep(2)  # by far longer than a busy machine takes for those calls
"""


@needs_strace
def test_calls_and_sleeps_of_one_hub_alone_are_told_with_the_line(record: Record) -> None:
    tallies = {hub: tally_of(record(DIFFERENT, hub)[1]) for hub in ("epolls", "asyncio")}
    slept, calls = compare(tallies)
    assert re.fullmatch(r"slept 2\.\d s on epolls, 0\.\d s on asyncio", slept.title)
    assert slept.place == f"strace.txt line {tallies['epolls'].line}"
    assert calls.title == "getsockname on listener 1: 40 on asyncio, 0 on epolls"
    assert (calls.hub, calls.counts) == ("asyncio", {"calls": 40})


@needs_strace
def test_what_hubs_make_to_wake_themselves_is_no_cost(record: Record) -> None:
    program = """
import socket
import threading
import eventlet.hubs

def make_hub():
    eventlet.hubs.get_hub()
    for end in socket.socketpair():
        end.close()

def test_makes_hubs():
    for _ in range(20):
        thread = threading.Thread(target=make_hub)
        thread.start()
        thread.join()
"""
    tallies = {hub: tally_of(record(program, hub)[0]) for hub in ("epolls", "asyncio")}
    of_pairs = {tally.calls["socketpair"] for tally in tallies.values()}
    assert of_pairs == {20}
    assert compare(tallies) == []


@needs_strace
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_poll_that_may_not_wait_is_no_sleep(record: Record, hub: str) -> None:
    program = """
import eventlet

def test_gives_way():
    waiting = eventlet.spawn(eventlet.listen(("127.0.0.1", 0)).accept)
    for _ in range(100):
        eventlet.sleep(0)
    waiting.kill()
"""
    (directory,) = record(program, hub)
    assert re.search(r" epoll_wait\(.*, 0\) = 0 ", (directory / "strace.txt").read_text())
    assert tally_of(directory).slept == 0.0


@needs_strace
def test_while_a_child_process_runs_no_sleep_counts(record: Record) -> None:
    program = """
import eventlet
from eventlet.green import subprocess

def test_waits_for_a_child():
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    eventlet.spawn_after(0.4, child.stdin.close)
    child.wait()  # asks every 10 ms

def test_sleeps_after_that():
    subprocess.call(["true"])
    eventlet.sleep(0.4)
"""
    directories = record(program, "epolls")
    sleeps, waits = map(tally_of, directories)
    assert (directories[1] / "strace.txt").read_text().count(" wait4(") > 10
    assert waits.calls["wait4"] <= 2  # how often it asks, the child decides
    assert waits.slept < 0.1 < 0.3 < sleeps.slept


@needs_strace
def test_while_another_thread_works_no_sleep_counts(record: Record) -> None:
    program = """
import os, time
import eventlet
from eventlet import tpool

def work():
    end = time.monotonic() + 1.7
    while time.monotonic() < end:
        os.stat("/")

def test_waits_for_a_thread():
    eventlet.spawn_after(1.5, int)  # it may lack a CPU for most of a tenth of this
    tpool.execute(work)

def test_sleeps_while_threads_wait():
    eventlet.sleep(0.4)
"""
    sleeps, waits = (tally_of(each) for each in record(program, "epolls"))
    assert waits.calls["futex"] + waits.calls["newfstatat"] > 10
    assert waits.slept < 0.1 < 0.3 < sleeps.slept


@needs_strace
def test_the_same_work_on_two_hubs_is_no_finding(record: Record) -> None:
    program = """
import eventlet

def test_echo():
    listener = eventlet.listen(("127.0.0.1", 0))
    def serve():
        connection, _ = listener.accept()
        while data := connection.recv(100):
            connection.sendall(data)
    eventlet.spawn(serve)
    client = eventlet.connect(listener.getsockname())
    for _ in range(30):
        client.sendall(b"ping")
        assert client.recv(100) == b"ping"
    eventlet.sleep(0.4)
"""
    tallies = {hub: tally_of(record(program, hub)[0]) for hub in ("epolls", "asyncio")}
    assert tallies["epolls"].calls["sendto"] >= 60
    assert tallies["asyncio"].slept > 0.3
    assert compare(tallies) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        ({"connect": 20}, {}, ["connect 20 on a, 0 on b"]),
        ({"connect": 19}, {}, []),
        ({"connect": 79}, {"connect": 20}, []),
        ({"connect": 80}, {"connect": 20}, ["connect 80 on a, 20 on b"]),
        ({"epoll_wait": 9000, "openat": 5000, "mmap": 100}, {}, []),
        ({"write": 1999}, {}, []),
        ({"write": 20_000}, {"write": 2001}, []),
        (
            {"write": 20_000},
            {"write": 15},
            ["system calls: 20,000 on a, 15 on b, of which 20,000 write"],
        ),
        (
            {"recvfrom": 30, "connect": 60},
            {},
            ["connect 60 on a, 0 on b", "recvfrom 30 on a, 0 on b"],
        ),
    ],
)
def test_only_many_times_the_calls_of_the_other_are_told(
    ours: dict[str, int], theirs: dict[str, int], told: list[str]
) -> None:
    found = compare({"a": Tally(ours), "b": Tally(theirs)})
    assert [each.title for each in found] == told


def test_calls_that_one_socket_makes_up_name_it() -> None:
    ours = Tally({"recvfrom": 45}, {"client 1": {"recvfrom": 41}, "client 2": {"recvfrom": 4}})
    theirs = Tally({"recvfrom": 5}, {"client 1": {"recvfrom": 1}, "client 2": {"recvfrom": 4}})
    both = Tally({"recvfrom": 60}, {"client 1": {"recvfrom": 30}, "client 2": {"recvfrom": 30}})
    (found,) = compare({"asyncio": ours, "epolls": theirs})
    assert found.title == "recvfrom on client 1: 41 on asyncio, 1 on epolls"
    (found,) = compare({"asyncio": both, "epolls": theirs})
    assert found.title == "recvfrom 60 on asyncio, 5 on epolls"


@pytest.mark.parametrize(
    ("ours", "theirs", "told"),
    [
        (1.5, 0.4, ["used 1.5 s of CPU on a, 0.4 s on b"]),
        (1.5, 0.6, []),
        (0.4, 0.0, []),
        (1.5, None, []),
    ],
)
def test_many_times_the_cpu_of_the_other_hub_is_told(
    ours: float, theirs: float | None, told: list[str]
) -> None:
    found = compare({"a": Tally(cpu=ours), "b": Tally(cpu=theirs)})
    assert [each.title for each in found] == told


def test_a_sleep_that_does_not_make_the_test_longer_is_not_told() -> None:
    long, short = Tally(seconds=2.0, slept=0.8, line=7), Tally(seconds=1.9)
    assert compare({"a": long, "b": short}) == []


@pytest.mark.parametrize(("sleeps", "told"), [(3, 1), (2, 0), (0, 1)])
def test_as_many_sleeps_that_are_longer_by_chance_are_not_told(sleeps: int, told: int) -> None:
    # oslo.concurrency's test_multiattempt_with_log_errors_final sleeps for 0.2 to 2 s at random.
    long = Tally(seconds=2.31, slept=2.1, line=1136, long_sleeps=sleeps)
    short = Tally(seconds=1.21, slept=1.0, line=1080, long_sleeps=2)
    assert len(compare({"asyncio": long, "epolls": short})) == told


OVERDUE = """\
7 1.000000 access("/.eventlet-debug/phase/1000000000/call/test_a", F_OK) = -1 ENOENT (-) <0.000001>
7 1.100000 access("/.eventlet-debug/greenlet/2/hub", F_OK) = -1 ENOENT (-) <0.000001>
7 1.200000 epoll_wait(12<anon_inode:[eventpoll]>, [], 1023, 100) = 0 <1.517164>
7 2.800000 poll([{fd=5<pipe:[1]>, events=POLLIN}], 1, 50) = 0 (Timeout) <0.350000>
7 3.200000 select(6, [5<pipe:[1]>], [], [], {tv_sec=0, tv_usec=50000}) = 0 (Timeout) <0.750000>
7 4.000000 ppoll([], 0, {tv_sec=0, tv_nsec=50000000}, NULL, 8) = 0 (Timeout) <0.200000>
7 4.300000 epoll_pwait(12<anon_inode:[eventpoll]>, [], 1023, 50, NULL, 8) = 0 <0.300000>
7 4.700000 getpid() = 7 <0.000001>
"""


def test_a_wait_that_gets_its_cpu_late_slept_for_its_timeout_only() -> None:
    detection = Detection(About(), [])
    for _ in detection.watch(parse(OVERDUE.splitlines(keepends=True))):
        pass
    assert detection.tally().slept == pytest.approx(0.3)


def test_one_hub_alone_costs_nothing_more() -> None:
    assert compare({"a": Tally({"connect": 1000}, 9.0, 9.0, 1)}) == []
