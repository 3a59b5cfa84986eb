"""Ctrl-C and other signals to a run over several hubs."""

from __future__ import annotations

import functools
import os
from pathlib import Path
import pty
import re
import select
import signal
import subprocess
import sys

from programs import TAKES_MEMORY
import pytest
from runs import BOTH
from runs import assert_no_traceback_of_ours
from runs import run

#: The session under asyncio is over, but not its process.
OTHER_HUB_ENDS = """
    import os, signal

    def pytest_unconfigure():
        if os.environ.get("EVENTLET_HUB") == "asyncio":
            open("other-hub-ends", "w").close()
            signal.pause()
"""

INTERRUPTED = """
    import os, signal, subprocess, sys, time
    import pytest

    @pytest.fixture
    def resource():
        yield
        open("torn-down", "w").close()

    def test_before(): pass

    def test_waits(resource):
        sleeper = subprocess.Popen([sys.executable, "-c", "input()", "{marker}"], stdin=-1)
        {before}
        with open("ready", "w") as ready:
            ready.write(f"{{os.getpid()}} {{sleeper.pid}}")
        while True:
            signal.pause()

    def test_after():
        open("went-on", "w").close()
"""


def with_marker(marker: str) -> list[int]:
    """Return the processes that have a word in their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if marker in command:
            found.append(int(path.parent.name))
    return found


class Waiting:
    """A pytest in a session of its own, one of whose tests waits."""

    def __init__(self, pytester: pytest.Pytester, *arguments: str, before: str = "pass") -> None:
        self.marker = f"marker-{os.getpid()}-{pytester.path.name}"
        pytester.makepyfile(test_x=INTERRUPTED.format(marker=self.marker, before=before))
        ready = pytester.path / "ready"
        os.mkfifo(ready)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *arguments],
            cwd=pytester.path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            # Under nohup it is ignored.
            preexec_fn=functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),
        )
        self.test, self.sleeper = map(int, ready.read_text().split())

    def end(self) -> str:
        """Return what it has printed; no process may be left."""
        out, _ = self.process.communicate(timeout=60)
        text = out.decode()
        assert_no_traceback_of_ours(text)
        assert with_marker(self.marker) == []
        return text


@pytest.mark.fault("ctrl-c")
@pytest.mark.parametrize(
    "arguments", [[BOTH], [BOTH, "--eventlet-jobs=2", "-k", "epolls"], ["--eventlet-timeout=60"]]
)
def test_ctrl_c_tears_the_running_test_down_and_reports(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    before = "pass"
    if "--eventlet-jobs=2" in arguments:
        pytester.makeconftest(OTHER_HUB_ENDS)
        before = "while not os.path.exists('other-hub-ends'): time.sleep(0.01)"
    waiting = Waiting(pytester, *arguments, before=before)
    os.killpg(waiting.process.pid, signal.SIGINT)
    text = waiting.end()
    assert waiting.process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert pytester.path.joinpath("torn-down").exists(), text
    assert "! KeyboardInterrupt !" in text
    assert re.search(r"test_x.py:\d+: KeyboardInterrupt", text)
    assert "1 passed" in text
    assert "error" not in text
    if arguments == [BOTH]:
        assert "the run under epolls is incomplete" in text


INTERRUPTS_AMID_A_TEST = """
    import os, signal, time

    def pytest_configure():
        if os.environ.get("EVENTLET_HUB") == "asyncio":
            open("other-hub-starts", "w").close()
            signal.pause()

    def pytest_runtest_logreport(report):
        if report.when == "setup" and "EVENTLET_HUB" not in os.environ:
            while not os.path.exists("other-hub-starts"):
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.fault("ctrl-c")
def test_ctrl_c_while_a_test_is_replayed_and_another_hub_starts_is_no_error_of_either(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(INTERRUPTS_AMID_A_TEST)
    pytester.makepyfile("def test_x(): pass")
    # Several at a time: the reports of a test are replayed together, when it is over.
    result = pytester.runpytest_subprocess(BOTH, "--eventlet-jobs=2")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*! KeyboardInterrupt !*"])
    assert result.parseoutcomes() == {"passed": 1}


@pytest.mark.fault("ctrl-c")
def test_no_test_follows_one_whose_process_ctrl_c_has_ended(pytester: pytest.Pytester) -> None:
    waiting = Waiting(pytester, BOTH, before="signal.signal(signal.SIGINT, signal.SIG_DFL)")
    os.killpg(waiting.process.pid, signal.SIGINT)
    text = waiting.end()
    assert waiting.process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert "killed by SIGINT" in text
    assert not pytester.path.joinpath("went-on").exists()


INTERRUPTS_THE_REPORT_OF_A_HANG = """
    import os, signal
    import pytest

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(report):
        if report.failed and "EVENTLET_HUB" not in os.environ:
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.fault("ctrl-c")
def test_ctrl_c_while_a_test_is_reported_as_hung_does_not_lose_the_report(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(INTERRUPTS_THE_REPORT_OF_A_HANG)
    pytester.makepyfile("import signal\ndef test_x(): signal.pause()\ndef test_y(): pass")
    result = pytester.runpytest_subprocess(BOTH, "--eventlet-timeout=3")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*silent for * s, killed*", "*! KeyboardInterrupt !*"])
    assert result.parseoutcomes() == {"failed": 1}


@pytest.mark.fault("ctrl-c-ignored")
@pytest.mark.usefixtures("unmeasured")  # coverage.py may lose the first one
def test_a_second_ctrl_c_ends_tests_that_ignore_the_first(pytester: pytest.Pytester) -> None:
    ignore = "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]"
    waiting = Waiting(pytester, BOTH, before=ignore)
    os.killpg(waiting.process.pid, signal.SIGINT)
    assert waiting.process.stdout is not None
    while not (line := waiting.process.stdout.readline()).startswith(b"Ctrl-C: "):
        assert line, "it has ended"
    os.killpg(waiting.process.pid, signal.SIGINT)
    text = waiting.end()
    assert waiting.process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert not pytester.path.joinpath("torn-down").exists()
    assert "! KeyboardInterrupt !" in text


@pytest.mark.fault("ctrl-c")
def test_a_second_ctrl_c_to_a_test_that_prints_to_the_terminal_is_no_crash(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import signal
        import pytest

        @pytest.fixture(autouse=True)
        def outermost():
            yield
            print("tears down", flush=True)
            while True:
                signal.pause()
        """
    )
    waiting = Waiting(pytester, BOTH, "-s", "-k", "waits")
    os.killpg(waiting.process.pid, signal.SIGINT)
    assert waiting.process.stdout is not None
    said = b""
    while b"tears down" not in said or b"Ctrl-C: " not in said:
        line = waiting.process.stdout.readline()
        assert line, said
        said += line
    os.kill(waiting.test, signal.SIGINT)
    text = waiting.end()
    assert waiting.process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert "CRASHED" not in text
    assert "Traceback" not in text


