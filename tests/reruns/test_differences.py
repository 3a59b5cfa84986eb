"""Tests whose outcome differs between hubs run again before the difference is believed."""

from __future__ import annotations

import ast
import itertools
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace
from typing import Any

from needs import needs_root
from needs import needs_strace
import pytest
from runs import LACKED_CPUS
from runs import assert_no_traceback_of_ours
from runs import run

from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.outcomes.comparison import Comparison
from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.reruns.culprit import Culprit
from pytest_eventlet_debug.reruns.reruns import Reruns
from pytest_eventlet_debug.reruns.text import difference_lines
from pytest_eventlet_debug.reruns.verdicts import Verdict
from pytest_eventlet_debug.settings import Settings

HUBS = "--eventlet-hub=poll,selects"


def section(result: pytest.RunResult, title: str) -> list[str]:
    """Return the lines of one section of the terminal's summary, with single spaces."""
    found, inside = [], False
    for line in result.stdout.lines:
        if line.startswith("==="):
            inside = line.strip("= ") == title
        elif inside and line and not line.startswith(LACKED_CPUS):
            found.append(" ".join(line.split()))
    return found


def test_a_difference_is_counted_over_all_attempts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        def test_passes(): pass
        def test_differs(eventlet_hub): assert eventlet_hub == "poll"
        """
    )
    result = run(pytester, HUBS, "--eventlet-reruns=2")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["rerunning 1 test under 2 hubs, 2 times each"])
    assert section(result, "hub differences") == [
        "1 test differs between poll, selects",
        "test_x.py::test_differs poll failed 0 of 3 selects failed 3 of 3",
        "selects: AssertionError: assert 'selects' == 'poll'",
    ]


def test_where_many_differ_those_with_other_reasons_are_rerun_first(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.parametrize("number", range(52))
        def test_alike(eventlet_hub, number): assert eventlet_hub == "poll", "alike"
        def test_otherwise(eventlet_hub): assert eventlet_hub == "poll", "otherwise"
        """
    )
    result = run(pytester, HUBS, "--eventlet-reruns=1")
    told = section(result, "hub differences")
    assert told[:2] == [
        "53 tests differ between poll, selects",
        "3 of them seen once: at most 50 are rerun",
    ]
    assert "test_x.py::test_otherwise poll failed 0 of 2 selects failed 2 of 2" in told
    assert "word for word the same for 51 other tests, 3 of them seen once:" in told


def test_a_reason_of_several_tests_is_told_once(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        LEFT = []

        def test_leaves(eventlet_hub):
            if eventlet_hub == "poll":
                LEFT.append(eventlet_hub)

        @pytest.mark.parametrize("number", range(3))
        def test_after(number): assert not LEFT, "something is left"
        def test_another(eventlet_hub): assert eventlet_hub == "poll"

        def is_poll(hub): return None if hub != "poll" else hub
        @pytest.mark.parametrize("number", range(2))
        def test_bare(eventlet_hub, number):
            found = is_poll(eventlet_hub)
            assert found
        """
    )
    result = run(pytester, HUBS, "--eventlet-reruns=0")
    assert section(result, "hub differences") == [
        "6 tests differ between poll, selects",
        "test_x.py::test_after[0] poll failed selects passed",
        "poll: AssertionError: something is left",
        "word for word the same for 2 other tests:",
        "test_x.py::test_after[1]",
        "test_x.py::test_after[2]",
        "test_x.py::test_another poll passed selects failed",
        "selects: AssertionError: assert 'selects' == 'poll'",
        "test_x.py::test_bare[0] poll passed selects failed",
        "selects: assert None",
        "test_x.py::test_bare[1] poll passed selects failed",
        "selects: assert None",
    ]


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell")
def test_who_lacked_a_cpu_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import os, subprocess, sys, time

        def test_differs(eventlet_hub):
            if eventlet_hub == "selects":
                os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
                others = [subprocess.Popen([sys.executable, "-c", "while 1: pass"]) for _ in "123"]
                end = time.thread_time() + 0.7
                while time.thread_time() < end:
                    pass
                for other in others:
                    other.kill()
                    other.wait()
                assert False
        """
    )
    result = run(pytester, HUBS, "--eventlet-reruns=0")
    (told,) = (line for line in result.outlines if line.startswith(LACKED_CPUS))
    assert told.endswith(
        "% of the time under selects; tests that depend on timing may fail for that reason alone"
    )


