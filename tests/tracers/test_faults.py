"""Helpers, straces and finishers that stop, die or do not answer, and forks of the test process."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys

import psutil
import pytest
from runs import assert_no_traceback_of_ours

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="strace needs Linux")

PRELUDE = """
    import os, signal, time

    def tracer():
        with open("/proc/self/status") as file:
            return int(file.read().partition("TracerPid:")[2].split()[0])

    def helper():
        with open(f"/proc/{tracer()}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])

    def finisher():
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/comm") as comm:
                    if int(stat.read().rpartition(")")[2].split()[1]) == helper():
                        if comm.read().strip() == "eventlet-finish":
                            return int(name)
            except OSError:
                pass
"""


def run(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, program: str, *arguments: str
) -> pytest.RunResult:
    """Run tests with strace; no process of theirs may be left, nor a traceback of ours."""
    marker = f"marker-{os.getpid()}-{pytester.path.name}"
    monkeypatch.setenv("MARKER", marker)
    pytester.makepyfile(test_x=PRELUDE + program)
    result = pytester.runpytest("--strace", "-v", *arguments, timeout=60)
    text = result.stdout.str() + result.stderr.str()
    assert_no_traceback_of_ours(text)
    assert "site-packages" not in text
    assert "/pytest_eventlet_debug/" not in text
    left = [process for process in psutil.process_iter() if has_marker(process, marker)]
    assert psutil.wait_procs(left, timeout=5)[1] == []
    return result


def has_marker(process: psutil.Process, marker: str) -> bool:
    try:
        return process.environ().get("MARKER") == marker and process.pid != os.getpid()
    except psutil.Error:
        return False


@pytest.mark.fault("tool-stopped")
@pytest.mark.parametrize("arguments", [[], ["--eventlet-hub=epolls,asyncio"]])
def test_a_strace_that_somebody_stops_goes_on(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    program = """
    def test_stops_it():
        os.kill(tracer(), signal.SIGSTOP)
        os.access("/after", 0)
    """
    result = run(pytester, monkeypatch, program, *arguments)
    result.assert_outcomes(passed=len(arguments) + 1)
    for path in pytester.path.glob("eventlet-debug/*/strace.txt"):
        assert '"/after"' in path.read_text()


@pytest.mark.fault("strace-and-helper-stopped")
def test_a_test_that_hangs_with_its_strace_and_helper_stopped_is_killed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
    def test_hangs():
        strace = tracer()
        os.kill(helper(), signal.SIGSTOP)
        os.kill(strace, signal.SIGSTOP)
        while True: signal.pause()

    def test_next(): pass
    """
    result = run(pytester, monkeypatch, program, "--eventlet-timeout=3")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["  its process is held by a tracer that does not respond"])


SILENCE_OF_THREE_SECONDS = """
from pytest_eventlet_debug.tracers import helper_client
helper_client.ANSWER_SECONDS = 3
"""


@pytest.mark.fault("helper-stopped", "helper-killed")
@pytest.mark.parametrize("arguments", [[], ["--eventlet-hub=epolls,asyncio"]])
@pytest.mark.parametrize(
    ("number", "fate"),
    [
        ("SIGSTOP", "has not answered for 3 s and was ended"),
        ("SIGKILL", "was killed or has crashed"),
    ],
)
def test_a_helper_that_is_gone_is_one_line_and_the_tests_go_on(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    number: str,
    fate: str,
) -> None:
    program = f"""
    def test_a():
        os.kill(helper(), signal.{number})

    def test_b(): pass

    def test_c():
        assert tracer() == 0
    """
    pytester.makepyfile(impatient=SILENCE_OF_THREE_SECONDS)
    result = run(pytester, monkeypatch, program, "-p", "impatient", *arguments)
    result.assert_outcomes(passed=3 * (len(arguments) + 1))
    lines = [line for line in result.outlines if "tracing helper" in line]
    assert len(lines) == len(arguments) + 1, lines  # a helper for each hub
    for line in lines:
        assert f"{fate}; neither strace nor packets are recorded from here on" in line
        assert "test_a" in line


