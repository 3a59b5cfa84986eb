"""Tests that crash or hang: they fail alone, with evidence, and the rest runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
import re
import subprocess
import sys
from xml.etree import ElementTree

from programs import others_on
import pytest
from runs import BOTH
from runs import failure_of
from runs import run
from speed import depends_on_speed

#: Longer than a pytest takes to start, without the time for which a busy machine makes it wait.
TIMEOUT = "--eventlet-timeout=3"
HAS_STRACE = any(Path(each, "strace").exists() for each in os.get_exec_path())

#: Between two tests are some that do something on asyncio only; every test notes that it ran.
SOME_DO = """
    import os, signal, sys, time

    def note(name):
        with open("ran", "a") as file:
            print(name, file=file)

    def test_a(eventlet_hub):
        note(f"a {{eventlet_hub}}")
    {}
    def test_c(eventlet_hub):
        note(f"c {{eventlet_hub}}")
"""
ONE_DOES = """
    def test_{name}(eventlet_hub):
        note(f"{name} {{eventlet_hub}}")
        if eventlet_hub == "asyncio":
            {deed}
"""


def ended(result: pytest.RunResult) -> list[str]:
    """Return tests and outcomes in the output of ``-v``, in order."""
    pattern = r"test_x\.py::(\S+) ([A-Z]+)(?: |$)"
    return [" ".join(m.groups()) for m in map(re.compile(pattern).match, result.outlines) if m]


def make(pytester: pytest.Pytester, *deeds: str) -> list[str]:
    """Write a module in which tests do this on asyncio; return their names."""
    named = {f"b{number or ''}": deed for number, deed in enumerate(deeds)}
    doing = [ONE_DOES.format(name=name, deed=deed) for name, deed in named.items()]
    pytester.makepyfile(test_x=SOME_DO.format("".join(doing)))
    return list(named)


def notes(pytester: pytest.Pytester) -> list[str]:
    return pytester.path.joinpath("ran").read_text().splitlines()


def processes_with(marker: str) -> list[int]:
    """Return the processes that have a word in their command line or environment."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            known = directory.joinpath("cmdline").read_bytes()
            known += directory.joinpath("environ").read_bytes()
        except OSError:
            continue
        if marker.encode() in known and int(directory.name) != os.getpid():
            found.append(int(directory.name))
    return found


def assert_rest_ran_once(
    pytester: pytest.Pytester, result: pytest.RunResult, names: list[str], end: str
) -> None:
    """Some tests ended so on asyncio, and all other tests ran once and passed."""
    every = ["a", *names, "c"]
    assert ended(result) == [
        *(f"test_{name}[epolls] PASSED" for name in every),
        "test_a[asyncio] PASSED",
        *(f"test_{name}[asyncio] {end.upper()}" for name in names),
        "test_c[asyncio] PASSED",
    ]
    assert notes(pytester) == [f"{name} {hub}" for hub in ("epolls", "asyncio") for name in every]
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=len(every) + 2, failed=len(names))
    result.stdout.fnmatch_lines(
        [
            "*eventlet hub asyncio, continued: 1 test*",
            f"{len(names)} tests differ between epolls, asyncio",
            f"  test_x.py::test_{names[0]} *epolls passed   asyncio {end}",
            *(f"{end.upper()} test_x.py::test_{name}[[]asyncio] - *" for name in names),
        ]
    )


# -- crashes


