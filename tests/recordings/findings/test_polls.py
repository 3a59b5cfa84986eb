"""What a wait asks for, from its arguments as strace writes them."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.recordings.findings.polls import Asked
from pytest_eventlet_debug.recordings.findings.polls import asked_for
from pytest_eventlet_debug.recordings.findings.polls import events_of
from pytest_eventlet_debug.recordings.findings.polls import timeout_ns
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Syscall

SOCKET = "<TCP:[127.0.0.1:7->127.0.0.1:9]>"
PIPE = "<pipe:[42]>"
TIMEOUT = "{tv_sec=1, tv_usec=7}"


def wait(text: str) -> Syscall:
    (call,) = parse([f"7 1.000001 {text} <0.000001>\n"])
    assert isinstance(call, Syscall)
    return call


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epoll_wait(5<anon_inode:[eventpoll]>, [], 1023, 60) = 0", 60_000_000),
        ("epoll_wait(5<anon_inode:[eventpoll]>, [], 1023, 0) = 0", 0),
        (
            "epoll_wait(5<anon_inode:[eventpoll]>, [], 1023, -1) = -1 EBADF (Bad file descriptor)",
            None,
        ),
        ("epoll_pwait(5<anon_inode:[eventpoll]>, [], 1023, 60, NULL, 8) = 0", 60_000_000),
        ("epoll_pwait(5<anon_inode:[eventpoll]>, [], 1023, 0, NULL, 8) = 0", 0),
        ("epoll_pwait(5<anon_inode:[eventpoll]>, [], 1023, -1, NULL, 8) = 0", None),
        ("ppoll([], 0, {tv_sec=0, tv_nsec=0}, NULL, 8) = 0 (Timeout)", 0),
        ("ppoll([], 0, NULL, NULL, 8) = 0 (Timeout)", None),
        ("select(6, [5], [], [], {tv_sec=60, tv_usec=0}) = 0 (Timeout)", 60_000_000_000),
        ("select(6, [5], [], [], {tv_sec=0, tv_usec=0}) = 0 (Timeout)", 0),
        ("pselect6(6, [5], NULL, NULL, {tv_sec=1, tv_nsec=9}, NULL) = 0 (Timeout)", 1_000_000_009),
        ("select(6, [5], [], [], NULL) = 1 (in [5])", None),
    ],
)
def test_a_wait_says_how_long_it_may_take(text: str, expected: int | None) -> None:
    assert timeout_ns(wait(text)) == expected


@pytest.mark.parametrize(
    ("text", "to_read", "others"),
    [
        ("poll([], 0, -1) = 0 (Timeout)", [], []),
        ("poll(NULL, 0, 5) = 0 (Timeout)", [], []),
        (
            f"poll([{{fd=5{SOCKET}, events=POLLIN|POLLPRI}}, {{fd=16{PIPE}, events=POLLOUT}}, "
            "{fd=-1}], 3, 9) = 0 (Timeout)",
            [f"5{SOCKET}"],
            [f"16{PIPE}"],
        ),
        (
            "ppoll([{fd=5, events=POLLIN}], 1, {tv_sec=1, tv_nsec=7}, NULL, 8) = 0 (Timeout)",
            ["5"],
            [],
        ),
        (
            f"select(17, [5{SOCKET} 16{PIPE}], [5{SOCKET} 7], [], {TIMEOUT}) = 0 (Timeout)",
            [f"5{SOCKET}", f"16{PIPE}"],
            ["7"],
        ),
        (f"select(8, NULL, [5{SOCKET} 7], NULL, {TIMEOUT}) = 0 (Timeout)", [], [f"5{SOCKET}", "7"]),
        ("select(0, NULL, NULL, NULL, {tv_sec=0, tv_usec=0}) = 0 (Timeout)", [], []),
    ],
)
def test_a_wait_names_what_it_asks_for_and_what_it_is_to_read(
    text: str, to_read: list[str], others: list[str]
) -> None:
    expected = [*(Asked(each, True) for each in to_read), *(Asked(each, False) for each in others)]
    asked = asked_for(wait(text))
    assert asked is not None
    assert list(asked.values()) == expected
    assert [each.shown.partition("<")[0] for each in asked.values()] == list(map(str, asked))


@pytest.mark.parametrize(
    "text",
    [
        "poll([{fd=5, events=POLLIN}, ...], 33, 9) = 0 (Timeout)",
        f"select(99, [5 6 ...], [], [], {TIMEOUT}) = 0 (Timeout)",
    ],
)
def test_nothing_is_known_of_a_list_that_strace_has_cut(text: str) -> None:
    assert asked_for(wait(text)) is None


@pytest.mark.parametrize(
    "text",
    [
        # strace 6.1
        "epoll_wait(5<anon_inode:[eventpoll]>, [{events=EPOLLOUT, data={u32=4, u64=4}}, "
        "{events=EPOLLIN|EPOLLHUP, data={u32=13, u64=140405811347469}}], 1023, 10) = 2",
        # strace 7.2
        "epoll_wait(5<anon_inode:[eventpoll]>, [{events=EPOLLOUT, data=0x4}, "
        "{events=EPOLLIN|EPOLLHUP, data=0x7fb30000000d}], 1023, 10) = 2",
        "poll([{fd=4<pipe:[42]>, events=POLLOUT}, {fd=13<pipe:[43]>, events=POLLIN}], 2, 10) = 2 "
        "([{fd=4, revents=POLLOUT}, {fd=13, revents=POLLIN|POLLHUP}])",
    ],
)
def test_a_wait_says_what_it_brought(text: str) -> None:
    brought = [(events.replace("EPOLL", "POLL"), fd) for events, fd in events_of(wait(text))]
    assert brought == [("POLLOUT", 4), ("POLLIN|POLLHUP", 13)]


def test_descriptor_0_comes_without_a_base() -> None:
    text = "epoll_wait(5<anon_inode:[eventpoll]>, [{events=EPOLLIN, data=0}], 1023, 10) = 1"
    assert events_of(wait(text)) == [("EPOLLIN", 0)]
