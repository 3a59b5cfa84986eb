"""Connections that nobody accepts, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.not_accepted import NotAccepted

pytestmark = needs_strace

Find = Callable[..., list[Finding]]
FindEach = Callable[..., list[list[Finding]]]

PROGRAM = """
import os
import eventlet
from eventlet.green import socket

def listen(port=0):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(5)
    return listener

def serve(listener):
    peers.append(listener.accept()[0])

peers = []

def test_answer():
    listener = listen()
    port = listener.getsockname()[1]
    BEFORE
    client = eventlet.connect(("127.0.0.1", port))
    with eventlet.Timeout(SECONDS):
        client.recv(10)
"""


def program(before: str, seconds: float = 0.7) -> str:
    """Return a test that waits for an answer, after what it does before it connects."""
    return PROGRAM.replace("BEFORE", before).replace("SECONDS", str(seconds))


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_connection_that_waits_for_a_server_is_told_with_the_listener(
    find: Find, hub: str
) -> None:
    before = "server = eventlet.spawn(serve, listener); eventlet.connect(('127.0.0.1', port))"
    (found,) = find(program(f"{before}; server.wait()"), NotAccepted, hub)
    assert found.kind == "not accepted"
    assert found.certainty == "certain"
    assert re.fullmatch(
        r"greenthread 1:test waited for \d\.\d\d s for \d+<TCP:\[127\.0\.0\.1:\d+->\S+:\d+\]> "
        r"at test_program\.py:\d+ in test_answer, a connection that nobody accepted: the listener "
        r"\d+, made at test_program\.py:\d+ in listen, accepted one other",
        found.title,
    )


HELD_UP = """def first():
        while True:
            connection = listener.accept()[0]
            connection.recv(10)  # of one that says nothing
    eventlet.spawn(first)
    silent = eventlet.connect(('127.0.0.1', port))
    eventlet.sleep(0.01)"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_what_the_server_waits_for_instead_is_told(find: Find, hub: str) -> None:
    (found,) = find(program(HELD_UP), NotAccepted, hub)
    assert re.search(
        r"made at test_program\.py:\d+ in listen, accepted one other, and greenthread \d+:first, "
        r"which accepted there last, waited meanwhile for \d+<TCP:\S+> at test_program\.py:\d+ in "
        r"first \(line \d+\)$",
        found.title,
    )


FULL = """import resource
    eventlet.spawn(serve, listener)
    eventlet.sleep(0)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))  # for the client alone
    eventlet.spawn_after(0.3, resource.setrlimit, resource.RLIMIT_NOFILE, limits)"""


def test_an_accept_that_fails_is_told(find: Find) -> None:
    (found,) = find(program(FULL), NotAccepted)
    assert re.search(
        r"accepted none, its last accept4\(\) failed with EMFILE at test_program\.py:\d+ in serve "
        r"\(line \d+\)$",
        found.title,
    )


@pytest.mark.parametrize("hub", ["poll", "selects"])
def test_a_hub_that_polls_waits_for_the_connection_too(find: Find, hub: str) -> None:
    (found,) = find(program("eventlet.spawn(eventlet.sleep, 0)"), NotAccepted, hub)
    assert re.search(
        r"^greenthread 1:test waited for .*]> at test_program\.py:\d+ in test_answer, a connection "
        "that nobody accepted: the listener ",
        found.title,
    )


def test_a_second_listener_of_the_port_is_told(find: Find) -> None:
    (found,) = find(program("second = listen(port)"), NotAccepted)
    assert re.search(
        r": port \d+ has 2 listeners, \d+, made at test_program\.py:\d+ in listen, accepted none, "
        r"and \d+, made at test_program\.py:\d+ in listen, accepted none$",
        found.title,
    )


INHERITED = """import signal, subprocess
    PREPARE
    child = subprocess.Popen(["sh", "-c", "sleep 5; true"], close_fds=CLOSES)
    OTHERS
    eventlet.spawn_after(0.9, os.kill, child.pid, signal.SIGKILL)
    listener.close()"""


def inherited(prepare: str = "", others: str = "", closes: bool = False) -> str:
    """Return a test that connects to a closed listener, which a child may have inherited."""
    before = INHERITED.replace("PREPARE", prepare or "os.set_inheritable(listener.fileno(), True)")
    return program(before.replace("CLOSES", str(closes)).replace("OTHERS", others))


def test_a_child_that_has_inherited_a_closed_listener_is_told(find: Find) -> None:
    (found,) = find(inherited(), NotAccepted)
    assert re.search(
        r", a connection that nobody accepted: the listener \d+, made at test_program\.py:\d+ in "
        r"listen, accepted none, was closed at test_program\.py:\d+ in test_answer \(line \d+\), "
        r"but child process \d+ \(\S+ -c sleep 5; true\), started at test_program\.py:\d+ in "
        r"test_answer, has inherited it and goes on$",
        found.title,
    )


def test_who_has_a_closed_listener_is_not_told_if_it_is_not_sure(find_each: FindEach) -> None:
    programs = [
        # Two children may have it, or the test process has it.
        inherited(others="other = os.fork() or eventlet.sleep(2) or os._exit(0)"),
        inherited(prepare="copy = os.dup(listener.fileno())"),
    ]
    assert find_each(programs, NotAccepted) == [[], []]


ANOTHER_OF_THE_SAME_NUMBER = """number = listener.fileno()
    pid = os.fork()
    if pid == 0:
        os.close(number)
        plain = eventlet.patcher.original("socket")
        other = plain.create_server(("127.0.0.1", 0))
        client = plain.create_connection(other.getsockname())
        other.accept()
        os._exit(other.fileno() != number)
    assert os.waitpid(pid, 0)[1] == 0"""


def test_what_a_listener_of_a_child_accepts_does_not_count(find: Find) -> None:
    (found,) = find(program(ANOTHER_OF_THE_SAME_NUMBER), NotAccepted)
    assert found.title.endswith("in listen, accepted none")


CHILD = """pid = os.fork()
    if pid == 0:
        connection = listener.accept()[0]
        connection.recv(10)
        os._exit(0)"""


def test_a_connection_that_is_accepted_or_may_be_is_not_told(find_each: FindEach) -> None:
    programs = {
        "accepted": program("eventlet.spawn(serve, listener)"),
        "by a child": program(CHILD),
        "another listener was closed": program("listen(port).close()"),
        "for too short a time": program("listener.accept = None", seconds=0.1),
    }
    assert find_each(list(programs.values()), NotAccepted) == [[]] * len(programs)
