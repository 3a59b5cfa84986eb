"""Greenthreads for which something had come when the test ended, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
import re

from needs import needs_strace

from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.no_turn import NoTurn

pytestmark = needs_strace

Find = Callable[..., list[Finding]]
FindEach = Callable[..., list[list[Finding]]]

PROGRAM = """
import eventlet
from eventlet.green import socket

def test_server():
    ours, theirs = socket.socketpair()
    def serve():
        while theirs.recv(10):
            pass
    server = eventlet.spawn(serve)
    eventlet.sleep(0)
    END
    assert False
"""


def test_who_runs_a_turn_later_than_the_test_is_told(find: Find) -> None:
    program = PROGRAM.replace("END", "ours.send(b'x'); eventlet.sleep(0)")
    (found,) = find(program, NoTurn, "asyncio")
    assert found.kind == "no turn"
    assert re.fullmatch(
        r"the test ended before greenthread \d:serve had its turn, though what that waits for had "
        r"come: EPOLLIN on \d+<UNIX-STREAM:\[\S+\]>, asked for at \S+ in register, from "
        r"test_program\.py:7 in serve \(line \d+\); the asyncio hub first runs those whose sleep "
        r"is over",
        found.title,
    )
    assert found.evidence[0].text.startswith("epoll_wait(")
    assert find(program, NoTurn, "epolls") == []


def test_who_had_its_turn_or_nothing_to_do_is_not_told(find_each: FindEach) -> None:
    ends = {
        "has run": "ours.send(b'x'); eventlet.sleep(0); eventlet.sleep(0)",
        "not asked": "ours.send(b'x')",
        "killed": "ours.send(b'x'); eventlet.sleep(0); server.kill()",
        "closed": "ours.send(b'x'); eventlet.sleep(0); theirs.close()",
        "nothing came": "eventlet.sleep(0)",
    }
    programs = [PROGRAM.replace("END", end) for end in ends.values()]
    assert find_each(programs, NoTurn, "asyncio") == [[]] * len(ends)