@pytest.mark.fault("segfault", "exit-in-test", "group-killed")
def test_tests_that_end_their_process_fail_alone(pytester: pytest.Pytester) -> None:
    ends = {
        "os.kill(os.getpid(), signal.SIGSEGV)": "killed by SIGSEGV",
        "os.kill(os.getpid(), signal.SIGKILL)": "killed by SIGKILL",
        "os.abort()": "killed by SIGABRT",
        "os._exit(3)": "ended with exit status 3",
        "os._exit(0)": "ended with exit status 0",
        "os._exit(4)": "ended with exit status 4",
        "os.killpg(0, signal.SIGKILL)": "killed by SIGKILL",
    }
    speaks = 'print("to stdout", flush=True); os.write(2, b"last words\\n")'
    names = make(pytester, *(f"{speaks}; {deed}" for deed in ends))
    result = run(pytester, BOTH, "-v")
    assert_rest_ran_once(pytester, result, names, "crashed")
    for name, says in zip(names, ends.values(), strict=True):
        shown = failure_of(f"test_{name}[asyncio]", result.outlines)
        captured = ["Captured stdout:", "  to stdout", "", "Captured stderr:", "  last words"]
        assert (shown[0], shown[-5:]) == (says, captured)
        if "SEGV" in says or "ABRT" in says:
            # The stack that faulthandler wrote names the test.
            stack = pytest.LineMatcher(shown)
            stack.fnmatch_lines(["Its stderr:", f'*File "*test_x.py", line * in test_{name}'])


@pytest.mark.fault("segfault")
def test_a_crash_deep_in_a_recursion_shows_the_innermost_calls(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import os, signal, threading, time

        def dive(depth):
            if depth:
                dive(depth - 1)
            else:
                os.write(2, b"said before")
                os.kill(os.getpid(), signal.SIGSEGV)

        def test_dive(eventlet_hub):
            threading.Thread(target=time.sleep, args=[30], daemon=True).start()
            dive(80)
        """
    )
    result = run(pytester, BOTH, "--capture=sys")
    result.stdout.fnmatch_lines(
        [
            "Its stderr:",
            "*said before*Fatal Python error: Segmentation fault",
            "  ",
            "  Current thread 0x* (most recent call first):",
            "    File *test_x.py*, line 8 in dive",
            *["    File *test_x.py*, line 5 in dive"] * 29,
            "    ... and * more",
        ],
        consecutive=True,
    )


@pytest.mark.fault("line-garbled", "line-replaced")
def test_tests_that_write_into_the_line_to_the_controller_or_replace_it_fail_alone(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_a(eventlet_hub):
            # The line has the highest number, out of the way of what tests close.
            if eventlet_hub == "asyncio":
                d = "/proc/self/fd/"
                sockets = [int(f) for f in os.listdir(d) if "socket:" in os.path.realpath(d + f)]
                os.write(max(sockets), b"no message")

        def test_b(eventlet_hub):
            for number in range(490, 530) if eventlet_hub == "epolls" else ():
                os.dup2(1, number)

        def test_c(): pass
        """
    )
    result = run(pytester, BOTH, "-v")
    result.assert_outcomes(passed=4, failed=2)
    assert {"test_a[asyncio] CRASHED", "test_b[epolls] CRASHED"} < {*ended(result)}
    result.stdout.re_match_lines_random(
        [
            r"ended because it had closed or replaced descriptor 5\d\d, the connection to the "
            r"controller",
            r"ended because what it sent cannot be read: \d+ bytes are announced.*",
        ]
    )


def test_what_the_process_said_last_stands_in_the_report_and_in_junitxml(
    pytester: pytest.Pytester,
) -> None:
    make(pytester, 'os.write(2, b"last words\\n"); os._exit(3)')
    result = run(pytester, BOTH, "--capture=sys", "--junitxml=out.xml", "-q", "--cprofile")
    result.stdout.fnmatch_lines(
        ["ended with exit status 3", "Its stderr:", "  last words", "*ended with exit status 3"]
    )
    result.stdout.re_match_lines(r"\s+artifacts: /\S+/test_x.py-test_b-asyncio-\w{8}$")
    root = ElementTree.parse(pytester.path / "out.xml").getroot()
    cases = {case.get("name"): case for case in root.iter("testcase")}
    assert len(cases) == len(list(root.iter("testcase"))) == 6
    failure = cases["test_b[asyncio]"].find("failure")
    assert failure is not None
    assert failure.get("message") == "ended with exit status 3"
    assert "last words" in (failure.text or "")
    assert next(root.iter("testsuite")).get("failures") == "1"


