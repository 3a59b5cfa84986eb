"""Which ends of pipes and connections a process holds."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.recordings.findings.channels import Held
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: After all of the calls.
_LATER = 1_700_000_001 * 10**9

PIPE = "pipe2([5<pipe:[42]>, 6<pipe:[42]>], O_CLOEXEC) = 0"


def held(*calls: str) -> Held:
    known = Held()
    handlers = known.handlers()
    for event in parse(
        f"7 1700000000.00000{number} {call} <0.000010>" for number, call in enumerate(calls)
    ):
        assert isinstance(event, Syscall)
        if event.name in handlers:
            handlers[event.name](event)
    return known


@pytest.mark.parametrize(
    ("calls", "readers"),
    [
        ([PIPE], ["5<pipe:[42]>"]),
        ([PIPE, "close(5<pipe:[42]>) = 0"], []),
        ([PIPE, "close(5<pipe:[42]>) = -1 EBADF (Bad file descriptor)"], ["5<pipe:[42]>"]),
        ([PIPE, "dup2(9</dev/null>, 5<pipe:[42]>) = 5</dev/null>"], []),
        (
            [PIPE, "dup2(5<pipe:[42]>, 0</dev/pts/0>) = 0<pipe:[42]>", "close(5<pipe:[42]>) = 0"],
            ["0<pipe:[42]>"],
        ),
        (
            [PIPE, "fcntl(5<pipe:[42]>, F_DUPFD_CLOEXEC, 0) = 8<pipe:[42]>"],
            ["5<pipe:[42]>", "8<pipe:[42]>"],
        ),
        ([PIPE, "fcntl(5<pipe:[42]>, F_GETFL) = 0 (flags O_RDONLY)"], ["5<pipe:[42]>"]),
        ([PIPE, 'read(5<pipe:[43]>, "x", 1) = 1'], []),
        (['read(5<pipe:[42]>, "x", 1) = 1'], ["5<pipe:[42]>"]),
        (['write(5<pipe:[42]>, "x", 1) = 1'], []),
    ],
)
def test_the_reading_ends_of_a_pipe_that_a_process_holds(
    calls: list[str], readers: list[str]
) -> None:
    writer = end_of("1<pipe:[42]>")
    assert writer is not None
    assert [end.shown for end in held(*calls).readers(writer, _LATER)] == readers


def test_an_end_counts_as_held_at_a_time_before_it_was_closed() -> None:
    known = held(PIPE, "close(5<pipe:[42]>) = 0")
    writer = end_of("1<pipe:[42]>")
    assert writer is not None
    assert [end.shown for end in known.readers(writer, 1_700_000_000 * 10**9)] == ["5<pipe:[42]>"]


def test_either_end_of_a_socket_pair_reads_what_the_other_one_writes() -> None:
    pair = "[5<UNIX-STREAM:[42->43]>, 6<UNIX-STREAM:[43->42]>]"
    known = held(f"socketpair(AF_UNIX, SOCK_STREAM|SOCK_CLOEXEC, 0, {pair}) = 0")
    end = end_of("1<UNIX-STREAM:[43->42]>")
    assert end is not None
    assert [each.shown for each in known.readers(end, _LATER)] == ["5<UNIX-STREAM:[42->43]>"]
    assert [each.shown for each in known.writers(end, _LATER)] == ["5<UNIX-STREAM:[42->43]>"]


@pytest.mark.parametrize(
    "args",
    ["5</dev/null>, 1", "5<TCP:[42]>", "5<TCP:[127.0.0.1:80]>", "500<pipe:[42]>", "5", "-1"],
)
def test_what_is_no_end_of_a_channel_or_the_plugins_own(args: str) -> None:
    assert end_of(args) is None


def test_both_ends_of_a_connection_are_one_channel() -> None:
    here = end_of("5<TCPv6:[[::1]:80->[::1]:1234]>, 1")
    there = end_of("6<TCPv6:[[::1]:1234->[::1]:80]>, 1")
    assert here is not None
    assert there is not None
    assert here.channel == there.channel
    assert here.side != there.side
    assert here.shown == "5<TCPv6:[[::1]:80->[::1]:1234]>"
