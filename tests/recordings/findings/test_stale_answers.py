"""Answers that may be those to the requests of others, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.stale_answers import StaleAnswers
from pytest_eventlet_debug.recordings.strace_log import parse

pytestmark = needs_strace

Find = Callable[..., list[Finding]]

PROGRAM = """
import eventlet
from eventlet.green import socket

def serve(listener):
    connection = listener.accept()[0]
    while request := connection.recv(20):
        if request.startswith(b"slow"):
            go_on.wait()
        connection.sendall(b"answer to " + request)

go_on = eventlet.Event()

def ask(client, request):
    client.sendall(request)
    return client.recv(100)

def test_answer():
    listener = eventlet.listen(("127.0.0.1", 0))
    eventlet.spawn(serve, listener)
    client = eventlet.connect(listener.getsockname())
    first = eventlet.spawn(ask, client, b"slow")
    eventlet.sleep(0.01)
    END
    eventlet.spawn_after(0.01, go_on.send)
    ask(client, b"quick")
"""


def program(end: str) -> str:
    """Return a test that goes on with a connection after what ends the first use of it."""
    return PROGRAM.replace("END", end)


@pytest.mark.parametrize("hub", ["epolls", "asyncio", "poll"])
def test_an_answer_that_comes_after_its_greenthread_was_killed_is_told(
    find: Find, hub: str
) -> None:
    (found,) = find(program("first.kill()"), StaleAnswers, hub)
    assert found.kind == "stale answer"
    assert found.certainty == "likely"
    assert re.fullmatch(
        r'on \d+<TCP:\S+> greenthread 1:test sent "quick" at test_program\.py:\d+ in ask and got '
        r'"answer to slow(?:answer to quick)?" \(line \d+\): that, or its beginning, may be the '
        r'answer to "slow" of greenthread \d+:ask, '
        r"which sent that at test_program\.py:\d+ in ask \(line \d+\), waited \(line \d+\), "
        r"and ran again without reading it",
        found.title,
    )


NEW_CONNECTION = """first.kill()
    client.close()
    eventlet.spawn(serve, listener)
    client = eventlet.connect(listener.getsockname())"""
SAME_GREENTHREAD = """go_on.send()
    first.wait()
    go_on.reset()
    with eventlet.Timeout(0.01, False):
        ask(client, b"slow")"""


@pytest.mark.parametrize(
    "end",
    [
        "go_on.send(); first.wait(); go_on.reset()",
        NEW_CONNECTION,
        SAME_GREENTHREAD,
        "eventlet.spawn_after(0.005, go_on.send); client.sendall(b'more')",
    ],
    ids=["read", "another connection", "its own", "still waited for"],
)
def test_what_is_no_answer_to_what_was_given_up_is_not_told(find: Find, end: str) -> None:
    found = find(program(end), StaleAnswers)
    assert [each.title for each in found if "greenthread 1:test sent" in each.title] == []


MARK = '7 {0}.0 access("/.eventlet-debug/greenlet/{1}", F_OK) = -1 ENOENT (-) <0.000001>\n'
USED = (
    '7 1.0 access("/.eventlet-debug/phase/1/call/test_b", F_OK) = -1 ENOENT (-) <0.000001>\n'
    + MARK.format(2, "1/test")
    + "7 3.0 connect(5<TCP:[1]>, {sa_family=AF_INET}, 16) = 0 <0.000001>\n"
    + "CLOSED"
    + MARK.format(5, "3/first")
    + '7 6.0 sendto(5<TCP:[1:1->2:2]>, "slow", 4, 0, NULL, 0) = 4 <0.000001>\n'
    + "7 7.0 recvfrom(5<TCP:[1:1->2:2]>, 0x7, 9, 0, NULL, NULL) = -1 EAGAIN (-) <0.000001>\n"
    + MARK.format(8, "1/test")
    + MARK.format(9, "3/first")
    + MARK.format(10, "1/test")
    + '7 11.0 sendto(5<TCP:[1:1->2:2]>, "quick", 5, 0, NULL, 0) = 5 <0.000001>\n'
    + '7 12.0 recvfrom(5<TCP:[1:1->2:2]>, "late", 9, 0, NULL, NULL) = 4 <0.000001>\n'
)
HUB_CLOSES = MARK.format(4, "2/hub") + "7 4.0 close(5<TCP:[1:1->3:3]>) = 0 <0.000001>\n"


@pytest.mark.parametrize(("closed", "count"), [("", 1), (HUB_CLOSES, 0)])
def test_a_number_that_was_a_clients_before_is_not_taken_for_one(closed: str, count: int) -> None:
    detection = Detection(About(), [StaleAnswers])
    for _ in detection.watch(parse(USED.replace("CLOSED", closed).splitlines(keepends=True))):
        pass
    assert len(list(detection.findings())) == count


def test_a_connection_that_another_uses_while_the_first_waits_is_shared() -> None:
    detection = Detection(About(), [StaleAnswers])
    trace = USED.replace("CLOSED", "").replace(MARK.format(9, "3/first"), "")
    for _ in detection.watch(parse(trace.splitlines(keepends=True))):
        pass
    assert list(detection.findings()) == []


def test_nothing_is_told_of_a_test_that_passes() -> None:
    detection = Detection(About(passed=True), [StaleAnswers])
    assert list(detection.findings()) == []


# What py-amqp 5.3 and RabbitMQ 3.10 send, and how py-amqp reads it: the header of a frame, then
# the rest.
OPEN = r"\1\0\2\0\0\0\5\0\24\0\n\0\316"
DECLARE = r"\1\0\1\0\0\0\f\0002\0\n\0\0\0\f\0\0\0\0\316"
DECLARE_2 = r"\1\0\2\0\0\0\f\0002\0\n\0\0\0\f\0\0\0\0\316"
PUBLISH = r"\1\0\1\0\0\0\20\0<\0(\0\0\0\7nowhere\0\316\2\0\1\0\0\0\20\0<\0\0\0\0\0\0\0\0\0"
ACK = r"\1\0\1\0\0\0\r\0<\0P\0\0\0\0\0\0\0\3\0\316"
HEARTBEAT = r"\10\0\0\0\0\0\0\316"
DECLARED = [r"\1\0\1\0\0\0+", r"\0002\0\v\36amq.gen-y5pBRG73y3jOy1dhYbRJBA\0\0\0\0\0\0\0\0\316"]
DELIVERED = [r"\1\0\1\0\0\0\v", r"\0<\0<\0019\0\0\0\0\316"]
UNBIND = r"\1\0\1\0\0\0\v\0(\0(\0\0\0\0\0\0\0\316"
UNBOUND = [r"\1\0\1\0\0\0\4\0(\0003\316"]


def to_a_broker(first: str, second: str, read: list[str]) -> str:
    """Return a trace of what two greenthreads send to an AMQP broker and the second one reads."""
    head, _, end = USED.replace("CLOSED", "").partition(MARK.format(5, "3/first"))
    greeting = '7 4.0 sendto(5<TCP:[1:1->2:2]>, "AMQP\\0\\0\\t\\1", 8, 0, NULL, 0) = 8 <0.000001>\n'
    end = end.replace("slow", first).replace("quick", second)
    last = end[end.index("7 12.0") :]
    reads = "".join(last.replace("late", each) for each in read)
    return head + greeting + MARK.format(5, "3/first") + end.replace(last, reads)


@pytest.mark.parametrize(
    ("first", "second", "read", "got"),
    [
        (DECLARE, DECLARE, DECLARED, r'"\0002\0\v'),
        (DECLARE, DECLARE, ["".join(DECLARED)], r'"\1\0\1\0\0\0+'),
        (DECLARE, DECLARE, DELIVERED + DECLARED, r'"\0002\0\v'),
        (UNBIND, DECLARE, UNBOUND, r'"\1\0\1'),
        (DECLARE, DECLARE_2, DECLARED, None),
        (DECLARE, DECLARE, DELIVERED, None),
        (DECLARE, ACK, DECLARED, None),
        (ACK, DECLARE, DECLARED, None),
        (PUBLISH, DECLARE, DECLARED, None),
        (HEARTBEAT, OPEN, [r"\1\0\2\0\0\0\10\0\24\0\v\0\0\0\0\316"], None),
    ],
    ids=[
        "header first",
        "whole frame",
        "behind a delivery",
        "unbind",
        "another channel",
        "a delivery only",
        "the second asks nothing",
        "ack",
        "publish",
        "heartbeat",
    ],
)
def test_of_a_broker_only_what_answers_the_method_is_told(
    first: str, second: str, read: list[str], got: str | None
) -> None:
    detection = Detection(About(), [StaleAnswers])
    trace = to_a_broker(first, second, read).splitlines(keepends=True)
    for _ in detection.watch(parse(trace)):
        pass
    titles = [each.title for each in detection.findings()]
    assert [f"and got {got}" in each for each in titles] == ([] if got is None else [True])
