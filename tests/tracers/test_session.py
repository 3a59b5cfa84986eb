"""Recording around real tests: when it starts and stops, what is kept, and what goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
import re
import subprocess
import sys
import time
from typing import Any
from xml.etree import ElementTree

from needs import needs_strace
import pytest
from runs import assert_no_traceback_of_ours

from pytest_eventlet_debug.recordings.strace_log import open_log

ALL = ("--strace", "--pcap", "--cprofile")

#: Of a test that sends nothing.
FILES = {
    "findings.json",
    "profile.callgrind",
    "profile.cprof",
    "profile.json",
    "report.js",
    "strace.txt",
}

TRACED = {"report.js", "strace.txt"}


def recorded(run: str = "eventlet-debug") -> dict[str, dict[str, Any]]:
    """Return what each test.json says, by the test's name (and attempt, from the second)."""
    found = {}
    for path in Path(run).glob("*/test.json"):
        facts = json.loads(path.read_text())
        name = facts["nodeid"].rpartition("::")[2]
        if facts["attempt"] > 1:
            name += f" #{facts['attempt']}"
        assert {str(p.relative_to(path.parent)) for p in path.parent.rglob("*") if p.is_file()} == {
            "test.json",
            *facts["artifacts"],
        }
        found[name] = {**facts, "directory": path.parent}
    return found


def recorded_at_last() -> dict[str, dict[str, Any]]:
    """As :func:`recorded`, after a run that could not wait for all to be written."""
    until = time.monotonic() + 20
    while True:
        try:
            return recorded()
        except AssertionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


def marked_phases(directory: Path) -> list[str]:
    text = (directory / "strace.txt").read_text()
    return re.findall(r'access\("/\.eventlet-debug/phase/\d+/([\w-]+)/', text)


def looks_in(directory: Path) -> list[str]:
    """Return the files that are none, and that a test has looked for."""
    with open_log(directory / "strace.txt") as trace:
        text = trace.read()
    return re.findall(r'access\("(/(?:described|torn-down|asked)[^"]*)', text)


def last_call(directory: Path) -> str:
    return (directory / "strace.txt").read_text().splitlines()[-1]


EACH_PHASE = """
    import os, pytest

    def look(where):
        os.access(f"/looked/{where}", 0)

    @pytest.fixture
    def resource():
        look("setup")
        yield
        look("teardown")

    def test_phases(resource):
        look("call")
"""


@needs_strace
@pytest.mark.parametrize(
    ("option", "seen"),
    [
        ([], ["setup", "call", "teardown"]),
        (["--eventlet-phases=call"], ["call"]),
        (["--eventlet-phases=setup,teardown"], ["setup", "teardown"]),
        (["--eventlet-phases=teardown"], ["teardown"]),
    ],
)
def test_the_phases_asked_for_are_recorded_and_no_others(
    pytester: pytest.Pytester, option: list[str], seen: list[str]
) -> None:
    pytester.makepyfile(EACH_PHASE)
    pytester.runpytest("--strace", *option).assert_outcomes(passed=1)
    facts = recorded()["test_phases"]
    text = (facts["directory"] / "strace.txt").read_text()
    assert re.findall(r'access\("/looked/(\w+)"', text) == seen
    assert marked_phases(facts["directory"]) == seen


