"""How a process ended, in words."""

from __future__ import annotations

import os
import signal

import pytest

from pytest_eventlet_debug.system import wait_status


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exit status 0"),
        (3 << 8, "exit status 3"),
        (signal.SIGSEGV, "SIGSEGV"),
        (signal.SIGSEGV | 0x80, "SIGSEGV"),  # with a core dump
        (40, "signal 40"),
    ],
)
def test_a_wait_status_is_an_exit_status_or_a_signal(status: int, words: str) -> None:
    assert wait_status.describe(status) == words


def test_it_is_what_a_process_ended_with() -> None:
    pid = os.fork()
    if not pid:
        os.kill(os.getpid(), signal.SIGKILL)
    assert wait_status.describe(os.waitpid(pid, 0)[1]) == "SIGKILL"
