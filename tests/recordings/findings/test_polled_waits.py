"""What hubs wait for that poll, from lines as strace writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_eventlet_debug.recordings.findings.polled_waits import Addition
from pytest_eventlet_debug.recordings.findings.polled_waits import Additions
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall

Wait = Callable[..., str]

SOCKET = "<TCP:[127.0.0.1:7->127.0.0.1:9]>"


def poll(*fds: int, more: str = "") -> str:
    entries = ", ".join(f"{{fd={fd}{SOCKET}, events=POLLIN}}" for fd in fds)
    return f"poll([{entries}{more}], {len(fds)}, 500) = 0 (Timeout)"


def select(*fds: int) -> str:
    numbers = " ".join(f"{fd}{SOCKET}" for fd in fds)
    return f"select(9, [{numbers}], [], [{numbers}], {{tv_sec=1, tv_usec=7}}) = 0 (Timeout)"


def runs(name: str) -> str:
    return f'access("/.eventlet-debug/greenlet/{name}", F_OK) = -1 ENOENT (No such file)'


HUB = runs("2/hub")


def additions(*calls: str) -> Additions:
    """Return what is known of the descriptors that the calls of one thread poll for."""
    found = Additions()
    for event in parse(f"7 1.{line:06} {call} <0.000001>\n" for line, call in enumerate(calls)):
        if isinstance(event, Switch):
            found.ran(event.pid, event.greenthread)
        elif isinstance(event, Syscall):
            found.waited(event)
    return found


@pytest.mark.parametrize("wait", [poll, select])
def test_who_ran_before_the_first_wait_for_a_descriptor_may_have_asked_for_it(wait: Wait) -> None:
    began = (HUB, wait(5), runs("1/test"), runs("3/serve"), HUB)
    found = additions(*began, wait(5, 6), runs("4/late"), HUB, wait(5, 6))
    assert found.find(7, 6) == Addition(6, ("1:test", "3:serve"))
    assert found.find(7, 5) is None  # it was there before
    assert additions(*began, wait(5, 6), HUB, wait(5)).find(7, 6) is None


def test_nothing_is_said_of_descriptors_of_which_strace_does_not_show_all() -> None:
    hidden = poll(5, more=", ...")
    assert additions(HUB, hidden, runs("3/serve"), HUB, poll(5, 6)).find(7, 6) is None
    # Those of a greenthread, which waits itself.
    assert additions(HUB, poll(5), runs("3/serve"), poll(6)).find(7, 6) is None