CRASHES_IN_FIXTURES = """
    import os
    import pytest

    @pytest.fixture
    def bad_start(eventlet_hub):
        if eventlet_hub == "asyncio": os._exit(3)

    @pytest.fixture
    def bad_end(eventlet_hub):
        yield
        if eventlet_hub == "asyncio": os._exit(3)

    def test_setup(bad_start): pass

    def test_teardown(bad_end): pass

    def test_last(eventlet_hub):
        if eventlet_hub == "asyncio": os._exit(3)
"""


@pytest.mark.fault("crash-in-fixture")
@pytest.mark.parametrize("more", [[], ["--eventlet-jobs=2"]])
def test_every_test_of_a_hub_may_crash_in_setup_call_or_teardown(
    pytester: pytest.Pytester, more: list[str]
) -> None:
    pytester.makepyfile(test_x=CRASHES_IN_FIXTURES)
    result = run(pytester, BOTH, "-v", *more)
    assert sorted(ended(result)) == sorted(
        [
            *(f"test_{name}[epolls] PASSED" for name in ("setup", "teardown", "last")),
            "test_setup[asyncio] CRASHED",
            # As with any error in a teardown, the test itself has passed.
            "test_teardown[asyncio] PASSED",
            "test_teardown[asyncio] CRASHED",
            "test_last[asyncio] CRASHED",
        ]
    )
    result.stdout.fnmatch_lines(
        [
            "3 tests differ between epolls, asyncio",
            "  test_x.py::test_setup *epolls passed   asyncio crashed",
            "    word for word the same for 2 other tests:",
            "      test_x.py::test_teardown",
            "      test_x.py::test_last",
        ]
    )
    result.stdout.no_fnmatch_line("*incomplete*")


@pytest.mark.fault("crash-collecting")
@pytest.mark.parametrize("where", ["test_y", "conftest"])
def test_a_crash_while_collecting_is_an_error_of_that_hub(
    pytester: pytest.Pytester, where: str
) -> None:
    crash = "import os\nif os.environ.get('EVENTLET_HUB') == 'asyncio': os._exit(4)"
    pytester.makepyfile(**{where: crash, "test_x": "def test_a(): pass"})
    result = run(pytester, BOTH, "-v")
    assert ended(result) == ["test_a[epolls] PASSED"]
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting eventlet hub asyncio*",
            "ended with exit status 4 while it collected",
            "the run under asyncio is incomplete (*) and not compared",
        ]
    )


@pytest.mark.fault("crash-at-end")
def test_a_crash_after_the_last_test_is_reported_and_fails_the_run(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import os

        def pytest_sessionfinish(session):
            if session.items and os.environ["EVENTLET_HUB"] == "asyncio":
                os._exit(3)
        """
    )
    pytester.makepyfile(test_x="def test_a(): pass")
    result = run(pytester, BOTH, "-v")
    assert ended(result) == ["test_a[epolls] PASSED", "test_a[asyncio] PASSED"]
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(
        ["*ERROR at end of eventlet hub asyncio*", "ended with exit status 3 outside of any test"]
    )


@pytest.mark.fault("crash-at-end")
def test_a_hub_whose_process_crashes_after_its_last_test_is_compared(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import atexit, os, signal

        def test_a(eventlet_hub):
            if eventlet_hub == "asyncio":
                atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
                raise ValueError("only here")
        """
    )
    result = run(pytester, BOTH)
    result.stdout.fnmatch_lines(
        [
            "killed by SIGSEGV outside of any test",
            "1 test differs between epolls, asyncio",
            "  test_x.py::test_a   epolls passed   asyncio failed",
            "    asyncio: ValueError: only here",
        ]
    )
    result.stdout.no_fnmatch_line("*incomplete*")


