"""Numbers of descriptors that were given to somebody else, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
import re

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.reused import Reused

pytestmark = needs_strace

Find = Callable[..., list[Finding]]

PROGRAM = """
import os
import socket
import eventlet
from eventlet.event import Event
from eventlet.green import socket as green

def test_waits_on_a_socket_that_another_closes():
    old, other = green.socketpair()
    waiter = eventlet.spawn(reader, old)
    eventlet.sleep(0)
    eventlet.spawn(janitor, old.fileno())
    number, sender = eventlet.spawn(owner).wait()  # before the hub polls
    assert number == old.fileno()
    waiter.wait()
    old.detach()

def reader(sock):
    assert sock.recv(10) == b"secret"

def janitor(fd):
    os.close(fd)

def owner():
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    sender.send(b"secret")
    return receiver.detach(), sender

def test_reads_what_belongs_to_another():
    numbers, given = [], Event()
    holding = eventlet.spawn(holder, numbers, given)
    eventlet.sleep(0)
    eventlet.spawn(janitor, numbers[0]).wait()
    owning = eventlet.spawn(other_owner, given, holding)
    holding.wait()
    owning.wait()

def holder(numbers, given):
    numbers.append(os.open("/etc/hostname", os.O_RDONLY))
    given.wait()
    os.read(numbers[0], 10)

def other_owner(given, holding):
    number = os.open("/etc/hosts", os.O_RDONLY)
    os.read(number, 1)
    given.send()
    holding.wait()
    os.read(number, 1)
    os.close(number)

def test_a_worker_is_handed_the_next_one():
    def open_one():
        return os.open("/etc/hosts", os.O_RDONLY)
    def work(number):
        os.read(number, 1)
    for _ in range(3):
        number = eventlet.spawn(open_one).wait()
        os.read(number, 1)
        eventlet.spawn(work, number).wait()
        eventlet.spawn(janitor, number).wait()
    mine = os.open("/etc/hosts", os.O_RDONLY)
    eventlet.spawn(janitor, mine).wait()
    number = eventlet.spawn(open_one).wait()
    os.read(number, 1)
    os.close(number)
"""


def test_a_number_that_was_given_to_another_names_all_three(find: Find) -> None:
    held, waited = sorted(find(PROGRAM, Reused, "poll"), key=lambda each: "waited" in each.title)
    # Each call has its line of Python, where these are marked.
    places = r" at \S+:\d+ in \w+(?:, from \S+:\d+ in \w+)?"
    titles = [re.sub(places, "", each.title) for each in (held, waited)]
    assert re.fullmatch(
        r"read\((\d+)</etc/hosts>\) by greenthread \d+:holder, which got \1 from openat as "
        r"\1</etc/hostname> \(line \d+\): greenthread \d+:janitor closed that \(line \d+\) and "
        r"greenthread \d+:other_owner got \1 from openat \(line \d+\)",
        titles[0],
    )
    assert re.fullmatch(
        r"recvfrom\((\d+)<UNIX\S+>\) by greenthread \d+:reader, which waited on \1<UNIX\S+> "
        r"\(line \d+\): greenthread \d+:janitor closed that \(line \d+\) and "
        r"greenthread \d+:owner got \1 from socketpair \(line \d+\)",
        titles[1],
    )
    assert {held.certainty, waited.certainty} == {"likely"}


HANDED_OVER = """
import os
import socket
import eventlet
from eventlet.event import Event
from eventlet.green import socket as green
from eventlet.hubs import get_hub

def janitor(fd):
    os.close(fd)

def owner():
    receiver, sender = socket.socketpair()
    receiver.setblocking(False)
    return receiver.detach(), sender

def test_stops_waiting_before_the_close():
    old, other = green.socketpair()
    given = Event()
    waiting = eventlet.spawn(gives_up, old, given)
    eventlet.sleep(0.05)
    eventlet.spawn(janitor, old.fileno()).wait()
    number, sender = eventlet.spawn(owner).wait()
    assert number == old.fileno()
    sender.send(b"x")
    given.send(number)
    waiting.wait()
    old.detach()