def test_by_default_the_call_alone_is_profiled(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(EACH_PHASE)
    pytester.runpytest("--cprofile").assert_outcomes(passed=1)
    text = (recorded()["test_phases"]["directory"] / "profile.callgrind").read_text()
    assert "test_phases" in text
    assert "resource" not in text


@needs_strace
def test_test_json_says_what_ran_when_and_what_there_is(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(EACH_PHASE)
    pytester.runpytest(*ALL, "--eventlet-hub=selects").assert_outcomes(passed=1)
    facts = recorded()["test_phases[selects]"]
    assert facts["nodeid"] == f"{path.name}::test_phases[selects]"
    assert facts["hub"] == "selects"
    assert facts["outcomes"] == {"setup": "passed", "call": "passed", "teardown": "passed"}
    assert set(facts["artifacts"]) == FILES
    assert facts["errors"] == []
    times = [time for phase in ("setup", "call", "teardown") for time in facts["phases"][phase]]
    assert times == sorted(times)
    looked = re.search(
        r'([\d.]+) access\("/looked/call"', (facts["directory"] / "strace.txt").read_text()
    )
    assert looked
    start, end = facts["phases"]["call"]
    assert start <= float(looked[1]) * 1e9 <= end


OUTCOMES = """
    import pytest, unittest

    @pytest.fixture
    def broken():
        raise ValueError

    @pytest.fixture
    def breaks():
        yield
        raise ValueError

    def test_passes(): pass
    def test_fails(): assert False
    def test_error(broken): pass
    def test_error_at_teardown(breaks): pass
    def test_skips(): pytest.skip()
    @pytest.mark.skip
    def test_marked_skip(): pass
    @pytest.mark.xfail
    def test_expected_to_fail(): assert False
    class TestUnit(unittest.TestCase):
        def test_unit_passes(self): pass
        def test_unit_fails(self): self.fail()
"""


def test_only_failed_tests_keep_their_artifacts_when_that_is_asked_for(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(OUTCOMES)
    pytester.runpytest("--cprofile", "--eventlet-keep=failed", "--eventlet-phases=setup,call")
    assert {name: facts["outcomes"] for name, facts in recorded().items()} == {
        "test_fails": {"setup": "passed", "call": "failed", "teardown": "passed"},
        "test_error": {"setup": "failed", "teardown": "passed"},
        "test_error_at_teardown": {"setup": "passed", "call": "passed", "teardown": "failed"},
        "test_unit_fails": {"setup": "passed", "call": "failed", "teardown": "passed"},
    }
    assert len(list(Path("eventlet-debug").glob("*/test.json"))) == 4


@needs_strace
def test_every_test_that_began_keeps_its_artifacts_otherwise(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OUTCOMES)
    result = pytester.runpytest("--strace", "--junitxml=report.xml")
    assert set(recorded()) == {
        *("test_passes", "test_fails", "test_error", "test_error_at_teardown", "test_skips"),
        *("test_expected_to_fail", "test_unit_passes", "test_unit_fails"),
    }
    in_junit = {
        case.get("name"): each.get("value")
        for case in ElementTree.parse("report.xml").iter("testcase")
        for each in case.iter("property")
        if each.get("name") == "eventlet_artifacts"
    }
    assert in_junit == {name: str(facts["directory"]) for name, facts in recorded().items()}
    for name in ("test_fails", "test_error", "test_error_at_teardown", "test_unit_fails"):
        result.stdout.fnmatch_lines([f"artifacts: {pytester.path / in_junit[name]}"])
    assert f"artifacts: {in_junit['test_passes']}" not in result.stdout.str()
    result.stdout.fnmatch_lines([f"artifacts of 8 tests: {pytester.path / 'eventlet-debug'}"])


def test_a_subtest_that_failed_keeps_the_artifacts(pytester: pytest.Pytester) -> None:
    pytest.importorskip("_pytest.subtests")
    pytester.makepyfile(
        """
        import unittest

        class TestUnit(unittest.TestCase):
            def test_sub(self):
                for number in range(3):
                    with self.subTest(number=number):
                        assert number != 0
        """
    )
    pytester.runpytest("--cprofile", "--eventlet-keep=failed")
    assert recorded()["test_sub"]["outcomes"]["call"] == "failed"


def test_a_retry_has_a_directory_of_its_own(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_rerunfailures")
    pytester.makepyfile(
        """
        attempts = []
        def test_third_time_lucky():
            attempts.append(1)
            assert len(attempts) == 3
        """
    )
    result = pytester.runpytest("--cprofile", "-p", "rerunfailures", "--reruns=3")
    result.assert_outcomes(passed=1)
    assert {name: facts["outcomes"]["call"] for name, facts in recorded().items()} == {
        "test_third_time_lucky": "failed",
        "test_third_time_lucky #2": "failed",
        "test_third_time_lucky #3": "passed",
    }
    result.stdout.fnmatch_lines(["artifacts of 1 test:*"])


@needs_strace
def test_with_workers_under_two_hubs_all_artifacts_are_complete(pytester: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        """
        import os, pytest, socket

        @pytest.mark.parametrize("number", range(6))
        def test_last(number, request):
            request.addfinalizer(lambda: os.access(f"/last/{number}", 0))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"packet %d" % number, ("127.0.0.1", 9))
        """
    )
    result = pytester.runpytest(*ALL, "--eventlet-hub=poll,selects", "-n2")
    result.assert_outcomes(passed=12)
    found = recorded()
    assert set(found) == {f"test_last[{n}-{hub}]" for n in range(6) for hub in ("poll", "selects")}
    for name, facts in found.items():
        assert set(facts["artifacts"]) == {*FILES, "capture.pcapng"}
        assert (
            b"packet " + name[10].encode() in (facts["directory"] / "capture.pcapng").read_bytes()
        )
        assert facts["errors"] == []
        assert marked_phases(facts["directory"]) == ["setup", "call", "teardown"]
        assert f'access("/last/{name[10]}"' in (facts["directory"] / "strace.txt").read_text()
    run = json.loads(Path("eventlet-debug/run.json").read_text())
    assert {test["nodeid"].rpartition("::")[2] for test in run["tests"]} == set(found)


@needs_strace
def test_a_tracer_that_dies_does_not_fail_the_test_and_is_told_once(
    pytester: pytest.Pytester,
) -> None:
    path = pytester.makepyfile(
        """
        import os, pathlib, signal

        def tracer():
            text = pathlib.Path("/proc/self/status").read_text()
            return int(text.partition("TracerPid:")[2].split()[0])

        def test_killed():
            os.kill(tracer(), signal.SIGKILL)
            while tracer():
                pass

        def test_next():
            os.access("/next", 0)
        """
    )
    result = pytester.runpytest("--strace", "--junitxml=report.xml")
    result.assert_outcomes(passed=2)
    told = [line for line in result.stdout.lines if "SIGKILL" in line or "signal 9" in line]
    assert len(told) == 1, result.stdout.str()
    assert told[0].startswith("strace: ")
    assert told[0].endswith(f"({path.name}::test_killed)")
    found = recorded()
    (error,) = found["test_killed"]["errors"]
    assert told[0].startswith(error)
    assert found["test_next"]["errors"] == []
    assert 'access("/next"' in (found["test_next"]["directory"] / "strace.txt").read_text()
    (inside,) = [
        each.get("value")
        for each in ElementTree.parse("report.xml").iter("property")
        if each.get("name") == "eventlet_tracer_error"
    ]
    assert inside == error


@needs_strace
@pytest.mark.parametrize("name", ["test_killed_and_fails"])
def test_the_report_of_a_failing_test_says_what_its_tracer_could_not(
    pytester: pytest.Pytester, name: str
) -> None:
    pytester.makepyfile(
        f"""
        import os, shutil, pathlib, pytest

        @pytest.fixture
        def ruin(request):
            yield
            assert False, "at teardown"

        def {name}(eventlet_artifacts, ruin):
            shutil.rmtree(eventlet_artifacts.parent)
            eventlet_artifacts.parent.write_text("in the way")

        def test_next():
            assert False
        """
    )
    result = pytester.runpytest("--cprofile", "--eventlet-phases=call")
    result.assert_outcomes(passed=1, failed=1, errors=1)
    report = result.stdout.str().partition("_ test_next _")[2]
    assert re.search(r"-- eventlet-debug --+\ncprofile: .*Not a directory", report), report


@pytest.mark.fault("directory-ruined")
def test_a_place_that_is_ruined_in_a_test_fails_no_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import shutil

        def test_ruins(eventlet_artifacts):
            shutil.rmtree(eventlet_artifacts.parent)
            eventlet_artifacts.parent.write_text("in the way")

        def test_next(): pass
        def test_last(): pass
        """
    )
    result = pytester.runpytest("--cprofile", "--pcap", "--eventlet-hub=poll")
    result.assert_outcomes(passed=3)
    told = [line for line in result.stdout.lines if "Not a directory" in line]
    place = Path("eventlet-debug").absolute()
    for tracer in ("pcap", "cprofile"):
        line = f"{tracer}: [Errno 20] Not a directory: '{place}' ("
        assert [each for each in told if each.startswith(line) and " and 1 more)" in each]
    assert any("test_ruins" in line and "EventletDebugWarning" in line for line in told)
    assert Path("eventlet-debug").read_text() == "in the way"


@pytest.mark.fault("own-file-size")
def test_a_limit_of_the_tests_own_is_none_for_its_recordings(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import resource

        def test_fills():
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))

        def test_next(): pass

        def test_last():
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        """
    )
    # The limit is on files: pytest's own output must not go into one.
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "--cprofile", "-s", "-p", "no:cacheprovider"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert " 3 passed" in result.stdout
    assert "cut or missing" not in result.stdout
    for record in recorded().values():
        assert record["errors"] == []
        assert "profile.cprof" in record["artifacts"]


@pytest.mark.fault("descriptors-closed")
@needs_strace
def test_a_test_that_closes_every_descriptor_passes(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os

        def test_before(): pass

        def test_closes():
            os.closerange(3, 4096)

        def test_after(): pass
        """
    )
    result = pytester.runpytest("--strace", "--pcap", "-s")
    result.assert_outcomes(passed=3)
    told = [line for line in result.outlines if "the connection to the tracing helper" in line]
    assert len(told) == 1, result.stdout.str()
    assert "the tracing helper" in told[0]
    tests = recorded_at_last()
    assert tests["test_before"]["errors"] == []
    assert tests["test_closes"]["errors"] != []


@pytest.mark.fault("forks-or-moves")
@needs_strace
def test_a_test_that_forks_or_changes_directory_is_recorded_as_any(
    pytester: pytest.Pytester,
) -> None:
    pytester.mkdir("elsewhere")
    pytester.makepyfile(
        """
        import os

        def test_forks():
            pid = os.fork()
            if not pid:
                os.access("/in/the/child", 0)
                os._exit(0)
            assert os.waitpid(pid, 0) == (pid, 0)

        def test_changes_directory(monkeypatch):
            os.chdir("elsewhere")
        """
    )
    result = pytester.runpytest(*ALL, "-W", "ignore")
    result.assert_outcomes(passed=2)
    found = recorded()
    assert [facts["errors"] for facts in found.values()] == [[], []]
    assert [set(facts["artifacts"]) for facts in found.values()] == [FILES, FILES]
    assert '"/in/the/child"' in (found["test_forks"]["directory"] / "strace.txt").read_text()
    assert not any(Path("elsewhere").iterdir())


@pytest.mark.fault("exit-in-run")
@needs_strace
@pytest.mark.parametrize("ends", ["raise KeyboardInterrupt", "pytest.exit('enough')"])
def test_a_run_that_ends_in_a_test_leaves_its_artifacts_complete(
    pytester: pytest.Pytester, ends: str
) -> None:
    pytester.makepyfile(
        f"""
        import os, pytest

        def test_ends():
            os.access("/before/the/end", 0)
            {ends}
        """
    )
    result = pytester.runpytest(*ALL, "--eventlet-keep=failed")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    facts = recorded()["test_ends"]
    assert facts["outcomes"] == {"setup": "passed", "call": "interrupted"}
    # pytest's own imports make the trace long enough to be packed.
    assert {name.removesuffix(".gz") for name in facts["artifacts"]} == FILES
    with open_log(facts["directory"] / "strace.txt") as trace:
        assert 'access("/before/the/end"' in trace.read()
    run = json.loads(Path("eventlet-debug/run.json").read_text())
    assert run["exit_status"] == 2
    assert len(run["tests"]) == 1


@needs_strace
def test_tracers_pause_while_the_debugger_is_open(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pexpect")
    pytester.makepyfile(
        """
        import os

        def test_breaks():
            os.access("/before", 0)
            breakpoint()
            os.access("/after", 0)

        def test_teardown(request):
            request.addfinalizer(breakpoint)
        """
    )
    child = pytester.spawn_pytest("--strace --cprofile", expect_timeout=60.0)
    child.expect(r"\(Pdb\)")
    child.sendline("import os; os.access('/in/the/debugger', 0)")
    child.expect("False")
    child.sendline("c")
    child.expect(r"\(Pdb\)")
    child.sendline("c")
    child.expect("2 passed")
    child.read()
    child.wait()
    found = recorded()
    directory = found["test_breaks"]["directory"]
    looked = re.findall(r'access\("/(before|in|after)', (directory / "strace.txt").read_text())
    assert looked == ["before", "after"]
    # The profile was paused before that debugger opened, and is not resumed after it.
    profile = found["test_teardown"]["directory"] / "profile.callgrind"
    assert "teardown" not in profile.read_text().replace("test_teardown", "")
    assert [facts["errors"] for facts in found.values()] == [[], []]


DESCRIBES = """
    import os

    def pytest_runtest_makereport(item, call):
        if call.when == "call":
            os.access(f"/described/{item.name}", 0)
"""


@needs_strace
def test_how_pytest_describes_the_first_failure_is_not_traced(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(DESCRIBES)
    pytester.makepyfile(
        """
        import os, pytest

        @pytest.fixture
        def resource():
            yield
            os.access("/torn-down", 0)

        def test_passes(resource): pass
        def test_skipped(resource): pytest.skip("not now")
        def test_fails(resource): assert False
        """
    )
    result = pytester.runpytest_subprocess("--strace")
    result.assert_outcomes(passed=1, skipped=1, failed=1)
    looks = {name: looks_in(facts["directory"]) for name, facts in recorded().items()}
    assert looks == {
        "test_passes": ["/described/test_passes", "/torn-down"],
        "test_skipped": ["/described/test_skipped", "/torn-down"],
        "test_fails": ["/torn-down"],
    }


@needs_strace
def test_what_follows_a_subtest_that_fails_is_traced(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os

        def test_goes_on(subtests):
            with subtests.test("fails"):
                assert False
            os.access("/asked", 0)
        """
    )
    assert pytester.runpytest_subprocess("--strace").ret == pytest.ExitCode.TESTS_FAILED
    assert looks_in(recorded()["test_goes_on"]["directory"]) == ["/asked"]


@needs_strace
def test_a_process_that_a_failed_test_has_started_is_traced_on(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(DESCRIBES)
    pytester.makepyfile(
        """
        import os, subprocess, sys

        def test_fails(request):
            program = "import os; input(); os.access('/asked', 0)"
            child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE)
            request.addfinalizer(lambda: child.communicate(b"go on"))
            assert False
        """
    )
    pytester.runpytest_subprocess("--strace").assert_outcomes(failed=1)
    assert looks_in(recorded()["test_fails"]["directory"]) == ["/described/test_fails", "/asked"]


# Blocks


@needs_strace
def test_the_look_for_leaks_and_the_end_of_the_run_are_not_traced(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        from pathlib import Path
        import pytest

        @pytest.hookimpl(wrapper=True, tryfirst=True)
        def pytest_sessionfinish():
            status = Path("/proc/self/status").read_text()
            print("traced by", status.partition("TracerPid:")[2].split()[0])
            return (yield)
        """
    )
    pytester.makepyfile(
        """
        import os

        def test_leak():
            os.open("/", os.O_RDONLY)
        """
    )
    result = pytester.runpytest("-s", "--strace", "--eventlet-leaks=fail")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines("*traced by 0")
    facts = recorded()["test_leak"]
    assert facts["outcomes"]["teardown"] == "failed"
    text = (facts["directory"] / "strace.txt").read_text()
    assert "openat(AT_FDCWD" in text
    assert "/proc/" not in text


BLOCKS = """
    import os

    def test_blocks(eventlet_trace):
        os.access("/outside", 0)
        with eventlet_trace("strace", "pcap", "cprofile") as first:
            os.access("/first", 0)
        os.access("/outside", 0)
        with eventlet_trace("strace") as second:
            os.access("/second", 0)
            with eventlet_trace("strace") as third:
                os.access("/third", 0)
            os.access("/second", 0)
        os.access("/outside", 0)
        assert [path.name for path in (first, second, third)] == ["block-1", "block-2", "block-3"]
"""


@needs_strace
@pytest.mark.parametrize("options", [[], [*ALL], ["--strace", "--eventlet-phases=setup"]])
def test_a_block_is_recorded_alone_with_and_without_options(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    pytester.makepyfile(BLOCKS)
    result = pytester.runpytest(*options)
    result.assert_outcomes(passed=1, warnings=0)
    facts = recorded()["test_blocks"]
    assert facts["errors"] == []
    whole = FILES if options == [*ALL] else TRACED if options else set()
    assert set(facts["artifacts"]) == {
        *whole,
        "findings.json",
        *(f"block-1/{name}" for name in FILES - {"findings.json"}),
        *(f"block-2/{name}" for name in TRACED),
        *(f"block-3/{name}" for name in TRACED),
    }

    def looked(name: str) -> list[str]:
        text = (facts["directory"] / name / "strace.txt").read_text()
        return re.findall(r'access\("/(outside|first|second|third)"', text)

    assert looked("block-1") == ["first"]
    assert looked("block-2") == ["second", "second"]
    assert looked("block-3") == ["third"]
    if options == [*ALL]:
        assert looked(".") == ["outside"] * 3
    result.stdout.fnmatch_lines(["artifacts of 1 test:*"])
    run = json.loads(Path("eventlet-debug/run.json").read_text())
    assert run["exit_status"] == 0
    assert len(run["tests"]) == 1


@needs_strace
def test_what_other_tracers_import_is_not_in_the_trace_of_a_block(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import os, sys

        def test_block(eventlet_trace):
            # From Python 3.14 on, pdb imports it with asyncio.
            assert "ssl" not in sys.modules or sys.version_info >= (3, 14)
            with eventlet_trace("strace", "pcap"):
                os.access("/in/the/block", 0)
            assert "ssl" in sys.modules
        """
    )
    pytester.runpytest_subprocess().assert_outcomes(passed=1)
    [trace] = pytester.path.glob("eventlet-debug/*/block-1/strace.txt")
    assert "/in/the/block" in trace.read_text()
    assert "openat(" not in trace.read_text()


@needs_strace
def test_a_block_without_options_is_out_of_a_patched_tests_sight(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("import eventlet; eventlet.monkey_patch()")
    pytester.makepyfile(
        """
        import os, signal
        import eventlet, greenlet

        def test_block(eventlet_trace):
            signals, switches, threads = [], [], os.listdir("/proc/self/task")
            signal.signal(signal.SIGCHLD, lambda number, frame: signals.append(number))
            eventlet.spawn(lambda: switches.append(1))
            with eventlet_trace("strace", "pcap"):
                os.access("/in/the/block", 0)
            assert not signals and not switches
            try:
                os.wait()
            except ChildProcessError:
                pass
            else:
                raise AssertionError("there was a child")
            assert os.listdir("/proc/self/task") == threads
            eventlet.sleep(0)
            assert switches
        """
    )
    pytester.runpytest("-W", "ignore").assert_outcomes(passed=1)
    directory = recorded()["test_block"]["directory"] / "block-1"
    assert 'access("/in/the/block"' in (directory / "strace.txt").read_text()


def test_a_block_under_workers_without_options_completes_the_run(
    pytester: pytest.Pytester,
) -> None:
    pytest.importorskip("xdist")
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_block(eventlet_trace, number):
            with eventlet_trace("cprofile"):
                sorted([2, 1])
        """
    )
    pytester.runpytest("-n2").assert_outcomes(passed=4)
    assert len(recorded()) == 4
    run = json.loads(Path("eventlet-debug/run.json").read_text())
    assert len(run["tests"]) == 4


@pytest.mark.parametrize("arguments", [[], ["-W", "error"], ["-n1"], ["--eventlet-hub=poll"]])
def test_a_block_whose_tool_is_missing_is_warned_of_and_not_recorded(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    if "-n1" in arguments:
        pytest.importorskip("xdist")
    monkeypatch.setenv("PATH", str(pytester.mkdir("empty")))
    pytester.makepyfile(
        """
        def test_block(eventlet_trace):
            with eventlet_trace("strace", "cprofile") as directory:
                sorted([2, 1])
            assert [path.name for path in directory.iterdir()]

        def test_again(eventlet_trace):
            with eventlet_trace("strace"):
                pass
        """
    )
    result = pytester.runpytest(*arguments)
    result.assert_outcomes(passed=2)
    words = "strace: there is no strace on PATH: install it"
    if "error" not in arguments:
        result.stdout.fnmatch_lines(
            [f"*:2: EventletDebugWarning: eventlet_trace: {words}*", "*with eventlet_trace*"]
        )
    if "-n1" not in arguments:
        result.stdout.fnmatch_lines([f"{words}*::test_block*and 1 more)"])
    name = "test_block[poll]" if "--eventlet-hub=poll" in arguments else "test_block"
    facts = recorded()[name]
    assert facts["artifacts"] == [
        "block-1/profile.callgrind",
        "block-1/profile.cprof",
        "block-1/profile.json",
        "block-1/report.js",
    ]
    assert facts["errors"][0].startswith(words)


def test_the_warning_can_be_named_in_a_filter(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(pytester.mkdir("empty")))
    pytester.makeini(
        "[pytest]\nfilterwarnings = ignore::pytest_eventlet_debug.EventletDebugWarning"
    )
    pytester.makepyfile("def test_block(eventlet_trace):\n    with eventlet_trace('strace'): pass")
    pytester.runpytest().assert_outcomes(passed=1, warnings=0)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("'strac'", "'strac' is not a tracer. There are: cprofile, pcap, strace."),
        ("'pcap', '--strace'", "'--strace' is not a tracer. There are"),
        ("", "no tracer is named. There are: cprofile, pcap, strace."),
    ],
)
def test_a_name_that_is_no_tracer_is_an_error_of_the_test(
    pytester: pytest.Pytester, names: str, words: str
) -> None:
    pytester.makepyfile(f"def test_block(eventlet_trace):\n    with eventlet_trace({names}): pass")
    result = pytester.runpytest()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([f"E *ValueError: eventlet_trace: {words}*"])
    assert_no_traceback_of_ours(result.stdout.str())


def test_an_exception_in_a_block_is_the_tests_and_the_block_is_complete(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        def test_block(eventlet_trace):
            with eventlet_trace("cprofile"):
                sorted([2, 1])
                raise ValueError("mine")
        """
    )
    result = pytester.runpytest("--eventlet-keep=failed")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["E *ValueError: mine", "artifacts: *eventlet-debug*test_block*"])
    assert recorded()["test_block"]["artifacts"] == [
        *("block-1/profile.callgrind", "block-1/profile.cprof", "block-1/profile.json"),
        "block-1/report.js",
    ]


@pytest.mark.parametrize("options", [[], ["--cprofile"]])
def test_a_tests_directory_exists_and_what_it_writes_is_kept(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    pytester.makepyfile(
        """
        def test_writes(eventlet_artifacts):
            (eventlet_artifacts / "note.txt").write_text("kept")

        def test_other(eventlet_artifacts):
            assert not (eventlet_artifacts / "note.txt").exists()
        """
    )
    pytester.runpytest(*options).assert_outcomes(passed=2)
    assert "note.txt" in recorded()["test_writes"]["artifacts"]
    assert recorded()["test_writes"]["directory"] != recorded()["test_other"]["directory"]


def lasted(record: dict[str, Any]) -> int:
    """Return nanoseconds from the beginning of a test's first phase to the end of its last."""
    times = record["phases"].values()
    return max(ended for _, ended in times) - min(began for began, _ in times)


@needs_strace
def test_the_cpu_time_of_short_phases_is_not_asked_for(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import time

        import pytest

        def test_computes():
            end = time.thread_time() + 0.2
            while time.thread_time() < end: pass

        def test_sleeps():
            time.sleep(0.2)

        @pytest.mark.parametrize("number", range(10))
        def test_short(number): pass
        """
    )
    pytester.runpytest("--strace").assert_outcomes(passed=12)
    tests = recorded()
    assert tests["test_computes"]["cpu"]["call"] > 0.1
    assert tests["test_sleeps"]["cpu"]["call"] < 0.1
    for record in (tests[f"test_short[{number}]"] for number in range(10)):
        began, ended = record["phases"]["call"]
        if ended - began < 10_000_000:
            assert record["cpu"]["call"] == pytest.approx((ended - began) / 1e9, abs=1e-6)
        trace = Path(record["directory"], "strace.txt").read_text()
        assert trace.count("CLOCK_THREAD_CPUTIME_ID") <= 1 + lasted(record) / 10_000_000
