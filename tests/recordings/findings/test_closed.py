"""Who closed a descriptor, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings.closed import Closed
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse

pytestmark = needs_strace

Find = Callable[..., list[Finding]]


def test_a_descriptor_that_another_greenthread_closed_names_that_one_and_the_line(
    find: Find,
) -> None:
    program = """
import os
import eventlet

def test_bad():
    reader, writer = os.pipe()
    def janitor():
        os.close(reader)
    eventlet.spawn(janitor).wait()
    try:
        os.read(reader, 1)
    except OSError:
        pass
    os.close(writer)
"""
    (found,) = find(program, Closed)
    assert re.fullmatch(
        r"read\((\d+)\) = -1 EBADF by greenthread \d+:test at test_program\.py:\d+ in test_bad: "
        r"\1<pipe:\[\d+\]> was closed "
        r"\d+(?: us|\.\d\d ms) before by greenthread \d+:janitor at test_program\.py:\d+ in "
        r"janitor \(line \d+\)",
        found.title,
    )
    assert [each.text.partition("(")[0] for each in found.evidence] == ["read", "close"]
    assert found.certainty == "certain"


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_accepting_on_a_closed_listener_names_who_closed_it(find: Find, hub: str) -> None:
    program = """
import eventlet

def test_accept():
    listener = eventlet.listen(("127.0.0.1", 0))
    def serve():
        connection, _ = listener.accept()
        eventlet.sleep(0)
        try:
            listener.accept()
        except OSError:
            pass
    server = eventlet.spawn(serve)
    def stop():
        client = eventlet.connect(listener.getsockname())
        listener.close()
        return client
    eventlet.spawn(stop).wait()
    server.wait()
"""
    (found,) = find(program, Closed, hub)
    assert found.title.startswith("accept4(-1) = -1 EBADF by greenthread ")
    assert re.search(r":serve at .+ in accept, from test_program\.py:\d+ in serve: ", found.title)
    assert "<TCP:[127.0.0.1:" in found.title
    assert re.search(r":stop at .+, from test_program\.py:\d+ in stop \(line ", found.title)


@pytest.mark.parametrize(("other", "found"), [("ours", True), ("third", False)])
def test_who_closed_what_a_greenthread_waits_to_receive_on_is_told(
    find: Find, other: str, found: bool
) -> None:
    program = f"""
import os
import eventlet
from eventlet.green import socket

def receive(sock):
    try:
        sock.recv(1)
    except OSError:
        pass

def test_receive():
    ours, theirs = socket.socketpair()
    third, fourth = socket.socketpair()
    third.close()
    kept = os.dup(ours.fileno())
    def stop():
        {other}.close()
        theirs.send(b"x")
    eventlet.spawn_after(0.02, stop)
    receive(ours)
    receive(third)
    os.close(kept)
"""
    told = [each.title for each in find(program, Closed, "epolls")]
    pattern = (
        r"recvfrom\(-1\) = -1 EBADF by .*: \d+<UNIX.* was closed .* by .*:stop at .* in stop \("
    )
    assert [bool(re.match(pattern, each)) for each in told] == [True] * found, told


def test_a_reset_names_who_closed_the_other_end(find: Find) -> None:
    program = """
import eventlet

def test_reset():
    listener = eventlet.listen(("127.0.0.1", 0))
    def serve():
        connection, _ = listener.accept()
        connection.close()
    def fetch():
        client = eventlet.connect(listener.getsockname())
        eventlet.sleep(0.05)
        try:
            for _ in range(3):
                client.sendall(b"x")
                eventlet.sleep(0.02)
        except OSError:
            pass
    eventlet.spawn(serve)
    eventlet.spawn(fetch).wait()
"""
    (found,) = find(program, Closed)
    assert found.title.startswith("sendto(")
    assert " = -1 EPIPE by greenthread " in found.title
    assert re.search(r":serve at .+, from test_program\.py:\d+ in serve \(line ", found.title)


HUBS_OWN = """
import os
import eventlet
from eventlet import hubs

def test_hub():
    hub = hubs.get_hub()
    ours = getattr(hub, "poll", None) or hub.loop._selector._selector
    reader, writer = eventlet.green.socket.socketpair()
    eventlet.spawn(reader.recv, 1)
    eventlet.sleep(0)
    eventlet.sleep(0)
    CLOSE
    try:
        eventlet.sleep(0.01)
    except (OSError, ValueError):
        pass
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
@pytest.mark.parametrize(
    ("close", "named"),
    [
        ("os.close(ours.fileno())", r"<anon_inode:\[eventpoll\]>"),
        ("os.closerange(ours.fileno(), ours.fileno() + 1)", r"(?:<anon_inode:\[eventpoll\]>)?"),
    ],
)
def test_who_closed_what_the_hub_waits_with_is_told(
    find: Find, hub: str, close: str, named: str
) -> None:
    found = find(HUBS_OWN.replace("CLOSE", close), Closed, hub=hub)
    told = [each for each in found if each.title.startswith("epoll_wait(")]
    assert len(told) == 1, found
    assert re.match(
        r"epoll_wait\((\d+)\) = -1 EBADF by greenthread \d+:hub at .*: "
        rf"\1{named} was closed \d+(?: us|\.\d\d ms) before by greenthread \d+:test at "
        r"test_program\.py:12 in test_hub \(line \d+\)",
        told[0].title,
    )
    assert told[0].certainty == "certain"


