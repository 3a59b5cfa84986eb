"""Which call sent a packet."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.attribution import Call
from pytest_eventlet_debug.recordings.attribution import Socket
from pytest_eventlet_debug.recordings.attribution import address_in
from pytest_eventlet_debug.recordings.attribution import socket_of
from pytest_eventlet_debug.recordings.packets import ACK
from pytest_eventlet_debug.recordings.packets import FIN
from pytest_eventlet_debug.recordings.packets import RST
from pytest_eventlet_debug.recordings.packets import SYN
from pytest_eventlet_debug.recordings.packets import Endpoint
from pytest_eventlet_debug.recordings.packets import Segment
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Syscall

A, B = Endpoint("127.0.0.1", 1000), Endpoint("127.0.0.1", 2000)
CLIENT = "5<TCP:[127.0.0.1:1000->127.0.0.1:2000]>"
SERVER = "6<TCP:[127.0.0.1:2000->127.0.0.1:1000]>"
TO_B = '{sa_family=AF_INET, sin_port=htons(2000), sin_addr=inet_addr("127.0.0.1")}'


def known(*calls: str) -> Attribution:
    """Take calls that are entered at 1.000000, 1.000100, 1.000200 and so on."""
    lines = [f"7 1.{number:04}00 {call} <0.000005>\n" for number, call in enumerate(calls)]
    return Attribution(event for event in parse(lines) if type(event) is Syscall)


def at(microseconds: float) -> int:
    return 1_000_000_000 + int(microseconds * 1000)


def tcp(payload: int, sequence: int, flags: int = ACK, *, back: bool = False) -> Segment:
    source, target = (B, A) if back else (A, B)
    return Segment("tcp", source, target, payload, 54, sequence % 2**32, flags, False)


def line(call: Call | None) -> int | None:
    return None if call is None else call.line


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (f"{CLIENT}, 1", Socket(5, "tcp", A, B)),
        ("5<TCPv6:[[::1]:1->[::1]:2]>", Socket(5, "tcp", Endpoint("::1", 1), Endpoint("::1", 2))),
        ("5<TCPv6:[[::ffff:127.0.0.1]:1000->[::ffff:127.0.0.1]:2000]>", Socket(5, "tcp", A, B)),
        ("9<UDP:[127.0.0.1:1000]>, 0", Socket(9, "udp", A, None)),
        ("9<TCP:[218556]>", Socket(9, "tcp", None, None)),
        ("9<TCP:[999.0.0.1:1]>", Socket(9, "tcp", None, None)),
        ("9<UNIX:[1->2]>", None),
        ("-1, SHUT_RDWR", None),
        ("", None),
    ],
)
def test_a_descriptor_names_its_socket(args: str, expected: Socket | None) -> None:
    assert socket_of(args) == expected


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (f"3, {TO_B}, 16", B),
        (
            "3, {sa_family=AF_INET6, sin6_port=htons(80), sin6_flowinfo=htonl(0), inet_pton("
            'AF_INET6, "::1", &sin6_addr), sin6_scope_id=0}, 28',
            Endpoint("::1", 80),
        ),
        ('3, {sa_family=AF_UNIX, sun_path="/x"}, 110', None),
    ],
)
def test_an_address_among_the_arguments_is_read(args: str, expected: object) -> None:
    assert address_in(args) == expected


@pytest.mark.parametrize("isn", [0, 4_000_000_000, 2**32 - 3])
def test_a_byte_leads_to_the_call_that_wrote_it(isn: int) -> None:
    calls = known(
        f"connect(5<TCP:[99]>, {TO_B}, 16) = 0",
        f'sendto({CLIENT}, "abc", 3, 0, NULL, 0) = 3',
        f'write({CLIENT}, "d", 1) = 1',
        f'sendto({CLIENT}, "e", 1, 0, NULL, 0) = -1 EAGAIN (Resource temporarily unavailable)',
        f"sendmsg({CLIENT}, {{msg_iov=...}}, 0) = 4",
        f'recvfrom({SERVER}, "abc", 3, MSG_PEEK, NULL, NULL) = 3',
        f'recvfrom({SERVER}, "abcd", 9, 0, NULL, NULL) = 4',
        f'read({SERVER}, "efgh", 9) = 4',
    )
    syn = tcp(0, isn, SYN)
    assert line(calls.sender(syn, at(20))) == 1
    assert calls.sender(tcp(0, 7, SYN | ACK, back=True), at(30)) is None
    assert line(calls.sender(tcp(3, isn + 1), at(120))) == 2
    assert line(calls.sender(tcp(1, isn + 4), at(220))) == 3
    assert line(calls.sender(tcp(2, isn + 7), at(420))) == 5
    assert line(calls.sender(tcp(3, isn + 1), at(900))) == 2  # once more
    assert calls.sender(tcp(1, isn + 9), at(920)) is None
    assert calls.sender(tcp(0, isn + 9), at(920)) is None
    assert line(calls.receiver(tcp(3, isn + 1))) == 7
    assert line(calls.receiver(tcp(2, isn + 5))) == 8
    assert calls.owner(tcp(0, 0, back=True)) == 6


def test_a_connection_older_than_the_capture_begins_with_the_call_under_way() -> None:
    calls = known(f'write({CLIENT}, "abc", 3) = 3', f'write({CLIENT}, "d", 1) = 1')
    assert line(calls.sender(tcp(1, 77), at(110))) == 2
    assert line(calls.sender(tcp(3, 74), at(120))) == 1


def test_what_is_spliced_from_a_pipe_belongs_to_the_socket_that_it_goes_to() -> None:
    calls = known(f"splice(7<pipe:[1]>, NULL, {CLIENT}, NULL, 3, 0) = 3")
    assert line(calls.sender(tcp(3, 77), at(10))) == 1


def test_the_same_ends_may_connect_again() -> None:
    calls = known(
        f'write({CLIENT}, "abc", 3) = 3',
        f"close({CLIENT}) = 0",
        f"connect(5<TCP:[99]>, {TO_B}, 16) = 0",
        f'write({CLIENT}, "x", 1) = 1',
    )
    calls.sender(tcp(0, 100, SYN), at(-10))
    assert line(calls.sender(tcp(3, 101), at(10))) == 1
    assert line(calls.sender(tcp(0, 104, FIN | ACK), at(110))) == 2
    assert line(calls.sender(tcp(0, 900, SYN), at(210))) == 3
    assert line(calls.sender(tcp(1, 901), at(310))) == 4


def test_the_end_of_a_connection_belongs_to_the_call_just_before() -> None:
    calls = known(f"shutdown({CLIENT}, SHUT_WR) = 0", f"close({CLIENT}) = 0")
    assert line(calls.sender(tcp(0, 1, FIN | ACK), at(20))) == 1
    assert line(calls.sender(tcp(0, 1, RST), at(120))) == 2
    assert calls.sender(tcp(0, 1, RST), at(90_000)) is None
    assert calls.sender(tcp(0, 1, RST, back=True), at(20)) is None


def test_a_call_that_never_returned_sent_the_rest() -> None:
    calls = Attribution(
        event
        for event in parse([f'7 1.000000 write({CLIENT}, "abc", 900000 <unfinished ...>\n'])
        if type(event) is Syscall
    )
    calls.sender(tcp(0, 100, SYN), at(-10))
    assert line(calls.sender(tcp(65000, 65101), at(10))) == 1


def udp(payload: int) -> Segment:
    return Segment("udp", A, B, payload, 42, 0, 0, False)


@pytest.mark.parametrize(
    "descriptor",
    ["9<UDP:[127.0.0.1:1000]>", "9<UDP:[0.0.0.0:1000]>", "9<UDP:[4711]>"],
)
def test_a_datagram_belongs_to_the_last_call_that_fits(descriptor: str) -> None:
    elsewhere = TO_B.replace("2000", "2001")
    calls = known(
        f'sendto({descriptor}, "abc", 3, 0, {TO_B}, 16) = 3',
        f'sendto({descriptor}, "abc", 3, 0, {TO_B}, 16) = 3',
        f'sendto({descriptor}, "abc", 3, 0, {elsewhere}, 16) = 3',
        f'sendto({descriptor}, "abcd", 4, 0, {TO_B}, 16) = 4',
    )
    assert line(calls.sender(udp(3), at(20))) == 1
    assert line(calls.sender(udp(3), at(420))) == 2
    assert line(calls.sender(udp(4), at(420))) == 4
    assert calls.sender(udp(5), at(420)) is None


@pytest.mark.parametrize(
    ("call", "segment"),
    [
        (f'sendto(9<UDP:[{A}->{B}]>, "x", 1, 0, NULL, 0) = 1', udp(1)),
        (f"connect(5<TCP:[1]>, {TO_B}, 16) = 0", tcp(0, 0, SYN)),
    ],
    ids=["datagrams", "connections"],
)
def test_thousands_of_calls_on_one_socket_are_searched_quickly(call: str, segment: Segment) -> None:
    count = 10_000
    calls = known(*[call] * count)

    began = time.process_time()
    found = [line(calls.sender(segment, at(100 * number + 10))) for number in range(count)]

    assert time.process_time() - began < 1.0  # where each search looks at all calls, four seconds
    assert found == list(range(1, count + 1))


def test_the_ports_of_a_trace_are_those_of_its_sockets() -> None:
    calls = known(
        "listen(3<TCP:[127.0.0.1:80]>, 5) = 0",
        f"connect(5<TCP:[99]>, {TO_B}, 16) = 0",
        'sendto(9<UDP:[4711]>, "abc", 3, 0, {sa_family=AF_INET, sin_port=htons(53), '
        'sin_addr=inet_addr("127.0.0.53")}, 16) = 3',
        'write(4</tmp/x:[1:2]>, "abc", 3) = 3',
    )
    assert calls.ports == {80, 2000, 53}


@settings(max_examples=150)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["sendto", "write", "sendmsg", "connect", "close", "splice", "read"]),
            st.one_of(st.sampled_from([CLIENT, SERVER, TO_B]), st.text(max_size=40)),
            st.one_of(st.none(), st.integers(-1, 2**40)),
        ),
        max_size=8,
    ),
    st.lists(st.integers(0, 2**32 - 1), max_size=8),
)
def test_no_trace_is_too_strange(
    calls: list[tuple[str, str, int | None]], sequences: list[int]
) -> None:
    attribution = Attribution(
        Syscall(number, 7, at(number), name, args, "", value, None, None, None, "returned")
        for number, (name, args, value) in enumerate(calls)
    )
    for number, sequence in enumerate(sequences):
        segment = tcp(number % 3, sequence, (ACK, SYN, FIN, RST)[number % 4])
        for call in attribution.sender(segment, at(number)), attribution.receiver(segment):
            assert call is None or call.name == calls[call.line][0]