@pytest.mark.fault("crash-recorded", "helper-stopped")
@pytest.mark.parametrize("arguments", [["--eventlet-timeout=60"], ["-n1"]])
def test_what_a_dead_process_recorded_is_awaited(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    program = """
    def test_ends():
        late = helper()
        os.kill(late, signal.SIGSTOP)
        is_apart, apart = os.pipe()
        if not os.fork():
            os.setsid()  # else it would be ended with the test
            os.write(apart, b"x")
            os.closerange(0, 100)  # nobody waits for it
            time.sleep(3)
            os.kill(late, signal.SIGCONT)
            os._exit(0)
        os.read(is_apart, 1)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    result = run(pytester, monkeypatch, program, "--eventlet-hub=epolls", *arguments)
    result.assert_outcomes(failed=1)
    (directory,) = (pytester.path / "eventlet-debug").glob("*test_ends*")
    assert (directory / "findings.json").exists()
    (test,) = json.loads((pytester.path / "eventlet-debug" / "run.json").read_text())["tests"]
    assert "findings.json" in test["artifacts"]


@pytest.mark.fault("tool-stopped", "finisher-killed")
@pytest.mark.parametrize("number", ["SIGSTOP", "SIGKILL"])
def test_a_finisher_that_is_stopped_goes_on_and_one_that_is_killed_is_replaced(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, number: str
) -> None:
    program = f"""
    def test_a(): pass

    def test_b():
        while not (pid := finisher()): time.sleep(0.01)
        os.kill(pid, signal.{number})

    def test_c(): pass
    """
    result = run(pytester, monkeypatch, program)
    result.assert_outcomes(passed=3)
    assert len(list(pytester.path.glob("eventlet-debug/*/findings.json"))) == 3
    result.stdout.no_fnmatch_line("*completes recordings*")
    assert not list(pytester.path.glob("eventlet-debug/*/.*"))


@pytest.mark.fault("fork-runs-pytest")
def test_a_fork_that_goes_on_running_tests_leaves_its_parents_recordings_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = """
    def test_forks():
        strace = tracer()
        if child := os.fork():
            assert os.waitpid(child, 0)[1] == 0
            assert tracer() == strace

    def test_after(): pass
    """
    result = run(pytester, monkeypatch, program)
    assert result.ret == 0
    # The fork prints to the same terminal.
    (line,) = [line for line in result.outlines if "a fork of" in line]
    assert line == "a fork of the test process is not recorded (test_x.py::test_after)"
    records = [json.loads(p.read_bytes()) for p in pytester.path.glob("eventlet-debug/*/test.json")]
    assert len(records) == 2
    for record in records:
        assert record["errors"] == []
        assert record["outcomes"]["call"] == "passed"
        assert record["phases"].keys() == {"setup", "call", "teardown"}


STRACE = shutil.which("strace")


def put_in_place_of_strace(
    script: str, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have a shell script be the first strace on PATH."""
    fake = pytester.path / "bin" / "strace"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")


@pytest.mark.fault("strace-broken")
@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("exit 0", "`*strace -V` printed nothing and no version: it is broken or another program"),
        ("sleep 60", "`*strace -V` printed nothing for 3 s; reinstall strace"),
        ("head -c 3000000 /dev/zero | tr '\\0' x", "`*strace -V` printed 'xxxxxx*' and no version"),
        ("kill -9 $$", "`*strace -V` printed nothing and no version"),
        (
            "[ $1 = -V ] && echo strace -- version 6.1 || exec sh -c 'echo no! >&2; exit 3'",
            "strace cannot attach (exit status 3): no!",
        ),
        pytest.param(
            f'{STRACE} "$@"; exit $?',
            "*/bin/strace starts strace as a child; if it is a script, have it end with "
            f'`exec {STRACE} "$@"`',
            marks=pytest.mark.skipif(STRACE is None, reason="strace is not installed"),
        ),
    ],
)
def test_a_broken_strace_is_one_line_and_quick(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, script: str, says: str
) -> None:
    put_in_place_of_strace(script, pytester, monkeypatch)
    for arguments in ([], ["--eventlet-hub=epolls,asyncio"]):
        result = run(pytester, monkeypatch, "\n    def test_a(): pass\n", *arguments)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: {says}*"])
        result.stdout.no_fnmatch_line("*passed*")
        assert len(result.stderr.lines) <= 2


@pytest.mark.skipif(STRACE is None, reason="strace is not installed")
def test_a_script_that_becomes_strace_serves_as_well(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_in_place_of_strace(f'exec {STRACE} "$@"', pytester, monkeypatch)
    result = run(pytester, monkeypatch, "\n    def test_a(): os.listdir('/etc')\n")
    assert result.ret == 0
    (trace,) = pytester.path.glob("eventlet-debug/*/strace.txt*")
    read = gzip.decompress if trace.suffix == ".gz" else bytes
    assert b'"/etc"' in read(trace.read_bytes())
