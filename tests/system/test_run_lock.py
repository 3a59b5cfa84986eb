"""Locks of runs, and those who look at them."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

from pytest_eventlet_debug.system import run_lock


def test_who_looks_whether_a_run_goes_on_keeps_no_other_one_from_beginning(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    looks = (
        "import sys; from pathlib import Path; from pytest_eventlet_debug.system import run_lock\n"
        "print(flush=True)\n"
        "while True: run_lock.is_held(Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", looks, lock]
    others = run_lock.descriptors()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as looking:
        assert looking.stdout is not None
        looking.stdout.readline()
        held = 0
        for _ in range(10_000):
            held += run_lock.hold(lock, shared=False)
            for fd in run_lock.descriptors() - others:
                run_lock._close(fd)
        looking.kill()
    assert held == 10_000