#: On selects it fails in the run, and waits when it runs again.
WAITS_IN_A_RERUN = """
    import os, signal, subprocess, sys

    def test_differs(eventlet_hub):
        if eventlet_hub == "selects":
            if os.path.exists("again"):
                {deed}
                signal.pause()
            open("again", "w").close()
            assert False
"""


@pytest.mark.fault("ctrl-c-rerunning")
@pytest.mark.parametrize(
    "more", [[], ["--eventlet-stress", "--eventlet-culprit=test_x.py::test_differs"]]
)
def test_ctrl_c_ends_the_reruns_and_the_run_reports(
    pytester: pytest.Pytester, more: list[str]
) -> None:
    interrupts = "os.kill(os.getppid(), signal.SIGINT)"
    pytester.makepyfile(test_x=WAITS_IN_A_RERUN.format(deed=interrupts))
    result = run(pytester, HUBS, "--eventlet-reruns=2", *more)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["Ctrl-C: no more tests are rerun"])
    assert section(result, "hub differences") == [
        "1 test differs between poll, selects",
        "test_x.py::test_differs poll failed 0 of 2 selects failed",
        "selects: assert False",
    ]
    if more:
        told = section(result, "culprit")[-1]
        assert told == "test_x.py::test_differs[selects] could not be run again: Ctrl-C"


