"""Where two traces of one test part, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
import itertools
from pathlib import Path
import re
import subprocess
import sys

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings.parted import Parting
from pytest_eventlet_debug.recordings.findings.parted import Step
from pytest_eventlet_debug.recordings.findings.parted import describe
from pytest_eventlet_debug.recordings.findings.parted import part
from pytest_eventlet_debug.recordings.findings.parted import read

pytestmark = needs_strace

Record = Callable[..., list[Path]]

ECHO = """
import eventlet
import eventlet.hubs

def test_echo():
    listener = eventlet.listen(("127.0.0.1", 0))
    def serve():
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(100):
                connection.sendall(ANSWER)
    server = eventlet.spawn(serve)
    client = eventlet.connect(listener.getsockname())
    for _ in range(3):
        client.sendall(b"ping")
        client.recv(100)
    client.close()
    server.wait()
    listener.close()
"""
SAME = ECHO.replace("ANSWER", "data")
BY_HUB = ECHO.replace(
    "ANSWER", "data if 'epolls' in type(eventlet.hubs.get_hub()).__module__ else b'pong'"
)


@pytest.mark.parametrize("hub", ["epolls", "poll", "asyncio"])
def test_two_runs_on_one_hub_do_not_part(record: Record, hub: str) -> None:
    (once,), (again,) = (record(SAME, hub, name=name) for name in ("once", "again"))
    assert len(read(once)) > 8
    assert part(read(once), read(again)) is None


def test_two_hubs_on_which_each_socket_does_the_same_part_in_their_order_at_most(
    record: Record,
) -> None:
    (epolls,), (asyncio,) = record(SAME, "epolls"), record(SAME, "asyncio")
    parting = part(read(epolls), read(asyncio))
    assert parting is None or parting.only_order

    trace = (epolls / "strace.txt").read_text().splitlines(keepends=True)
    at = next(number for number, line in enumerate(trace) if " listen(" in line)
    pid, time_ = trace[at].split()[:2]
    trace.insert(at + 1, f"{pid} {time_} kill({pid}, 0) = 0 <0.000010>\n")
    (asyncio / "strace.txt").write_text("".join(trace))
    parting = part(read(epolls), read(asyncio))
    assert parting is not None
    lines = list(describe(parting, ("without", "with")))
    assert lines[0] == "they diverge on processes:"
    assert re.search(rf"  > \(none\) +line {at + 2} \[1:test\] kill", lines[-1])


def test_a_side_that_ends_is_told_from_one_that_never_was() -> None:
    connect, send = (
        Step("client 1", action, "", line, "1:test")
        for line, action in ((7, "connect"), (9, "send"))
    )
    for before, steps, missing in (
        ((connect,), (send,), "(ends)"),
        ((), (connect, send), "(none)"),
    ):
        lines = list(describe(Parting("client 1", before, steps, ()), ("epolls", "asyncio")))
        assert [line.split()[-1] for line in lines[2:]][len(before)] == missing


@pytest.mark.parametrize("waits_for", ["theirs", "ours"])
def test_a_hub_that_the_test_makes_does_not_change_what_its_pairs_are_called(
    record: Record, waits_for: str
) -> None:
    program = f"""
import eventlet
import eventlet.hubs
from eventlet.green import socket

def test_pair():
    eventlet.hubs.get_hub()
    ours, theirs = socket.socketpair()
    reader = eventlet.spawn({waits_for}.recv, 100)
    eventlet.sleep(0.01)
    {"ours" if waits_for == "theirs" else "theirs"}.sendall(b"over the pair")
    assert reader.wait() == b"over the pair"
"""
    (epolls,), (asyncio,) = record(program, "epolls"), record(program, "asyncio")
    assert {step.role for step in read(epolls)[:2]} == {"pair 1 a", "pair 1 b"}
    assert part(read(epolls), read(asyncio)) is None


def test_the_socket_the_greenthread_and_both_lines_are_named(record: Record) -> None:
    (epolls,), (asyncio,) = record(BY_HUB, "epolls"), record(BY_HUB, "asyncio")
    parting = part(read(epolls), read(asyncio))
    assert parting is not None
    assert parting.role == "connection 1"
    left, right = parting.left[0], parting.right[0]
    assert (left.action, left.data[:4], right.data[:4]) == ("send", "ping", "pong")
    assert left.greenthread is not None
    assert left.greenthread.endswith(":serve")
    trace = (asyncio / "strace.txt").read_text().splitlines()
    assert '"pong"' in trace[right.line - 1]
    lines = list(describe(parting, ("epolls", "asyncio")))
    assert lines[0] == "they diverge on connection 1:"
    assert any(f"line {left.line} " in line and f"line {right.line} " in line for line in lines)


def test_steps_are_what_is_sent_on_a_socket_in_whatever_pieces_and_what_is_done_to_processes(
    record: Record,
) -> None:
    program = """