@pytest.mark.fault("crash-at-end")
def test_a_crash_at_exit_is_reported_too(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import atexit, os, signal

        def test_a(eventlet_hub):
            if eventlet_hub == "asyncio":
                atexit.register(os.kill, os.getpid(), signal.SIGSEGV)
        """
    )
    result = run(pytester, BOTH, "-v")
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["killed by SIGSEGV outside of any test"])


def test_a_crash_counts_as_a_failure_for_x(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="import os\ndef test_a(): os._exit(3)\ndef test_b(): pass")
    result = run(pytester, BOTH, "-v", "-x")
    assert ended(result) == ["test_a[epolls] CRASHED"]
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*stopping after 1 failures*"])
    lf = run(pytester, BOTH, "-v", "--lf")
    assert ended(lf) == ["test_a[epolls] CRASHED"]


@pytest.mark.fault("worker-crashed", "crash-recorded")
def test_a_worker_of_xdist_that_crashes_is_its_own_matter(pytester: pytest.Pytester) -> None:
    make(pytester, "os._exit(3)")
    result = run(pytester, BOTH, "-n2", "--cprofile")
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*worker 'gw*' crashed while running *test_b?asyncio?'*",
            "artifacts: */test_x.py-test_b-asyncio-*",
            "artifacts of 6 tests: *",
        ]
    )
    assert sorted(notes(pytester)) == sorted(
        f"{name} {hub}" for hub in ("epolls", "asyncio") for name in "abc"
    )
    (recorded,) = Path("eventlet-debug").glob("*test_b-asyncio-*/test.json")
    facts = json.loads(recorded.read_text())
    assert (facts["outcomes"], list(facts["phases"])) == ({"call": "crashed"}, ["setup", "call"])


@pytest.mark.fault("worker-crashed", "group-killed")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_test_whose_worker_has_died_is_over(pytester: pytest.Pytester, jobs: str) -> None:
    """What its process does later, it does in other tests."""
    pytester.makepyfile(
        test_x="""
        import os, signal

        def test_a(): os._exit(3)
        def test_b(): os.kill(os.getppid(), signal.SIGKILL)
        """
    )
    result = run(pytester, "--eventlet-hub=poll,epolls", "-n1", f"--eventlet-jobs={jobs}")
    # Whether test_b has begun is not known yet, where xdist dies at once.
    told = [line.partition(" - ")[0] for line in result.outlines if "test_a[" in line]
    assert sorted(line for line in told if line.startswith(("FAILED", "CRASHED"))) == [
        "FAILED test_x.py::test_a[epolls]",
        "FAILED test_x.py::test_a[poll]",
    ]


@pytest.mark.fault("crash-recorded")
def test_a_crash_leaves_the_recordings_of_an_earlier_run_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_a():
            if "DIES" in os.environ: os.abort()
        """
    )
    run(pytester, "--eventlet-hub=poll", "--cprofile")
    (recorded,) = Path("eventlet-debug").glob("test_x*/test.json")
    before = recorded.read_bytes()
    monkeypatch.setenv("DIES", "1")
    result = run(pytester, "--eventlet-hub=poll", TIMEOUT)
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*eventlet-debug/*")
    assert recorded.read_bytes() == before


# -- hangs

IGNORES_AND_FORKS = """
[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
            if os.fork() == 0:
                os.setsid()
                while True: signal.pause()
            while True: signal.pause()
""".strip()


@pytest.mark.fault("silent-test", "signals-ignored")
def test_tests_that_hang_are_killed_with_all_they_started_and_shown(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    marker = f"marker-{os.getpid()}-{pytester.path.name}"
    monkeypatch.setenv("MARKER", marker)
    does = {
        # A busy machine may notice a second late.
        "while True: signal.pause()": ("its process waits, *", "[34]"),
        # Where others leave it a fifth of a CPU or less, it is killed sooner.
        "while True: pass": ("its process burns CPU, *", "[1-4]"),
        IGNORES_AND_FORKS: ("2 processes wait, *", "[34]"),
    }
    names = make(pytester, *does)
    result = run(pytester, BOTH, "-v", TIMEOUT, "--junitxml=out.xml")
    assert_rest_ran_once(pytester, result, names, "hung")
    result.stdout.no_fnmatch_line('*File "*_pytest/*')
    assert processes_with(marker) == []
    root = ElementTree.parse(pytester.path / "out.xml").getroot()
    messages = [failure.get("message", "") for failure in root.iter("failure")]
    for name, (deed, (doing, seconds)) in zip(names, does.items(), strict=True):
        shown = pytest.LineMatcher(failure_of(f"test_{name}[asyncio]", result.outlines))
        shown.fnmatch_lines(
            [
                f"silent for {seconds} s, killed",
                "What it was doing:",
                f"  {doing}",
                "What is alive:",
                "    the test  current",
                f"      test_x.py:* in test_{name}",
            ]
        )
        if HAS_STRACE and "pause" in deed:
            shown.fnmatch_lines(["Its last system calls:", "*pause(*"])
        assert re.fullmatch(f"silent for {seconds} s, killed", messages.pop(0))
    assert not messages


@pytest.mark.fault("silent-starved")
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell")
def test_a_test_that_others_keep_from_the_cpu_does_not_hang(pytester: pytest.Pytester) -> None:
    cpu = max(os.sched_getaffinity(0))
    pytester.makepyfile(
        f"""
        import os, time

        def test_works_without_a_word():
            os.sched_setaffinity(0, {{{cpu}}})
            began, used = time.monotonic(), time.thread_time()
            while time.monotonic() - began < 3:
                pass
            assert time.thread_time() - used < 1.5  # it lacked the CPU
        """
    )
    with others_on(cpu):
        result = run(pytester, "--eventlet-hub=epolls", "--eventlet-timeout=2")
    result.assert_outcomes(passed=1)


@depends_on_speed
@pytest.mark.fault("silent-then-on")
@pytest.mark.parametrize("more", [[], ["--strace"]])
def test_a_test_that_goes_on_while_it_is_looked_at_lives_and_so_do_those_after_it(
    pytester: pytest.Pytester, more: list[str]
) -> None:
    pytester.makepyfile(
        test_x="""
        import ctypes

        def test_slow():
            assert ctypes.CDLL(None).usleep(3_600_000) == 0

        def test_next():
            assert ctypes.CDLL(None).usleep(1_000_000) == 0
        """
    )
    result = run(pytester, "-v", "--eventlet-timeout=3", *more)
    assert ended(result) == ["test_slow PASSED", "test_next PASSED"]
    result.stdout.fnmatch_lines_random(["*: test_x.py::test_slow went on after 3.[3-9] s"])
    result.stdout.no_fnmatch_line("*test_next went on*")


def test_a_storm_is_found_in_the_trace_of_a_test_that_hangs_in_it(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_spins():
            while True:
                try:
                    os.read(-1, 1)
                except OSError:
                    pass
                for _ in range(3000):  # so that all of its trace is read
                    pass
        """
    )
    result = run(pytester, "--strace", "--eventlet-timeout=2")
    result.stdout.fnmatch_lines(
        ["What its trace shows:", r"  storm: read(-1) = -1 EBADF x * strace.txt* line *"]
    )
    result.stdout.no_fnmatch_line("*(cut trace)*")


@pytest.mark.fault("traced-busy-loop")
def test_a_loop_that_is_traced_is_told_by_the_rate_of_its_calls(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import os, signal

        def test_spins():
            while True:
                os.getppid()
                for _ in range(10_000):  # a longer trace takes longer to complete
                    pass

        def test_waits():
            while True: signal.pause()
        """
    )
    result = run(pytester, "--strace", "--eventlet-timeout=3")
    result.stdout.re_match_lines(
        [
            r"  its process burns CPU, \d+% of one CPU, [1-9]\d\d+ system calls/s in its trace",
            r"  its process waits, \d% of one CPU, 0 system calls/s in its trace",
        ]
    )


@pytest.mark.fault("hang-recorded")
def test_the_recordings_of_a_test_that_hangs_are_completed_with_its_phases(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x="def test_a():\n    import signal\n    while True: signal.pause()")
    run(pytester, "--strace", "--eventlet-timeout=3")
    (path,) = pytester.path.glob("eventlet-debug/*/test.json")
    phases = json.loads(path.read_bytes())["phases"]
    (setup_began, setup_ended), (call_began, call_ended) = phases["setup"], phases["call"]
    assert setup_began < setup_ended <= call_began < call_ended
    assert 3e9 < call_ended - call_began < 60e9
    shown = pytester.run(sys.executable, "-m", "pytest_eventlet_debug", "timeline", path.parent)
    shown.stdout.re_match_lines([r".*\bsetup\b", r".*\bcall\b"])