@pytest.mark.fault("run-told-to-end")
def test_nothing_of_a_rerun_is_left_when_the_run_is_told_to_end(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = pytester.mkdir("scratch")
    monkeypatch.setenv("TMPDIR", str(scratch))
    os.mkfifo("alive")
    alive = os.open("alive", os.O_RDONLY | os.O_NONBLOCK)
    starts = (
        "subprocess.Popen([sys.executable, '-c', 'input()'], stdin=-1, stdout=open('alive', 'w'))"
    )
    ends = f"{starts}; os.kill(os.getppid(), signal.SIGTERM)"
    pytester.makepyfile(test_x=WAITS_IN_A_RERUN.format(deed=ends))
    result = pytester.runpytest_subprocess(HUBS, "--eventlet-reruns=1")
    assert result.ret == -signal.SIGTERM
    assert os.read(alive, 1) == b""  # nobody has it open
    os.close(alive)
    assert [path.name for path in scratch.iterdir() if "eventlet" in path.name] == []


@pytest.mark.fault("no-room-for-rerun")
@needs_root
def test_where_there_is_no_room_to_rerun_tests_the_run_ends_with_what_is_known(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_differs(eventlet_hub):
            assert eventlet_hub == "poll"

        def test_fills_the_disk(eventlet_hub):
            if eventlet_hub == "selects":
                os.system("cat /dev/zero > disk/zeros")
        """
    )
    Path("disk").mkdir()
    pytest_there = f"TMPDIR=$PWD/disk {sys.executable} -m pytest {HUBS} --eventlet-reruns=1"
    command = f"mount -t tmpfs -o size=2m none disk && {pytest_there}"
    result = subprocess.run(
        ["unshare", "--mount", "sh", "-c", command], capture_output=True, text=True
    )
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert re.search(
        r"^no process can be started: .*No space left on device.*: no more tests are rerun$",
        result.stdout,
        re.MULTILINE,
    )
    assert "1 test differs between poll, selects" in result.stdout
    assert_no_traceback_of_ours(result.stdout + result.stderr)


@pytest.mark.fault("no-stress")
def test_where_no_cpu_can_be_kept_busy_the_run_ends_with_what_is_known(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import os
        import pytest

        @pytest.hookimpl(tryfirst=True)
        def pytest_sessionfinish():
            os.environ["LONG"] = "x" * 200_000  # more than a program can be started with
        """
    )
    pytester.makepyfile(test_x="def test_differs(eventlet_hub): assert eventlet_hub == 'poll'")
    result = run(pytester, HUBS, "--eventlet-reruns=1", "--eventlet-stress")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(
        ["no process can be started: *Argument list too long*: no more tests are rerun"]
    )
    assert section(result, "hub differences")[0] == "1 test differs between poll, selects"


NOTES_ITS_TIMES = """
    import atexit, os, sys, time

    def now():
        return time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK")

    def note(**times):
        with open("times", "a") as file:
            print(dict(times, pid=os.getpid()), file=file)

    if "EVENTLET_HUB" in os.environ:
        with open("/proc/self/stat") as file:
            note(started=int(file.read().rpartition(")")[2].split()[19]))
        atexit.register(lambda: note(ended=now()))
        sys.stdout.write("not flushed")
"""


def test_the_process_of_the_next_rerun_starts_ahead_and_all_do_what_they_do_at_their_end(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(NOTES_ITS_TIMES)
    pytester.makepyfile("def test_x(eventlet_hub): assert eventlet_hub == 'poll'")
    run(pytester, HUBS, "--eventlet-reruns=2").assert_outcomes(passed=1, failed=1)
    times: dict[int, dict[str, float]] = {}
    for line in Path("times").read_text().splitlines():
        noted = ast.literal_eval(line)
        times.setdefault(noted.pop("pid"), {}).update(noted)
    processes = list(times.values())
    assert [sorted(each) for each in processes] == [["ended", "started"]] * 6
    if len(os.sched_getaffinity(0)) > 1:
        reruns = processes[2:]
        for before, after in itertools.pairwise(reruns):
            assert after["started"] < before["ended"]


class SaysItsLastWords:
    """A child that gets no CPU for a while, and then says all in the moment in which it ends.

    :param seconds: for how long.
    """

    def __init__(self, seconds: float) -> None:
        self.descriptor, self._far = os.pipe()
        passed = pytest.TestReport("a.py::t", ("a.py", 0, "t"), {}, "passed", None, "call")
        data = {**passed._to_json(), "$report_type": "TestReport"}
        self._said: list[messages.Message] = [
            messages.LogStart("a.py::t", ("a.py", 0, "t")),
            messages.LogReport("a.py::t", data),
            messages.LogFinish("a.py::t", ("a.py", 0, "t")),
        ]
        self._ends = time.monotonic() + seconds

    def ended(self) -> bool:
        if time.monotonic() < self._ends:
            return False
        if self._far >= 0:
            os.close(self._far)  # can be read from now on
            self._far = -1
        return True

    def run_delays(self) -> dict[int, int]:
        return {1: time.monotonic_ns()}

    def read(self) -> list[messages.Message] | None:
        said, self._said = self._said, []
        return said or None

    def kill(self) -> None: ...

    def close(self) -> None:
        os.close(self.descriptor)


@pytest.mark.parametrize("seconds_without_cpu", [0.0, 2.0])
def test_a_process_that_is_starved_is_heard_out_in_a_rerun(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, seconds_without_cpu: float
) -> None:
    child = SaysItsLastWords(seconds_without_cpu)
    monkeypatch.setattr("pytest_eventlet_debug.reruns.series.start_child", lambda *_: child)
    settings = Settings(pytester.parseconfig("--eventlet-timeout=1"))
    config = pytester.parseconfigure("-p", "no:eventlet-debug")
    gathering = Gathering(config, lambda: ["default"], False)
    ended = Reruns(config, settings, gathering, "run", False).run(["a.py::t"])
    assert {nodeid: each.outcome for nodeid, each in ended.items()} == {"a.py::t": "passed"}


def test_a_test_that_fails_now_and_then_is_flaky_and_no_difference(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        from pathlib import Path

        def test_once(eventlet_hub):
            seen = Path(__file__).with_name(f"seen-{eventlet_hub}")
            first = not seen.exists()
            seen.touch()
            assert not (first and eventlet_hub == "selects")
        """
    )
    result = run(pytester, HUBS, "--eventlet-reruns=2")
    result.assert_outcomes(passed=1, failed=1)
    assert section(result, "hub differences")[:3] == [
        "no tests differ between poll, selects",
        "1 test is flaky: the outcome varies on the same hub",
        "test_x.py::test_once poll failed 0 of 3 selects failed 1 of 3",
    ]


def test_a_test_that_fails_in_another_way_on_each_hub_is_told_apart(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        def test_fails(eventlet_hub):
            raise KeyError("k") if eventlet_hub == "poll" else ValueError("v")

        def test_fails_alike():
            raise KeyError("k")
        """
    )
    result = run(pytester, HUBS, "--eventlet-reruns=1")
    assert section(result, "hub differences") == [
        "no tests differ between poll, selects",
        "1 test fails on every hub, in different ways:",
        "test_x.py::test_fails poll failed 2 of 2 (KeyError) selects failed 2 of 2 (ValueError)",
        "poll: KeyError: 'k'",
        "selects: ValueError: v",
    ]


def test_what_a_program_of_the_test_printed_is_its_reason(pytester: pytest.Pytester) -> None:
    program = pytester.path / "program.py"
    program.write_text("def load():\n    return {}['missing']\n\nload()\n")
    pytester.makepyfile(
        test_x=f"""
        import subprocess, sys

        def test_program(eventlet_hub):
            if eventlet_hub == "selects":
                ended = subprocess.run([sys.executable, {str(program)!r}]).returncode
                assert ended == 0, "the program failed"
        """
    )
    lines = section(run(pytester, HUBS), "hub differences")
    assert lines[2:] == [
        f"selects: printed: KeyError: 'missing' ({program.name}:2 in load)",
        "selects: AssertionError: the program failed",
    ]


def test_a_cost_that_was_seen_once_is_said_of_this_run() -> None:
    cost = Verdict("test_x.py::test_x", "costs more", reasons=("slept 0.5 s on poll",))
    found: Any = SimpleNamespace(
        comparison=Comparison(("poll", "selects"), (), ()),
        verdicts=(cost,),
        not_rerun=(),
        unfinished={},
    )
    gathering: Any = SimpleNamespace(uncollected={}, shown=str)
    assert "\n".join(difference_lines(found, gathering)).splitlines() == [
        "1 test cost more on one hub in this run:",
        "  test_x.py::test_x",
        "    slept 0.5 s on poll",
    ]


def test_what_was_rerun_another_number_of_times_is_told_below_the_same_reason() -> None:
    def differs(name: str, poll: str, selects: str) -> Verdict:
        hubs = (("poll", poll), ("selects", selects))
        return Verdict(name, "differs", hubs, ("selects: OSError",))

    verdicts = (
        differs("test_once", "passed", "failed"),
        differs("test_thrice", "failed 0 of 3", "failed 3 of 3"),
        differs("test_twice", "failed 0 of 2", "failed 2 of 2"),
        differs("test_once_too", "passed", "failed"),
        differs("test_crashes", "passed", "crashed"),
    )
    found: Any = SimpleNamespace(
        comparison=Comparison(("poll", "selects"), (), (), common=5),
        verdicts=verdicts,
        not_rerun={"test_once", "test_once_too", "test_crashes"},
        without_cpu={},
        unfinished={},
    )
    gathering: Any = SimpleNamespace(uncollected={}, shown=str)
    told = "\n".join(difference_lines(found, gathering)).splitlines()
    assert [" ".join(line.split()) for line in told if "selects: " not in line] == [
        "5 tests differ between poll, selects",
        "3 of them seen once: at most 50 are rerun",
        "test_thrice poll failed 0 of 3 selects failed 3 of 3",
        "word for word the same for 3 other tests, 2 of them seen once:",
        "test_twice poll failed 0 of 2 selects failed 2 of 2",
        "test_once",
        "test_once_too",
        "test_crashes poll passed selects crashed",
    ]


def test_what_is_the_same_on_other_lines_of_the_traces_is_told_once() -> None:
    def differs(name: str, error: str, line: int) -> Verdict:
        reasons = (f"selects: OSError: {error}", f"selects: storm: x, strace.txt line {line}")
        step = f"line {line} [1:test] pipe 1 b send"
        parting = ("they diverge on pipe 1 b:", f"  > {step:58}  {step}")
        return Verdict(name, "differs", (("poll", "passed"),), reasons, parting)

    verdicts = (
        differs("test_a", "line 5", 9),
        differs("test_b", "line 5", 10),
        differs("test_c", "line 5", 9),
        differs("test_d", "line 6", 9),
    )
    found: Any = SimpleNamespace(
        comparison=Comparison(("poll", "selects"), (), (), common=4),
        verdicts=verdicts,
        not_rerun=(),
        without_cpu={},
        unfinished={},
    )
    gathering: Any = SimpleNamespace(uncollected={}, shown=str)
    told = "\n".join(difference_lines(found, gathering)).splitlines()
    assert [line.strip() for line in told if "test_" in line or "same" in line] == [
        "test_a   poll passed",
        "the same on other lines of the trace for 2 other tests:",
        "test_b",
        "test_c",
        "test_d   poll passed",
    ]


def test_a_skip_that_names_a_hub_is_by_design(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.parametrize("number", range(3))
        def test_for_one(eventlet_hub, number):
            if eventlet_hub == "poll":
                pytest.skip("does not work with the poll hub")

        def test_for_another_reason(eventlet_hub):
            if eventlet_hub == "poll":
                pytest.skip("no socket is left")
        """
    )
    assert section(run(pytester, HUBS), "hub differences") == [
        "1 test differs between poll, selects",
        "test_x.py::test_for_another_reason poll skipped selects passed",
        "poll: Skipped: no socket is left",
        "by design, 3 tests are skipped on a hub: does not work with the poll hub",
    ]


def test_a_teardown_of_a_rerun_counts_for_what_the_test_tore_down_in_the_run(
    pytester: pytest.Pytester,
) -> None:
    """Where others follow in the run, one that runs again alone tears down what is theirs, too."""
    module = """
        import os
        from pathlib import Path
        import pytest

        @pytest.fixture(scope="{scope}", autouse=True)
        def ends_well_in_the_run(eventlet_hub):
            yield
            run_before = Path(__file__).with_suffix(f".{{eventlet_hub}}")
            if run_before.exists():
                {deed}
            run_before.touch()

        def test_differs(eventlet_hub): assert eventlet_hub == "poll"
        """
    last = "\n        def test_last(): pass"
    fails, crashes = "assert False", "os._exit(3)"
    pytester.makepyfile(
        test_a=module.format(scope="function", deed=fails),
        test_b=module.format(scope="function", deed=crashes),
        test_c=module.format(scope="module", deed=fails),
        test_x=module.format(scope="module", deed=crashes) + last,
        test_y=module.format(scope="module", deed=fails) + last,
    )
    result = run(pytester, HUBS, "--eventlet-reruns=1")
    lines = [line for line in section(result, "hub differences") if "::" in line]
    assert lines == [
        "test_x.py::test_differs poll failed 0 of 2 selects failed 2 of 2",
        "test_y.py::test_differs",  # word for word the same
        "test_a.py::test_differs poll error 1 of 2 selects failed 2 of 2",
        "test_c.py::test_differs",
        "test_b.py::test_differs poll crashed 1 of 2 selects failed 2 of 2",
    ]


def test_the_rest_still_runs_again_when_one_of_them_ends_its_process(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_ends(eventlet_hub):
            if eventlet_hub == "selects":
                os._exit(3)

        def test_differs(eventlet_hub): assert eventlet_hub == "poll"
        """
    )
    result = run(pytester, HUBS, "--eventlet-reruns=1", "--eventlet-stress")
    lines = section(result, "hub differences")
    assert lines[0] == "2 tests differ between poll, selects"
    assert "test_x.py::test_ends poll failed 0 of 2 selects crashed 2 of 2" in lines
    assert "test_x.py::test_differs poll failed 0 of 2 selects failed 2 of 2" in lines


def test_busy_cpus_are_freed_where_ended_children_are_not_kept(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="def test_differs(eventlet_hub): assert eventlet_hub == 'poll'",
        ignores="""
        import os, signal, sys
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as some that start a run do
        os.execv(sys.executable, [sys.executable, "-m", "pytest", *sys.argv[1:]])
        """,
    )
    options = (HUBS, "--eventlet-reruns=1", "--eventlet-stress")
    result = pytester.run(sys.executable, "ignores.py", *options)
    result.assert_outcomes(passed=1, failed=1)
    assert_no_traceback_of_ours(result.stdout.str() + result.stderr.str())


@needs_strace
def test_traces_are_compared_of_hubs_on_which_the_test_ends_otherwise(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_x(eventlet_hub):
            reader, writer = os.pipe()
            os.write(writer, b"asyncio" if eventlet_hub == "asyncio" else b"epolls or poll")
            os.close(writer)
            if eventlet_hub == "poll":
                os.read(reader, 100)
            os.close(reader)
            assert eventlet_hub != "poll"
        """
    )
    result = run(pytester, "--eventlet-hub=epolls,asyncio,poll", "--strace", "--eventlet-reruns=0")
    told = section(result, "hub differences")
    assert "epolls poll" in told
    assert "epolls asyncio" not in told


LEAVES = """
    import os
    from pathlib import Path
    import socket

    HERE = "DIRECTORY"

    def test_file():
        os.close(os.open(f"{HERE}/file", os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def test_address():
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{HERE}/socket")

    def test_directory():
        Path(HERE, "directory").mkdir()

    def test_removes(eventlet_hub):
        for _ in range(1 + (eventlet_hub == "asyncio")):
            os.mkdir(f"{HERE}/removed")
        os.rmdir(f"{HERE}/removed")

    def test_expects_it(eventlet_hub):
        Path(HERE, "expected").mkdir(exist_ok=True)
        Path(HERE, "other").mkdir(exist_ok=True)
        Path(HERE, "other").rmdir()
        if eventlet_hub == "asyncio":
            raise FileExistsError(17, "File exists", "other")
"""


@needs_strace
def test_what_a_test_has_left_under_one_hub_and_fails_for_under_another_is_told(
    pytester: pytest.Pytester,
) -> None:
    # An address is 107 bytes at most.
    with tempfile.TemporaryDirectory() as directory:
        pytester.makepyfile(test_x=LEAVES.replace("DIRECTORY", directory))
        result = run(pytester, "--eventlet-hub=epolls,asyncio", "--strace", "--eventlet-reruns=0")
    told = [line for line in section(result, "hub differences") if "this test made" in line]
    expected = [("file", "openat"), ("socket", "bind"), ("directory", "mkdir")]
    assert len(told) == len(expected)
    for line, (name, call) in zip(told, expected, strict=True):
        assert re.fullmatch(
            rf"asyncio: this test made {directory}/{name} under epolls, by {call}\(\) at .* "
            rf"\(strace\.txt line \d+\), and did not remove it: {call}\(\) at .* fails for it, "
            r"strace\.txt line \d+",
            line,
        )


@needs_strace
@pytest.mark.parametrize("hubs", ["poll,selects", "selects"])
def test_only_what_failed_is_recorded_after_an_unwatched_run(
    pytester: pytest.Pytester, hubs: str
) -> None:
    pytester.makepyfile(
        test_x="""
        import os
        from pathlib import Path

        def is_traced():
            return "TracerPid:\\t0" not in Path("/proc/self/status").read_text()

        def test_passes(): assert not is_traced()
        def test_fails(eventlet_hub):
            assert eventlet_hub == "poll", is_traced()
        def test_only_when_watched(): assert is_traced()
        def test_crashes(): os.abort()
        """
    )
    timeout = "--eventlet-timeout=60"
    result = run(pytester, f"--eventlet-hub={hubs}", "--strace", "--eventlet-retrace", timeout)
    tests = ("fails", "only_when_watched", "crashes")
    names = [f"{name}-{hub}" for name in tests for hub in hubs.split(",")]
    traces = Path("eventlet-debug").glob("*/strace.txt*")
    recorded = [path.parent.name.rpartition("-")[0] for path in traces]
    assert sorted(recorded) == sorted(f"test_x.py-test_{name}" for name in names)
    assert [line.partition(";")[0] for line in section(result, "retraced")] == [
        f"test_x.py::test_only_when_watched[{hub}]: failed in the run, "
        "passed alone under the tracers"
        for hub in hubs.split(",")
    ]
    result.stdout.fnmatch_lines([f"artifacts of {len(names)} tests: *"])
    for path in Path("eventlet-debug").glob("*crashes*/test.json"):
        assert '"call": "crashed"' in path.read_text()


@needs_strace
def test_reasons_come_from_what_was_traced_rather_than_from_what_was_dumped(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_differs(eventlet_hub):
            reader, writer = os.pipe()
            if eventlet_hub == "poll":
                os.write(writer, b"x")
            assert eventlet_hub == "poll"
        """
    )
    options = ("--strace", "--dump-asyncio-tasks", "--eventlet-retrace", "--eventlet-reruns=0")
    result = run(pytester, HUBS, *options)
    assert "they diverge on pipe 1 b:" in section(result, "hub differences")
    assert len([*Path("eventlet-debug").glob("*selects*/tasks.txt")]) == 2
    result.stdout.fnmatch_lines(["artifacts of 2 tests: *"])


def test_the_earlier_test_that_makes_one_fail_is_found(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest
        STATE = []

        @pytest.mark.parametrize("number", range(10))
        def test_before(number):
            if number == 6:
                STATE.append(number)

        def test_after(): assert STATE == []
        def test_alone(): assert False
        """
    )
    result = run(
        pytester,
        "--eventlet-hub=poll",
        "--eventlet-culprit=test_x.py::test_after",
        "-p",
        "no:cacheprovider",
    )
    name, culprit, how = section(result, "culprit")
    assert name == "test_x.py::test_after[poll] fails after:"
    assert culprit == "test_x.py::test_before[6-poll]"
    assert how.endswith("alone it passes)")


def test_ids_are_relative_to_where_pytest_was_called_and_can_be_named_so(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    below = pytester.mkdir("below")
    program = "def test_differs(eventlet_hub): assert eventlet_hub == 'poll'"
    (below / "test_x.py").write_text(program)
    monkeypatch.chdir(below)
    name = "test_x.py::test_differs"
    result = run(pytester, HUBS, "--eventlet-reruns=0", f"--eventlet-culprit={name}")
    assert f"{name} poll passed selects failed" in section(result, "hub differences")
    assert section(result, "culprit") == [
        f"{name}[poll] did not fail: there is nothing to explain",
        f"{name}[selects] fails alone, too: no earlier test is to blame",
    ]


def test_a_test_that_fails_alone_or_passes_has_no_culprit(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        def test_a(): pass
        def test_alone(eventlet_hub): assert eventlet_hub == "poll"
        """
    )
    result = run(pytester, HUBS, "--eventlet-culprit=test_x.py::test_alone")
    assert section(result, "culprit") == [
        "test_x.py::test_alone[poll] did not fail: there is nothing to explain",
        "test_x.py::test_alone[selects] fails alone, too: no earlier test is to blame",
    ]


def test_a_culprit_for_a_test_that_is_not_there_is_a_usage_error(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x="def test_passes(): pass")
    result = pytester.runpytest("--eventlet-culprit=test_x.py::test_psases")
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert section(result, "culprit") == [
        "test_x.py::test_psases did not run: name it as the report does"
    ]


@pytest.mark.parametrize(
    ("name", "run_again", "said"),
    [
        ("test_c", None, "test_c did not run: name it as the report does"),
        ("test_b", None, "test_b: tests cannot be run again under --pdb or --trace"),
        ("test_b", {}, "test_b could not be run again: its process ended before it"),
        (
            "test_b",
            {"test_b": Attempt("test_b", "passed")},
            "test_b passes alone, and passes after the 1 test before it: "
            "it is flaky, or depends on what ran at the same time",
        ),
    ],
)
def test_what_a_search_for_the_culprit_cannot_tell_is_said(
    name: str, run_again: dict[str, Attempt] | None, said: str
) -> None:
    gathering: Any = SimpleNamespace(
        nodeids=["test_a", "test_b"],
        key=lambda nodeid: (nodeid, "poll"),
        outcome=lambda nodeid: "failed",
        shown=str,
    )
    reruns: Any = SimpleNamespace(
        possible=run_again is not None, ended_by="", run=lambda nodeids: run_again
    )
    lines: list[str] = []
    terminal: Any = SimpleNamespace(section=lambda *_: None, line=lines.append)
    search = Culprit(name, gathering, reruns)
    search.pytest_sessionfinish(SimpleNamespace(exitstatus=pytest.ExitCode.TESTS_FAILED))
    search.pytest_terminal_summary(terminal)
    assert lines == [said]


def test_what_fails_only_after_others_of_its_module_differs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import eventlet

        left = []

        def test_before():
            pass

        def test_leaves():
            left.append(type(eventlet.hubs.get_hub()).__module__)

        def test_finds():
            assert "eventlet.hubs.asyncio" not in left

        def test_finds_too():
            assert "eventlet.hubs.asyncio" not in left, "too"

        def test_behind():
            left.append("behind")
        """
    )
    options = ("--eventlet-hub=epolls,asyncio", "--eventlet-reruns=2", "-W", "ignore")
    result = pytester.runpytest(*options)
    hint = (
        "    asyncio: fails only after earlier tests of its module, passed in 2 reruns without "
        "them; --eventlet-culprit finds which"
    )
    result.stdout.fnmatch_lines(
        [
            "rerunning 2 tests under 2 hubs, 2 times each",
            "rerunning 2 tests after the earlier tests of the same module",
            "2 tests differ between epolls, asyncio",
            "  *::test_finds *   epolls failed 0 of 3   asyncio failed 3 of 3",
            hint,
            "  *::test_finds_too   epolls failed 0 of 3   asyncio failed 3 of 3",
            hint,
        ]
    )
    result.stdout.no_fnmatch_line("*flaky*")


def test_what_failed_only_in_the_run_is_told_where_to_look(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_leaves="""
        import sys

        import eventlet

        def test_leaves():
            sys.left = type(eventlet.hubs.get_hub()).__module__
        """,
        test_looks="""
        import sys

        def test_before():
            pass

        def test_finds():
            assert getattr(sys, "left", "") != "eventlet.hubs.asyncio"
        """,
    )
    options = ("--eventlet-hub=epolls,asyncio", "--eventlet-reruns=1", "-W", "ignore")
    result = pytester.runpytest(*options)
    hint = (
        "    asyncio: failed in the run, passed in 1 rerun without the tests that do not differ; "
        "--eventlet-culprit looks for an earlier test that makes it fail"
    )
    result.stdout.fnmatch_lines(["1 test is flaky: *", "  *asyncio failed 1 of 2", hint])
    pytester.path.joinpath("test_leaves.py").unlink()
    pytester.path.joinpath("test_looks.py").unlink()
    pytester.makepyfile(
        """
        import pathlib

        import eventlet

        def test_alone():
            begun = pathlib.Path("begun")
            seen = begun.exists()
            if type(eventlet.hubs.get_hub()).__module__ == "eventlet.hubs.asyncio":
                begun.touch()
                assert seen
        """
    )
    result = pytester.runpytest(*options)
    result.stdout.fnmatch_lines(["1 test is flaky: *"])
    result.stdout.no_fnmatch_line(hint)