def gives_up(sock, given):
    with eventlet.Timeout(0.01, False):
        sock.recv(10)
    green.socket(fileno=given.wait()).recv(10)

def test_stops_waiting_after_the_close():
    old, other = green.socketpair()
    handed = []
    waiting = eventlet.spawn(goes_on, old, handed)
    eventlet.sleep(0)
    eventlet.spawn(janitor, old.fileno())
    number, sender = eventlet.spawn(owner).wait()
    assert number == old.fileno()
    handed += [number, sender]
    waiting.wait()
    old.detach()

def goes_on(sock, handed):
    with eventlet.Timeout(0.05, False):
        sock.recv(10)
    eventlet.sleep(0)
    number, sender = handed
    sender.send(b"x")
    green.socket(fileno=number).recv(10)

def test_the_hub_closes_garbage():
    old, other = green.socketpair()
    waiter = eventlet.spawn(old.recv, 10)
    eventlet.sleep(0)
    get_hub().schedule_call_global(0, os.close, old.fileno())
    number, sender = eventlet.spawn(owner).wait()
    assert number == old.fileno()
    sender.send(b"x")
    waiter.wait()
    old.detach()
"""


def test_a_number_that_was_handed_over_or_closed_by_the_hub_is_not_told(find: Find) -> None:
    assert find(HANDED_OVER, Reused, "poll") == []


STALE = """
import asyncio
import os
import eventlet
from eventlet import hubs
from eventlet.green import socket

def test_changes_a_number_that_stands_for_another():
    old, other = socket.socketpair()
    waiter = eventlet.spawn(reader, old)
    eventlet.sleep(0)
    eventlet.spawn(os.close, old.fileno()).wait()
    new, sender = pair()
    assert new.fileno() == old.fileno()
    try:
        hubs.get_hub().loop.add_writer(new.fileno(), print)
    except FileNotFoundError:
        pass
    waiter.kill()
    old.fd.detach()

def pair():
    import socket
    return socket.socketpair()

def reader(sock):
    sock.recv(10)
"""


def test_a_loop_that_takes_a_number_for_what_is_closed_is_told(find: Find) -> None:
    (found,) = find(STALE, Reused, "asyncio")
    assert found.certainty == "certain"
    assert re.fullmatch(
        r"epoll_ctl\(EPOLL_CTL_MOD, (\d+)<UNIX-STREAM:\[\d+->\d+\]>\) = -1 ENOENT at \S+:\d+ in "
        r"\w+(?:, from \S+:\d+ in test_\w+)?: its event loop still has "
        r"\1<UNIX-STREAM:\[\d+->\d+\]> there, which greenthread \d+:reader waited for at .*"
        r":\d+ in reader \(line \d+\); greenthread \d+:close closed that.* \(line \d+\) and "
        r"greenthread 1:test got \1 from socketpair.* \(line \d+\)",
        found.title,
    ), found.title


@pytest.mark.parametrize(
    ("uses", "count"),
    [
        (["4:owner", "2:holder", "4:owner"], 1),
        (["2:holder", "4:owner"], 0),  # it was handed over before
        (["4:owner", "2:holder"], 0),  # and here afterwards
    ],
)
def test_only_who_uses_a_number_amid_its_owner_takes_it_for_the_old_one(
    detect: Find, uses: list[str], count: int
) -> None:
    found = detect(
        Reused,
        '2:holder openat(AT_FDCWD, "/old", O_RDONLY) = 5</old>',
        "3:janitor close(5</old>) = 0",
        '4:owner openat(AT_FDCWD, "/new", O_RDONLY) = 5</new>',
        *(f'{who} read(5</new>, "x", 1) = 1' for who in uses),
    )
    assert len(found) == count
