"""What is read of a process from outside."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from pytest_eventlet_debug.children import proc

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")

PROGRAM = """
import signal
signal.signal(signal.SIGRTMIN, lambda *_: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print(flush=True)
input()
"""


def test_the_signals_that_a_process_blocks_and_catches_are_known() -> None:
    command = [sys.executable, "-S", "-c", PROGRAM]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        process.stdout.readline()
        around = [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN, 35, 36]
        blocked = [number for number in around if proc.blocks(process.pid, number)]
        caught = [number for number in around if proc.catches(process.pid, number)]
        process.communicate(b"\n")
    assert blocked == [signal.SIGUSR1]
    assert caught == [signal.SIGRTMIN]
