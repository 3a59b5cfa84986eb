"""The helper process: beside the test process, never in its way, never left behind."""

from __future__ import annotations

import _socket
from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import signal
import subprocess
import sys
import textwrap
import time

from programs import TICKER
from programs import wait_until_gone
import psutil
import pytest

from pytest_eventlet_debug.helper import messages
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.messages import MESSAGE_BYTES
from pytest_eventlet_debug.helper.messages import NO_ANSWER
from pytest_eventlet_debug.helper.protocol import FINISHER_NAME
from pytest_eventlet_debug.tracers import helper_client
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.helper_client import HelperGoneError
from pytest_eventlet_debug.tracers.protocol import TracerError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the helper needs Linux")

ROOT = Path(__file__).parent.parent.parent


def program(text: str) -> list[str]:
    return [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)]


def run_program(text: str, **environment: str) -> str:
    done = subprocess.run(
        program(text),
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def appears(path: Path) -> bytes:
    """Wait for a file with something in it; return that."""
    deadline = time.monotonic() + 30
    # Between its creation and what is written into it, it is empty.
    while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
        time.sleep(0.01)
    return path.read_bytes()


@pytest.fixture
def helper() -> Iterator[Helper]:
    helper = Helper.start()
    yield helper
    helper.close()


@pytest.mark.parametrize("missing", ["del posix.pidfd_open", "posix.pidfd_open = fails"])
def test_a_kernel_that_gives_no_pidfd_is_told_of_before_a_helper_is_started(
    tmp_path: Path, missing: str
) -> None:
    program = f"""
        import posix, pytest, sys
        def fails(pid): raise OSError(38, "Function not implemented")
        {missing}
        sys.exit(pytest.main(["--strace", {str(tmp_path)!r}]))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    assert "strace and pcap need pidfd_open(2), which Linux has from 5.3 on: " in line


def test_it_is_no_child_of_the_test_process_and_has_its_own_session(helper: Helper) -> None:
    process = psutil.Process(helper.pid)
    assert process.ppid() != os.getpid()
    assert process not in psutil.Process().children(recursive=True)
    assert os.getsid(helper.pid) not in (os.getsid(0), helper.pid)


def test_it_holds_none_of_the_users_descriptors(helper: Helper) -> None:
    targets = {}
    for name in os.listdir(f"/proc/{helper.pid}/fd"):
        targets[int(name)] = os.readlink(f"/proc/{helper.pid}/fd/{name}")
    assert [targets.pop(number) for number in (0, 1, 2)] == ["/dev/null"] * 3
    kinds = sorted(target.partition(":")[0] for target in targets.values())
    assert len(kinds) == 2, targets  # its control socket and the test process's pidfd
    assert "socket" in kinds


def test_a_pipeline_ends_with_the_test_process_although_descriptors_were_inheritable() -> None:
    text = """
        import os
        os.set_inheritable(1, True)
        extra = os.dup(1)
        os.set_inheritable(extra, True)
        from pytest_eventlet_debug.tracers.helper_client import Helper
        helper = Helper.start()
        print(helper.pid, flush=True)
        os._exit(0)
    """
    assert int(run_program(text)) > 0  # communicate() returns at the end of the pipe


def test_what_a_process_said_is_done_if_its_group_is_killed_before_the_helper_is_ready(
    tmp_path: Path,
) -> None:
    prelude = tmp_path / "prelude.py"
    prelude.write_text(
        "import os, sys, time\n"
        f"open({str(tmp_path / 'begun')!r}, 'w').close()\n"
        "while os.path.exists(f'/proc/{sys.argv[3]}'): time.sleep(0.01)"
    )
    text = f"""
        import os, signal
        from pytest_eventlet_debug.tracers.helper_client import Helper
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            helper = Helper.start()
            helper.post("announce", b"facts", directory={str(tmp_path)!r})
            while not os.path.exists({str(tmp_path / "begun")!r}):
                pass
            os.killpg(0, signal.SIGKILL)
        os.waitpid(pid, 0)
    """
    run_program(text, PYTEST_EVENTLET_DEBUG_PRELUDE=str(prelude))
    assert appears(tmp_path / "test.json") == b"facts"


def test_what_a_process_said_last_is_done_if_it_dies_with_answers_unread(tmp_path: Path) -> None:
    text = f"""
        import os, select, signal
        from pytest_eventlet_debug.tracers.helper_client import Helper
        helper = Helper.start()
        print(helper.pid, flush=True)
        helper.begin("hello")
        select.select([helper], [], [])
        os.kill(helper.pid, signal.SIGSTOP)
        helper.post("announce", b"facts", directory={str(tmp_path)!r})
        os._exit(0)
    """
    os.kill(int(run_program(text)), signal.SIGCONT)
    assert appears(tmp_path / "test.json") == b"facts"


def test_its_descriptor_is_high_and_closed_by_exec(helper: Helper) -> None:
    assert helper.fileno() >= 500
    assert not os.get_inheritable(helper.fileno())


def test_requests_that_were_begun_are_answered_whatever_is_asked_meanwhile(helper: Helper) -> None:
    first, second = helper.begin("hello"), helper.begin("no-such-command")
    third = helper.begin("hello")
    assert helper.end(third) == helper.request("hello") == {"pid": helper.pid}
    with pytest.raises(TracerError, match="no-such-command"):
        helper.end(second)
    assert helper.end(first) == {"pid": helper.pid}


def test_what_is_asked_together_is_sent_in_one_message_what_it_asks_for_first(
    request: pytest.FixtureRequest,
) -> None:
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    request.addfinalizer(theirs.close)
    request.addfinalizer(ours.close)
    helper = Helper(ours)
    with helper.together():
        first = helper.begin("strace-stop", stay=True)
        helper.post("profile", b"\0counts", directory="/tmp/x")
        helper.post("finish", b"{}", directory="/tmp/x")
        with pytest.raises(BlockingIOError):
            theirs.recv(MESSAGE_BYTES, _socket.MSG_DONTWAIT)
    message = theirs.recv(MESSAGE_BYTES)
    assert message.startswith(b'[[[%d, "strace-stop", 0],[0, "profile", 7],' % first)
    assert list(messages.requests(message)) == [
        (first, "strace-stop", {"stay": True}, b""),
        (NO_ANSWER, "profile", {"directory": "/tmp/x"}, b"\0counts"),
        (NO_ANSWER, "finish", {"directory": "/tmp/x"}, b"{}"),
    ]
    helper.post("discard", directory="/tmp/x")
    assert [each[1] for each in messages.requests(theirs.recv(MESSAGE_BYTES))] == ["discard"]


def test_what_is_asked_together_is_answered_in_one_message(helper: Helper) -> None:
    with helper.together():
        first, second = helper.begin("hello"), helper.begin("no-such-command")
    helper.end(first)
    with pytest.raises(BlockingIOError):
        helper._connection.recv(MESSAGE_BYTES, _socket.MSG_DONTWAIT)
    with pytest.raises(TracerError, match="no-such-command"):
        helper.end(second)


def test_an_answer_can_be_awaited_of_what_is_asked_together(helper: Helper) -> None:
    with helper.together():
        first = helper.begin("hello")
        assert helper.end(first) == helper.request("hello")
        third = helper.begin("hello")
    assert helper.end(third) == {"pid": helper.pid}


def test_what_is_too_much_for_one_message_is_sent_in_several(
    helper: Helper, tmp_path: Path
) -> None:
    sizes = dict.fromkeys("abcde", MESSAGE_BYTES // 3) | {"long": MESSAGE_BYTES * 3}
    with helper.together():
        for name, size in sizes.items():
            (tmp_path / name).mkdir()
            helper.post("profile", bytes(size), directory=str(tmp_path / name))
    helper.close()  # nobody has completed them
    assert sizes == {name: (tmp_path / name / "profile.counts").stat().st_size for name in sizes}


def test_a_finisher_can_be_there_before_the_first_order(helper: Helper) -> None:
    helper.request("finish-prepare")
    helper.request("hello")  # it answers first, and starts the finisher then
    (finisher,) = psutil.Process(helper.pid).children()
    helper.request("finish-prepare")
    assert psutil.Process(helper.pid).children() == [finisher]
    while finisher.name() != FINISHER_NAME.decode():
        time.sleep(0.001)
    folder = Path(f"/proc/{finisher.pid}/fd")
    held = {os.readlink(folder / name).partition(":")[0] for name in ("0", "1", "2", "3")}
    assert held == {"pipe", "/dev/null", "/memfd"}
    for each in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it imports, and has each module open
            assert not os.readlink(each).startswith(("socket", "anon"))
    helper.close()
    wait_until_gone(finisher.pid)


def test_it_ends_while_the_test_process_does_other_things() -> None:
    helper = Helper.start()
    pid = helper.pid
    helper.begin_close()
    with pytest.raises(TracerError, match="hello comes too late"):
        helper.request("hello")
    with pytest.raises(TracerError, match="discard comes too late"):
        helper.post("discard", directory="/nowhere")
    wait_until_gone(pid)
    helper.close()


def test_it_ends_when_it_is_closed() -> None:
    helper = Helper.start()
    helper.close()
    wait_until_gone(helper.pid)
    helper.close()


def test_it_ends_when_the_test_process_is_killed_although_a_fork_holds_its_socket() -> None:
    text = """
        import os, time
        from pytest_eventlet_debug.tracers.helper_client import Helper
        helper = Helper.start()
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        print(helper.pid, child, flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(program(text), cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout is not None
    helper, child = map(int, process.stdout.readline().split())
    process.kill()
    process.wait()
    wait_until_gone(helper)
    assert psutil.pid_exists(child)
    os.kill(child, signal.SIGKILL)
    process.stdout.close()


def test_a_strace_that_is_ended_as_it_starts_leaves_no_process_of_its_own(
    helper: Helper, tmp_path: Path
) -> None:
    """It forks one, to try on it what the kernel can do."""
    child, strace = tmp_path / "child", tmp_path / "strace"
    os.mkfifo(tmp_path / "never")
    forks = f"(: < {tmp_path}/never) & echo $! > {child}.new; mv {child}.new {child}; wait"
    strace.write_text(f"#!/bin/sh\n[ $1 = -V ] && exec echo strace -- version 6.1\n{forks}\n")
    strace.chmod(0o755)
    helper.request("strace-version", program=str(strace))
    helper.begin("strace-try", program=str(strace), options=[])
    pid = int(appears(child))
    helper.close()
    wait_until_gone(pid)


def test_it_survives_control_c(helper: Helper) -> None:
    os.kill(helper.pid, signal.SIGINT)
    assert helper.request("hello") == {"pid": helper.pid}


def test_a_helper_that_was_killed_is_one_error_and_no_signal() -> None:
    text = """
        import os, select, signal
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        from pytest_eventlet_debug.tracers.helper_client import Helper
        from pytest_eventlet_debug.tracers.protocol import TracerError
        helper = Helper.start()
        end = os.pidfd_open(helper.pid)
        os.kill(helper.pid, signal.SIGKILL)
        select.select([end], [], [])
        for _ in range(3):
            try:
                helper.request("hello")
            except TracerError as error:
                print(str(error).replace(str(helper.pid), "N"))
        helper.close()
    """
    lines = run_program(text).splitlines()
    assert len(lines) == 3
    for line in lines:
        assert line == (
            "the tracing helper (process N) was killed or has crashed; "
            "neither strace nor packets are recorded from here on"
        )


@pytest.mark.fault("helper-killed")
def test_a_helper_killed_while_it_works_is_noticed(helper: Helper) -> None:
    os.kill(helper.pid, signal.SIGSTOP)
    killer = os.fork()
    if not killer:
        status = Path(f"/proc/{os.getppid()}/task/{os.getppid()}/stat")
        while status.read_text().rpartition(")")[2].split()[0] != "S":
            time.sleep(0.001)
        os.kill(helper.pid, signal.SIGKILL)
        os._exit(0)
    with pytest.raises(TracerError, match="was killed or has crashed"):
        helper.request("hello")
    os.waitpid(killer, 0)


@pytest.mark.fault("helper-stopped")
def test_a_helper_that_does_not_come_to_life_is_ended_and_its_process_group_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nkill -STOP $$\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(helper_client, "ANSWER_SECONDS", 1)
    helper = Helper.start()
    with pytest.raises(HelperGoneError, match="has not answered for 1 s and was ended"):
        helper.request("hello")
    assert helper_client._own_helper() == 0


@pytest.mark.fault("fork-runs-pytest")
def test_a_fork_of_the_test_process_cannot_use_it(helper: Helper) -> None:
    child = os.fork()
    if not child:
        try:
            helper.request("hello")
        except TracerError as error:
            helper.close()
            os._exit("is a fork of the test process" in str(error))
        os._exit(2)
    assert os.waitpid(child, 0)[1] == 1 << 8
    assert helper.request("hello") == {"pid": helper.pid}


def test_an_answer_that_an_exception_left_behind_is_not_taken_for_the_next(
    helper: Helper,
) -> None:
    class Alarm(Exception):
        pass

    def ring(number: int, frame: object) -> None:
        raise Alarm

    def wait_for_it() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        helper.request("strace-stop", stay=False)

    former = signal.signal(signal.SIGALRM, ring)
    os.kill(helper.pid, signal.SIGSTOP)
    with pytest.raises(Alarm):
        wait_for_it()
    signal.signal(signal.SIGALRM, former)
    os.kill(helper.pid, signal.SIGCONT)
    assert helper.request("hello") == {"pid": helper.pid}


def test_a_packet_socket_is_opened_after_all_else_that_was_asked_for(helper: Helper) -> None:
    os.kill(helper.pid, signal.SIGSTOP)
    opening = helper.begin("pcap-open", interface="lo", expression=None)
    other = helper.begin("finish-prepare")
    os.kill(helper.pid, signal.SIGCONT)
    helper.end(other)
    assert opening not in helper._answers
    assert "errno" in helper.end(opening)


def test_a_command_that_fails_is_an_error_of_one_line_and_it_lives_on(helper: Helper) -> None:
    with pytest.raises(TracerError) as caught:
        helper.request("no-such-command")
    assert "\n" not in str(caught.value)
    assert "no-such-command" in str(caught.value)
    assert helper.request("hello") == {"pid": helper.pid}


def test_a_request_that_is_too_long_is_an_error_and_it_lives_on(helper: Helper) -> None:
    with pytest.raises(TracerError, match="too long"):
        helper.request("hello", text="x" * 100_000)
    assert helper.request("hello") == {"pid": helper.pid}


@pytest.mark.fault("sigchld")
@pytest.mark.parametrize("handler", ["SIG_DFL", "SIG_IGN"])
def test_the_test_has_no_child_to_wait_for(handler: str) -> None:
    text = f"""
        import os, signal
        from pytest_eventlet_debug.tracers.helper_client import Helper
        signal.signal(signal.SIGCHLD, signal.{handler})
        helper = Helper.start()
        try:
            os.wait()
        except ChildProcessError:
            print("ECHILD")
        helper.close()
    """
    assert run_program(text) == "ECHILD\n"


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_request_switches_no_greenthread_under_monkey_patching(hub: str) -> None:
    text = """
from pytest_eventlet_debug.tracers.helper_client import Helper
before = ticks
helper = Helper.start()
for _ in range(50):
    helper.request("hello")
helper.close()
print(ticks - before)
"""
    assert run_program(TICKER + text, EVENTLET_HUB=hub) == "0\n"


def test_the_helper_imports_neither_site_packages_nor_anything_slow() -> None:
    text = """
        import sys
        from pytest_eventlet_debug.helper import process as helper_process
        print({"pytest", "eventlet", "subprocess", "dataclasses", "asyncio"} & set(sys.modules))
    """
    text = f"import sys; sys.path.append({str(ROOT)!r})\n" + textwrap.dedent(text)
    done = subprocess.run([sys.executable, "-ISc", text], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


def test_long_and_short_data_are_handed_over_without_waiting(
    helper: Helper, tmp_path: Path
) -> None:
    sent = {"short": b"short\0data", "long": bytes(range(256)) * 4096}
    for name, data in sent.items():
        (tmp_path / name).mkdir()
        helper.post("profile", data, directory=str(tmp_path / name))
    helper.post("discard", directory=f"{tmp_path}/missing")
    assert helper.request("finish-wait")["problems"] == [
        f"{tmp_path}/missing cannot be deleted: No such file or directory"
    ]
    helper.close()  # nobody has completed it
    for name, data in sent.items():
        (path,) = (tmp_path / name).iterdir()
        assert (path.name, path.read_bytes()) == ("profile.counts", data)
        assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_descriptor_had_to_say_is_not_told_to_the_next_one_of_its_number() -> None:
    loop = Loop()
    first, second, new = (os.eventfd(value) for value in (1, 1, 0))
    told = []

    def begin_anew(fd: int, other: int) -> None:
        told.append(fd)
        loop.unwatch(other)
        os.dup2(new, other)
        loop.watch(other, lambda: told.append(new))

    loop.watch(first, lambda: begin_anew(first, second))
    loop.watch(second, lambda: begin_anew(second, first))
    loop.step()
    assert told in ([first], [second])
    for fd in (first, second, new):
        os.close(fd)