def test_a_test_that_crashes_behind_a_subtest_does_so_in_its_call(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_x="""
        import os, unittest

        class Test(unittest.TestCase):
            def test_a(self):
                with self.subTest(number=1): self.fail("one")
                os._exit(3)
        """
    )
    run(pytester, "--cprofile", "--eventlet-timeout=60")
    (path,) = pytester.path.glob("eventlet-debug/*/test.json")
    record = json.loads(path.read_bytes())
    assert (record["outcomes"], list(record["phases"])) == ({"call": "crashed"}, ["setup", "call"])


HANG = "import signal\nwhile True: signal.pause()"


@pytest.mark.fault("hang-collecting")
def test_a_hang_while_collecting_ends_the_run_of_that_hub(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_y="""
        import os, signal
        while os.environ["EVENTLET_HUB"] == "asyncio":
            signal.pause()
        """,
        test_x="def test_a(): pass",
    )
    result = run(pytester, BOTH, "-v", TIMEOUT)
    assert ended(result) == ["test_a[epolls] PASSED"]
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting eventlet hub asyncio*",
            "silent for ? s, killed while it collected",
            "*test_y.py:3 in <module>",
            "the run under asyncio is incomplete (*) and not compared",
        ]
    )


@pytest.mark.fault("hang-at-end")
def test_a_hang_after_the_last_test_is_reported(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import atexit, threading
        import pytest

        def hang():
            threading.Event().wait()

        @pytest.fixture(scope="session")
        def session(request, eventlet_hub):
            if eventlet_hub == "asyncio":
                request.addfinalizer(hang)  # a session's teardown belongs to the last test
            elif eventlet_hub == "poll":
                atexit.register(hang)
            elif eventlet_hub == "selects":
                threading.Thread(target=hang).start()

        def test_a(session): pass
        """
    )
    hubs = ["epolls", "asyncio", "poll", "selects"]
    result = run(pytester, f"--eventlet-hub={','.join(hubs)}", "-v", TIMEOUT, "--eventlet-jobs=4")
    assert {f"test_a[{hub}] PASSED" for hub in hubs} <= {*ended(result)}
    assert result.ret != pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["silent for ? s, killed*", "*in hang"] * 3)
    result.stdout.no_fnmatch_line("*ERROR collecting*")
    result.stdout.no_fnmatch_line("*errors during collection*")


def test_one_hub_or_none_with_a_timeout_gets_a_process_to_kill(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import signal

        def test_a(): pass

        def test_b():
            while True: signal.pause()

        def test_c(): pass
        """
    )
    for option, suffix in (["--eventlet-hub=poll", "[poll]"], ["-q", ""]):
        result = run(pytester, option, "-v", "-v", TIMEOUT)
        assert ended(result) == [
            f"test_a{suffix} PASSED",
            f"test_b{suffix} HUNG",
            f"test_c{suffix} PASSED",
        ]
        result.stdout.no_fnmatch_line("*differ*")