INTERRUPTED_AS_IT_STARTS = """
    import os, signal

    if "PYTEST_EVENTLET_DEBUG_CHILD" in os.environ and os.path.exists("controller-is-ready"):
        os.killpg(0, signal.SIGINT)
"""


@pytest.mark.fault("ctrl-c")
def test_ctrl_c_at_the_terminal_while_a_child_starts_is_no_traceback(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(sitecustomize=INTERRUPTED_AS_IT_STARTS)
    pytester.makeconftest(
        """
        import os

        def pytest_runtest_logfinish():
            if "EVENTLET_HUB" not in os.environ:
                open("controller-is-ready", "w").close()
        """
    )
    pytester.makepyfile("def test_x(): pass")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)
    arguments = ("-s", "--eventlet-hub=epolls,asyncio,poll", "--eventlet-timeout=60")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=pytester.path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    out, _ = process.communicate(timeout=60)
    text = out.decode()
    assert process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert "! KeyboardInterrupt !" in text
    assert "Traceback" not in text
    assert "CRASHED" not in text


INTERRUPTED_AT_IMPORT = """
    import os, signal, sys

    class CtrlC:
        def find_spec(name, path, target=None):
            if name == {name!r}:
                os.kill(os.getpid(), signal.SIGINT)

    if "PYTEST_EVENTLET_DEBUG_CHILD" not in os.environ:
        sys.meta_path.insert(0, CtrlC)
"""