import os, signal, socket

def test_sends():
    left, right = socket.socketpair()
    for piece in (b"ping", b"pong"):
        left.send(piece)
    right.recv(10)
    pid = os.fork()
    if not pid:
        signal.pause()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
    (directory,) = record(program, "poll")
    assert [(step.action, step.data) for step in read(directory)] == [
        ("send", "pingpong"),
        ("receive", "pingpong"),
        ("start a child", ""),
        ("kill", ""),
        ("close", ""),
        ("close", ""),
    ]


def diff(*directories: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest_eventlet_debug.cli", "diff", *map(str, directories)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_each_datagram_is_a_step_even_an_empty_one(record: Record) -> None:
    program = """
import eventlet
from eventlet.green import socket

def test_datagrams():
    server, client = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    server.bind(("127.0.0.1", 0))
    for text in (b"one", b"", b"two"):
        client.sendto(text, server.getsockname())
    for text in (b"one", b"", b"two"):
        assert server.recv(100) == text
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    for text in (b"three", b"four"):
        ours.send(text)
        assert theirs.recv(100) == text
"""
    (directory,) = record(program, "epolls")
    received = [(step.role, step.data) for step in read(directory) if "receive" in step.action]
    assert received == [
        *(("listener 1", text) for text in ("one", "", "two")),
        *(("pair 1 b", text) for text in ("three", "four")),
    ]


def test_urgent_data_is_called_that(record: Record) -> None:
    program = """
import eventlet
from eventlet import hubs
from eventlet.green import socket

def test_waits():
    listener = eventlet.listen(("127.0.0.1", 0))
    client = eventlet.connect(listener.getsockname())
    connection, _ = listener.accept()
    client.send(b"!", socket.MSG_OOB)
    with eventlet.Timeout(0.1):
        hubs.trampoline(connection, read=True)
        connection.recv(1, socket.MSG_OOB)
"""
    (epolls,), (asyncio,) = record(program, "epolls"), record(program, "asyncio")
    parting = part(read(epolls), read(asyncio))
    assert parting is not None
    assert parting.role == "connection 1"
    assert parting.left[0].action == "receive urgent data"
    assert not parting.right


def test_the_command_shows_both_sides_and_its_status_says_whether_they_part(
    record: Record, tmp_path: Path
) -> None:
    (epolls,), (asyncio,) = record(BY_HUB, "epolls"), record(BY_HUB, "asyncio")
    parted = diff(epolls, asyncio)
    assert parted.returncode == 1
    assert parted.stdout.startswith("they diverge on connection 1:\n")
    alike = diff(epolls, epolls)
    assert (alike.returncode, alike.stdout[:17]) == (0, "no difference in ")
    nothing = diff(epolls, tmp_path)
    assert nothing.returncode == 2
    assert nothing.stderr == (
        f"pytest-eventlet-debug: there is no {tmp_path}/strace.txt; record with --strace\n"
    )
    trace = (epolls / "strace.txt").read_text().splitlines(keepends=True)
    before = itertools.takewhile(lambda line: "/call/" not in line, trace)
    (tmp_path / "strace.txt").write_text("".join(before))
    idle = diff(tmp_path, tmp_path)
    assert (idle.returncode, idle.stderr[:42]) == (2, "pytest-eventlet-debug: nothing to compare:")


def test_the_command_says_once_of_each_trace_what_it_could_not_read(
    record: Record, tmp_path: Path
) -> None:
    ((epolls,),) = (record(BY_HUB, "epolls"),)
    damaged = tmp_path / "strace.txt"
    damaged.write_text("garbage\n" * 2 + (epolls / "strace.txt").read_text() + "rubbish\n")
    alike = diff(tmp_path, epolls)
    assert (alike.returncode, alike.stdout[:17]) == (0, "no difference in ")
    assert alike.stderr == (
        f"{damaged}: 3 lines are not in strace's format and are left out; the first is line 1\n"
    )
    damaged.unlink()
    damaged.mkdir()
    nothing = diff(epolls, tmp_path)
    assert nothing.returncode == 2
    assert nothing.stderr == f"pytest-eventlet-debug: {damaged}: cannot be read: Is a directory\n"