def test_closing_what_was_never_open_is_no_finding(find: Find) -> None:
    program = """
import os

def test_sweep():
    for number in range(300, 400):
        try:
            os.close(number)
        except OSError:
            pass
"""
    assert find(program, Closed) == []


def test_a_closed_socket_that_is_only_shown_is_no_finding(find: Find) -> None:
    program = """
import os
import socket

def test_shown():
    ours, theirs = socket.socketpair()
    os.close(ours.fileno())
    repr(ours)
    ours.detach()
    assert False
"""
    assert find(program, Closed) == []


def test_what_another_thread_closes_during_the_call_was_closed_meanwhile(tmp_path: Path) -> None:
    ours, theirs = "127.0.0.1:5001", "127.0.0.1:5002"
    (tmp_path / "strace.txt").write_text(
        f'7  100.000010 sendto(5<TCP:[{ours}->{theirs}]>, "x", 1, 0, NULL, 0 <unfinished ...>\n'
        f"8  100.000079 close(6<TCP:[{theirs}->{ours}]> <unfinished ...>\n"
        "8  100.000085 <... close resumed>) = 0 <0.000006>\n"
        "7  100.000099 <... sendto resumed>) = -1 EPIPE (Broken pipe) <0.000089>\n"
    )
    detection = Detection(About(), [Closed])
    with open_log(tmp_path / "strace.txt") as log:
        for _ in detection.watch(parse(log)):
            pass
    (found,) = detection.findings()
    assert "]> was closed meanwhile by thread 8 (line 2)" in found.title
    assert found.counts == {"seconds": 0}


def test_reading_what_is_open_for_writing_alone_is_no_finding(find: Find) -> None:
    program = """
import os
import pytest

def test_write_only(tmp_path):
    closed = os.open(tmp_path, os.O_RDONLY)
    os.close(closed)
    file = os.open(tmp_path / "file", os.O_WRONLY | os.O_CREAT)
    assert file == closed
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(file, 1)
    os.close(file)
"""
    assert find(program, Closed) == []


def test_a_number_that_was_given_out_again_names_to_whom(find: Find) -> None:
    program = """
import os
import eventlet
from eventlet.event import Event

def test_listener_whose_number_another_has():
    listener, given = eventlet.listen(("127.0.0.1", 0)), Event()
    def serve():
        connection, _ = listener.accept()
        given.wait()
        try:
            listener.accept()
        except OSError:
            pass
    server = eventlet.spawn(serve)
    client = eventlet.connect(listener.getsockname())
    eventlet.spawn(listener.close).wait()
    other = os.open("/etc/hosts", os.O_RDONLY)
    given.send()
    server.wait()
    os.close(other)

def test_pipe_whose_end_is_closed_twice():
    given = Event()
    def janitor():
        number = os.open("/etc/hosts", os.O_RDONLY)
        os.close(number)
        given.wait()
        os.close(number)
    def owner():
        number = os.open("/etc/hostname", os.O_RDONLY)
        given.send()
        twice.wait()
        try:
            os.read(number, 1)
        except OSError:
            pass
    twice = eventlet.spawn(janitor)
    eventlet.sleep(0)
    eventlet.spawn(owner).wait()
    twice.wait()
"""
    since, twice = sorted((each.title for each in find(program, Closed)), key=len, reverse=True)
    assert re.search(
        r"accept4\(-1\) = -1 EBADF by greenthread \d+:serve at .+: (\d+)<TCP:\S+> was "
        r"closed .*; "
        r"\1 was given to greenthread 1:test by openat since \(line \d+\)$",
        since,
    )
    assert re.search(
        r"read\((\d+)\) = -1 EBADF by greenthread \d+:owner at .+: \1</etc/hostname> was closed .* "
        r"by greenthread \d+:janitor at .+ \(line \d+\), which had closed a \1 of its own before "
        r"\(line \d+\)$",
        twice,
    )


def test_who_never_had_what_was_closed_may_mean_what_the_number_stood_for_before(
    find: Find,
) -> None:
    program = """
import os
import eventlet

def test_leaves_a_greenthread_with_a_number():
    reader, writer = os.pipe()
    def late():
        try:
            os.write(writer, b"!")
        except OSError:
            pass
    eventlet.spawn_after(0, late)
    os.close(reader)
    os.close(writer)

def test_opens_and_closes_what_has_that_number_now():
    for fd in os.pipe():
        os.close(fd)
    eventlet.sleep(0)
"""
    (found,) = find(program, Closed)
    assert re.search(r"write.* by greenthread \d+:late .* was closed .* by .*:test ", found.title)
    assert found.certainty == "likely"


@pytest.mark.parametrize(
    ("user", "certainty"),
    [
        ("1:opener", "certain"),
        ("2:closer", "certain"),
        ("3:server", "certain"),
        ("4:late", "likely"),
    ],
)
def test_who_opened_closed_or_accepted_on_it_meant_what_was_closed(
    detect: Find, user: str, certainty: str
) -> None:
    use = f"{user} read(5, 0x7, 1) = -1 EBADF (-)"
    (found,) = detect(
        Closed,
        "1:opener socket(AF_INET, SOCK_STREAM, 0) = 5<TCP:[1]>",
        "3:server accept4(5<TCP:[1]>, NULL, NULL, 0) = -1 EAGAIN (-)",
        "2:closer close(5<TCP:[1]>) = 0",
        "5:another getpid() = 7",
        use,
        use,
    )
    assert found.certainty == certainty
    assert found.evidence[0].line == 11  # the first of them