@pytest.mark.fault("ctrl-c")
@pytest.mark.parametrize(
    "name",
    [
        "msgspec._core",
        "pytest_eventlet_debug.children.process",
        "pytest_eventlet_debug.children.controller",
        "pytest_eventlet_debug.afterwards",
    ],
)
def test_ctrl_c_while_the_controller_starts_is_no_traceback(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytester.makepyfile(sitecustomize=INTERRUPTED_AT_IMPORT.format(name=name))
    pytester.makepyfile("def test_x(): pass")
    monkeypatch.setenv("PYTHONPATH", str(pytester.path), prepend=os.pathsep)
    result = pytester.runpytest_subprocess("--eventlet-hub=epolls,asyncio")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    result.stdout.no_fnmatch_line("* passed*")


@pytest.mark.fault("ctrl-c")
def test_a_teardown_that_fails_after_ctrl_c_is_no_crash_of_its_test(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import os, signal
        import pytest

        @pytest.fixture
        def server():
            yield
            raise RuntimeError("still busy")

        def test_waits(server):
            os.kill(os.getppid(), signal.SIGINT)
            signal.pause()
        """
    )
    result = pytester.runpytest_subprocess("--eventlet-hub=asyncio", "--eventlet-timeout=60")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "asyncio: ended with exit status 1 while it tore down after Ctrl-C: "
            "RuntimeError: still busy",
            "*! KeyboardInterrupt !*",
        ]
    )
    assert "CRASHED" not in result.stdout.str()


@pytest.mark.fault("ctrl-c")
def test_ctrl_c_as_a_session_is_torn_down_after_its_exit_is_no_crash(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import os, signal
        import pytest

        @pytest.fixture
        def resource():
            yield
            os.kill(os.getpid(), signal.SIGINT)

        def test_x(resource):
            pytest.exit("enough", returncode=7)
        """
    )
    result = pytester.runpytest_subprocess(BOTH)
    assert result.ret == 7
    result.stdout.fnmatch_lines(["*! _pytest.outcomes.Exit: enough !*"])
    assert "failed" not in result.stdout.str()


@pytest.mark.fault("ctrl-c")
def test_ctrl_c_while_the_run_ends_is_no_traceback(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, signal

        def pytest_sessionfinish():
            if "EVENTLET_HUB" not in os.environ:
                os.kill(os.getpid(), signal.SIGINT)
        """
    )
    pytester.makepyfile("def test_x(): pass")
    result = pytester.runpytest_subprocess(BOTH)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


DIES_SLOWLY = (
    TAKES_MEMORY
    + """
import signal
alive = open("alive", "w")
take_memory()
print(flush=True)
signal.pause()
"""
)


@pytest.mark.fault("run-told-to-end")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_process_is_left_when_the_run_is_told_to_end(
    pytester: pytest.Pytester, number: signal.Signals
) -> None:
    pytester.makepyfile(dies_slowly=DIES_SLOWLY)
    os.mkfifo(pytester.path / "alive")
    alive = os.open(pytester.path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    slow = "slow = subprocess.Popen([sys.executable, 'dies_slowly.py'], stdout=-1)"
    waiting = Waiting(pytester, BOTH, before=f"{slow}; slow.stdout.readline()")
    waiting.process.send_signal(number)
    waiting.process.wait()  # with a timeout, it would look only now and then
    ended, _, _ = select.select([alive], [], [], 0)
    assert ended
    assert os.read(alive, 1) == b""
    os.close(alive)
    waiting.end()
    assert waiting.process.returncode == -number


def test_what_a_test_leaves_running_is_gone_when_its_hub_is_over(
    pytester: pytest.Pytester,
) -> None:
    holds_lock = "import fcntl\nfile = open('lock', 'w')\nfcntl.flock(file, fcntl.LOCK_EX)\n"
    pytester.makepyfile(
        dies_slowly=holds_lock + DIES_SLOWLY.replace('alive = open("alive", "w")', "")
    )
    pytester.makepyfile(
        test_x="""
        import subprocess, sys

        def test_x():
            program = [sys.executable, "dies_slowly.py"]
            assert subprocess.Popen(program, stdout=subprocess.PIPE).stdout.readline()
        """
    )
    pytester.makeconftest(
        """
        import fcntl, os
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish():
            if "EVENTLET_HUB" not in os.environ:
                with open("lock") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    open("free", "w").close()
        """
    )
    run(pytester, "--eventlet-hub=epolls", "--eventlet-timeout=60").assert_outcomes(passed=1)
    assert pytester.path.joinpath("free").exists()


@pytest.mark.fault("terminal-closed")
def test_no_process_is_left_when_the_terminal_is_closed(pytester: pytest.Pytester) -> None:
    marker = f"marker-{os.getpid()}-{pytester.path.name}"
    pytester.makepyfile(test_x=INTERRUPTED.format(marker=marker, before="pass"))
    ready = pytester.path / "ready"
    os.mkfifo(ready)
    pid, terminal = pty.fork()
    if not pid:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        arguments = ["-m", "pytest", BOTH, "-p", "no:cacheprovider"]
        os.execv(sys.executable, [sys.executable, *arguments])
    ready.read_text()
    os.close(terminal)
    assert os.waitpid(pid, 0) == (pid, signal.SIGHUP)
    assert with_marker(marker) == []


@pytest.mark.fault("run-killed")
def test_the_tests_process_ends_with_a_controller_that_is_killed(
    pytester: pytest.Pytester,
) -> None:
    waiting = Waiting(pytester, BOTH)
    test = os.pidfd_open(waiting.test)
    try:
        waiting.process.kill()
        readable, _, _ = select.select([test], [], [], 60)
        assert readable, "it still runs"
    finally:
        os.close(test)
        os.kill(waiting.sleeper, signal.SIGKILL)
        waiting.process.communicate()