@pytest.mark.fault("worker-hangs")
def test_workers_of_xdist_that_hang_are_ended_and_the_rest_runs(pytester: pytest.Pytester) -> None:
    make(pytester, "while True: signal.pause()")
    # xdist itself is silent for long at its start and end.
    result = run(pytester, BOTH, "-n2", "-v", "--eventlet-timeout=15")
    outcomes = ended(result)
    assert "test_b[asyncio] HUNG" in outcomes
    result.stdout.fnmatch_lines(
        [
            "What is alive:",
            "  gw* is in *test_x.py::test_b?asyncio? (call)",
            "    the test  current",
            "      test_x.py:* in test_b",
        ]
    )
    result.stdout.no_fnmatch_line("Python did not answer*")
    assert sorted(notes(pytester)) == sorted(
        f"{name} {hub}" for hub in ("epolls", "asyncio") for name in "abc"
    )
    result.assert_outcomes(passed=5, failed=1)


def test_hubs_at_once_hang_and_crash_apart(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import os, signal

        def test_a(eventlet_hub):
            while eventlet_hub == "asyncio": signal.pause()

        def test_b(eventlet_hub):
            if eventlet_hub == "epolls": os._exit(3)

        def test_c(): pass
        """
    )
    result = run(pytester, BOTH, "-v", TIMEOUT, "--eventlet-jobs=2")
    assert sorted(ended(result)) == [
        "test_a[asyncio] HUNG",
        "test_a[epolls] PASSED",
        "test_b[asyncio] PASSED",
        "test_b[epolls] CRASHED",
        "test_c[asyncio] PASSED",
        "test_c[epolls] PASSED",
    ]


def test_a_long_test_that_is_not_silent_is_left_alone(pytester: pytest.Pytester) -> None:
    """The time counts from the last thing heard, not from the start of the hub."""
    pytester.makepyfile(
        test_x="""
        import signal, time
        import pytest

        @pytest.mark.parametrize("n", range(4))
        def test_p(n):
            signal.setitimer(signal.ITIMER_REAL, 1)
            signal.sigwait([signal.SIGALRM])
        """,
        conftest="import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])",
    )
    result = run(pytester, BOTH, TIMEOUT)
    result.assert_outcomes(passed=8)
    result.stdout.no_fnmatch_line("*went on after*")  # nor was it looked at


NOTICE_AFTER_A_SECOND = """
from pytest_eventlet_debug.children import hub_run as run
run.NOTICE_SECONDS = 1.0
"""


@pytest.mark.fault("hang-untimed")
def test_a_silent_test_is_mentioned_without_a_timeout_and_not_killed(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        notice=NOTICE_AFTER_A_SECOND,
        test_x="""
        import os

        def test_a(eventlet_hub):
            if eventlet_hub == "asyncio":
                os.read(os.open("go-on", os.O_RDONLY), 1)
        """,
    )
    os.mkfifo(pytester.path / "go-on")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", BOTH, "-p", "notice", "-p", "no:cacheprovider"],
        cwd=pytester.path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("asyncio: silent for") and "test_a" in line:
            break
    else:
        pytest.fail("the notice never came")
    assert re.match(
        r"asyncio: silent for \d s in test_x.py::test_a\[asyncio\]; its process waits, ", line
    )
    pytester.path.joinpath("go-on").write_text("!")
    assert "2 passed" in process.communicate(timeout=60)[0]
    assert process.returncode == 0


def test_a_debugger_that_is_open_does_not_count_as_silence(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pexpect")
    pytester.makepyfile(test_x="def test_a(): assert 0\ndef test_b(): pass")
    child = pytester.spawn_pytest(
        f"{BOTH} -p no:cacheprovider --pdb --eventlet-timeout=2 -k 'test_a and epolls'", 60.0
    )
    child.expect(r"\(Pdb\)")
    # Longer than the timeout: the prompt is still there, and nothing was killed.
    child.sendline("import threading; threading.Event().wait(4); print('still', 'here')")
    child.expect("still here")
    child.sendline("c")
    rest = child.read().decode()
    child.wait()
    assert "1 failed" in rest
    assert "killed" not in rest
