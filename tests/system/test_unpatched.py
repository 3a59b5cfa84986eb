"""unpatched: what it does never yields to the hub."""

from __future__ import annotations

import os
from pathlib import Path
import platform
import signal
import socket
import subprocess
import sys
import textwrap
import threading

from programs import TICKER
import pytest

from pytest_eventlet_debug.system import unpatched

HUBS = ["epolls", "asyncio"]


def run_program(program: str, hub: str = "epolls") -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        env={**os.environ, "EVENTLET_HUB": hub},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("hub", HUBS)
@pytest.mark.parametrize("first", ["eventlet", "unpatched"])
def test_waiting_and_reading_switches_no_greenthread(hub: str, first: str) -> None:
    imports = [TICKER, "from pytest_eventlet_debug.system import unpatched"]
    program = "\n".join(imports if first == "eventlet" else reversed(imports))
    program += textwrap.dedent("""
        import posix
        assert ticks
        before = ticks
        read_end, write_end = posix.pipe()
        assert unpatched.wait_readable([read_end], 0.05) == []
        unpatched.write_all(write_end, b"two")
        assert unpatched.wait_readable([read_end], 5) == [read_end]
        assert unpatched.read_exactly(read_end, 3) == b"two"
        assert unpatched.run(["/bin/sh", "-c", "exit 3"], {}) == 3 << 8
        assert unpatched.read_file("/proc/self/stat")
        print(ticks - before)
    """)
    assert run_program(program, hub) == "0\n"


def test_poll_is_there_although_eventlet_has_removed_it_before_the_import() -> None:
    program = """
        import eventlet
        eventlet.monkey_patch()
        import select
        assert not hasattr(select, "poll")
        from pytest_eventlet_debug.system import unpatched
        print(unpatched.wait_readable([0], 0.01))
        assert not hasattr(select, "poll")
    """
    assert run_program(program) in ("[]\n", "[0]\n")


@pytest.mark.usefixtures("unmeasured")
def test_importing_it_imports_neither_eventlet_nor_pytest() -> None:
    program = """
        import sys
        from pytest_eventlet_debug.system import unpatched
        print({"eventlet", "greenlet", "pytest", "psutil", "subprocess"} & set(sys.modules))
    """
    assert run_program(program) == "set()\n"


def test_write_all_waits_for_a_reader_of_a_nonblocking_pipe() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    data = os.urandom(1 << 20)
    child = os.fork()
    if not child:
        os.close(write_end)
        os._exit(unpatched.read_exactly(read_end, len(data)) != data)
    os.close(read_end)
    unpatched.write_all(write_end, data)
    os.close(write_end)
    assert os.waitpid(child, 0)[1] == 0


def test_read_exactly_says_how_much_is_missing_when_the_other_end_closes() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"abc")
    os.close(write_end)
    with pytest.raises(EOFError, match="with 2 bytes still to come"):
        unpatched.read_exactly(read_end, 5)
    os.close(read_end)


def test_a_program_that_is_stopped_goes_on() -> None:
    command = "kill -STOP $$; exit 3"
    assert unpatched.run(["/bin/sh", "-c", command], {}) == 3 << 8


@pytest.mark.parametrize("others", [False, True])
def test_a_program_that_ends_is_no_sigchld_but_that_of_another_child_is_kept(others: bool) -> None:
    program = f"""
        import os, signal, warnings
        warnings.simplefilter("ignore")
        from pytest_eventlet_debug.system import unpatched
        child = os.fork()
        if not child:
            signal.pause()
        heard = []
        signal.signal(signal.SIGCHLD, lambda number, frame: heard.append(number))
        command = f"kill -9 {{child}}" if {others} else "true"
        status = unpatched.run(["/bin/sh", "-c", command], os.environ)
        if {others}:
            os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        print(status, bool(heard), mask)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    """
    assert run_program(program) == f"0 {others} set()\n"


def test_the_system_is_named_as_the_module_platform_names_it() -> None:
    assert unpatched.platform_name() == platform.platform()


def test_what_is_to_be_written_whole_is_not_cut_short_by_a_signal() -> None:
    """The reader interrupts the writer when it has read a part, and reads on after that."""
    near, far = socket.socketpair()
    data = bytes(range(256)) * 40_000  # more than the socket holds
    received = bytearray()

    def interrupt_and_read() -> None:
        received.extend(far.recv(1))
        signal.pthread_kill(main, signal.SIGINT)
        while len(received) < len(data) and (part := far.recv(1 << 20)):
            received.extend(part)

    main = threading.get_ident()
    reader = threading.Thread(target=interrupt_and_read)
    reader.start()
    with pytest.raises(KeyboardInterrupt):
        unpatched.write_whole(near.fileno(), data)
    near.close()
    reader.join()
    far.close()
    assert received == data
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])
