"""pytest's own options, and other plugins', with several hubs."""

from __future__ import annotations

import functools
import os
from pathlib import Path
import re
import select
import signal
import subprocess
import sys
from xml.etree import ElementTree

import pytest

BOTH = "--eventlet-hub=epolls,asyncio"

#: Fails on asyncio only, between two that pass.
DIFFERS = """
    def test_a(): pass

    def test_b(eventlet_hub):
        assert eventlet_hub != "asyncio" {mended}

    def test_c(): pass
"""

#: Fails everywhere, three times.
FAILS = """
    def test_a(): assert 0

    def test_b(): assert 0

    def test_c(): assert 0
"""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTLET_HUB", raising=False)
    # Files change faster here than the time stamp that bytecode is checked by.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


def run(pytester: pytest.Pytester, *arguments: str | Path) -> pytest.RunResult:
    result = pytester.runpytest(*arguments)
    assert_no_traceback_of_ours(result.stdout.str() + result.stderr.str())
    return result


def assert_no_traceback_of_ours(text: str) -> None:
    assert not re.search(r'pytest_eventlet_debug/\S+(", line |:\d+: )', text)


def ran(result: pytest.RunResult) -> list[str]:
    """Return the tests in the output of ``-v``, in order, without their file's name."""
    pattern = r"\S+\.py::(\S+) (?:PASSED|FAILED|SKIPPED|ERROR|RERUN|CRASHED)"
    return [match[1] for match in map(re.compile(pattern).match, result.outlines) if match]


def on_both(*names: str) -> list[str]:
    return [f"{name}[{hub}]" for hub in ("epolls", "asyncio") for name in names]


def make_differing(pytester: pytest.Pytester, *, mended: bool = False) -> None:
    pytester.makepyfile(test_x=DIFFERS.format(mended="or True" if mended else ""))


# -- selection


def test_k_and_m_choose_by_hub_and_by_mark(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        def test_a(): pass

        @pytest.mark.skipif("True")
        def test_b(): pass
        """
    )
    result = run(pytester, BOTH, "-v", "-k", "asyncio")
    assert ran(result) == ["test_a[asyncio]", "test_b[asyncio]"]
    result.assert_outcomes(passed=1, skipped=1, deselected=2)
    result = run(pytester, BOTH, "-v", "-m", "not skipif", "-k", "not epolls")
    assert ran(result) == ["test_a[asyncio]"]
    result = run(pytester, BOTH, "-k", "selects")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.assert_outcomes(deselected=4)


def test_deselect_takes_ids_with_a_hub_and_without(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.parametrize("n", [1, 2])
        def test_p(n): pass

        def test_a(): pass
        """
    )
    result = run(
        pytester,
        BOTH,
        "-v",
        "--deselect=test_x.py::test_a[asyncio]",
        "--deselect=test_x.py::test_p[1]",
    )
    assert ran(result) == ["test_p[2-epolls]", "test_a[epolls]", "test_p[2-asyncio]"]
    result.assert_outcomes(passed=3, deselected=3)
    result = run(pytester, BOTH, "-v", "--deselect=test_x.py::test_p")
    assert ran(result) == on_both("test_a")


def test_lf_repeats_what_failed_on_the_hub_where_it_failed(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    pytester.makepyfile(test_other="def test_o(): pass")
    run(pytester, BOTH).assert_outcomes(passed=7, failed=1)
    again = run(pytester, BOTH, "-v", "--lf")
    assert ran(again) == ["test_b[asyncio]"]
    again.stdout.no_fnmatch_line("*only, not on*")
    again.stdout.fnmatch_lines(["run-last-failure: rerun previous 1 failure*"])
    make_differing(pytester, mended=True)
    mended = run(pytester, BOTH, "-v", "--lf")
    assert ran(mended) == ["test_b[asyncio]"]
    assert mended.ret == pytest.ExitCode.OK
    assert len(ran(run(pytester, BOTH, "-v", "--lf"))) == 8
    none = run(pytester, BOTH, "--lf", "--lfnf=none")
    assert none.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_ff_and_nf_sort_the_tests_within_each_hub(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    run(pytester, BOTH)
    first = run(pytester, BOTH, "-v", "--ff")
    assert ran(first) == [
        *("test_a[epolls]", "test_b[epolls]", "test_c[epolls]"),
        *("test_b[asyncio]", "test_a[asyncio]", "test_c[asyncio]"),
    ]
    pytester.makepyfile(test_z="def test_new(): pass")
    new = run(pytester, BOTH, "-v", "--nf")
    assert ran(new) == on_both("test_new", "test_a", "test_b", "test_c")


def test_stepwise_goes_on_from_the_test_and_hub_where_it_stopped(
    pytester: pytest.Pytester,
) -> None:
    make_differing(pytester)
    stopped = run(pytester, BOTH, "-v", "--sw")
    assert ran(stopped) == [*on_both("test_a", "test_b", "test_c")[:5]]
    assert stopped.ret == pytest.ExitCode.INTERRUPTED
    stopped.stdout.fnmatch_lines(["*Interrupted: Test failed, continuing from this test*"])
    assert ran(run(pytester, BOTH, "-v", "--sw")) == ["test_b[asyncio]"]
    skipping = run(pytester, BOTH, "-v", "--sw-skip")
    assert ran(skipping) == ["test_b[asyncio]", "test_c[asyncio]"]


def test_stepwise_begins_anew_when_there_are_more_tests_than_before(
    pytester: pytest.Pytester,
) -> None:
    make_differing(pytester)
    run(pytester, BOTH, "--sw")
    pytester.makepyfile(test_a="def test_new(): pass")
    anew = run(pytester, BOTH, "-v", "--sw")
    assert ran(anew) == [
        *("test_new[epolls]", "test_a[epolls]", "test_b[epolls]", "test_c[epolls]"),
        *("test_new[asyncio]", "test_a[asyncio]", "test_b[asyncio]"),
    ]
    anew.stdout.fnmatch_lines(["stepwise: test count changed, not skipping (now 4 tests*"])


def test_stepwise_skip_ignores_one_failure_of_all_hubs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_a(): assert 0\ndef test_b(): pass")
    result = run(pytester, BOTH, "-v", "--sw-skip")
    assert ran(result) == ["test_a[epolls]", "test_b[epolls]", "test_a[asyncio]"]


@pytest.mark.parametrize(
    ("option", "tests"),
    [
        ("-x", ["test_a[epolls]"]),
        ("--maxfail=2", ["test_a[epolls]", "test_b[epolls]"]),
        ("--maxfail=4", [*on_both("test_a", "test_b", "test_c")[:4]]),
    ],
)
def test_failures_of_all_hubs_count_for_maxfail(
    pytester: pytest.Pytester, option: str, tests: list[str]
) -> None:
    pytester.makepyfile(test_x=FAILS)
    result = run(pytester, BOTH, "-v", option)
    assert ran(result) == tests
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*stopping after {len(tests)} failures*"])
    result.stdout.fnmatch_lines(["the run under asyncio is incomplete*not compared"])
    result.stdout.no_fnmatch_line("*differ*")


def test_maxfail_with_hubs_at_once_ends_all_of_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.parametrize("n", range(40))
        def test_p(n): assert n % 4
        """
    )
    result = run(pytester, BOTH, "-v", "--maxfail=2", "--eventlet-jobs=2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    # A test that the other hub was in may have failed as well.
    result.stdout.re_match_lines([".*stopping after [23] failures"])
    assert 2 <= len(ran(result)) < 40


# -- what is shown


def test_collect_only_lists_the_tests_of_each_hub(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    tree = run(pytester, BOTH, "--collect-only")
    assert tree.ret == pytest.ExitCode.OK
    tree.stdout.fnmatch_lines(
        [
            "*eventlet hub epolls: 3 tests*",
            "*<Module test_x.py>",
            "*<Function test_b[[]epolls]>",
            "*eventlet hub asyncio: 3 tests*",
            "*<Function test_b[[]asyncio]>",
            "*6 tests collected*",
        ]
    )
    tree.stdout.no_fnmatch_line("*incomplete*")
    quiet = run(pytester, BOTH, "--collect-only", "-q", "-k", "test_b")
    ids = [line for line in quiet.outlines if line.startswith("test_x.py")]
    assert ids == [f"test_x.py::{name}" for name in on_both("test_b")]
    quiet.stdout.fnmatch_lines(["2/6 tests collected (4 deselected)*"])
    counts = run(pytester, BOTH, "--collect-only", "-qq")
    assert counts.outlines.count("test_x.py: 3") == 2


def test_the_lines_of_a_run_come_as_verbose_as_asked_for(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    quiet = run(pytester, BOTH, "-q")
    assert quiet.outlines[0].startswith("....F.")
    quiet.assert_outcomes(passed=5, failed=1)
    usual = run(pytester, BOTH, "-rA", "--durations=3", "-vv")
    assert ran(usual) == on_both("test_a", "test_b", "test_c")
    usual.stdout.fnmatch_lines(
        [
            "eventlet *, hubs: epolls, asyncio",
            "*slowest 3 durations*",
            "*s call*test_x.py::test_*[[]*]",
            "*short test summary info*",
            "PASSED test_x.py::test_a[[]epolls]",
            "PASSED test_x.py::test_c[[]asyncio]",
            "FAILED test_x.py::test_b[[]asyncio]*",
        ]
    )
    progress = [int(n) for n in re.findall(r"\[ *(\d+)%\]", usual.stdout.str())]
    assert progress == sorted(progress)
    assert progress[-1] == 100


def test_junitxml_is_one_file_with_unique_names_for_all_hubs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import unittest
        import pytest

        class TestUnit(unittest.TestCase):
            def test_method(self): pass

        def test_b(eventlet_hub, record_property):
            record_property("hub", eventlet_hub)
            assert eventlet_hub != "asyncio"

        @pytest.mark.eventlet_hub("asyncio")
        def test_skipped(): pass

        @pytest.fixture
        def broken(): raise ValueError

        def test_error(broken): pass
        """
    )
    result = run(pytester, BOTH, "--junitxml=out.xml", "--eventlet-jobs=2")
    result.assert_outcomes(passed=4, failed=1, skipped=1, errors=2)
    root = ElementTree.parse(pytester.path / "out.xml").getroot()
    (suite,) = root.iter("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "8",
        "failures": "1",
        "errors": "2",
        "skipped": "1",
    }
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(names) == len(set(names)) == 8
    assert ("test_x.TestUnit", "test_method[asyncio]") in names
    hubs = {
        case.get("name"): [p.get("value") for p in case.iter("property")]
        for case in root.iter("testcase")
    }
    assert hubs["test_b[epolls]"] == ["epolls"]
    assert hubs["test_b[asyncio]"] == ["asyncio"]


def test_warnings_are_summed_up_over_all_hubs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import warnings

        class Ours(UserWarning): pass

        def test_w(): warnings.warn(Ours("have a look"))
        """
    )
    result = run(pytester, BOTH)
    result.assert_outcomes(passed=2, warnings=2)
    result.stdout.fnmatch_lines(
        [
            "*warnings summary*",
            "test_x.py::test_w[[]epolls]",
            "test_x.py::test_w[[]asyncio]",
            "*test_x.py:5: Ours: have a look",
        ]
    )
    run(pytester, BOTH, "-W", "ignore:have a look").assert_outcomes(passed=2, warnings=0)
    for option in (["-W", "error"], ["-o", "filterwarnings=error"]):
        failed = run(pytester, BOTH, *option)
        failed.assert_outcomes(failed=2)
        assert failed.ret == pytest.ExitCode.TESTS_FAILED
        failed.stdout.no_fnmatch_line("*ended with exit status*")


# -- exit codes


def test_an_error_during_collection_interrupts_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_broken="import nowhere_at_all", test_good="def test_x(): pass")
    result = run(pytester, BOTH)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting test_broken.py*",
            "*nowhere_at_all*",
            "the run under epolls is incomplete (errors during collection) and not compared",
            "*Interrupted: 2 errors during collection*",
        ]
    )
    result.assert_outcomes(errors=2)
    going_on = run(pytester, BOTH, "--continue-on-collection-errors")
    going_on.assert_outcomes(errors=2, passed=2)
    assert going_on.ret == pytest.ExitCode.TESTS_FAILED
    pytester.makepyfile(test_broken="def test_mended(): pass")
    run(pytester, BOTH, "--lf").assert_outcomes(passed=2)


def test_a_hook_of_the_conftest_that_raises_is_an_internal_error(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        def pytest_runtest_protocol(item):
            if "test_c[asyncio]" in item.nodeid:
                raise LookupError("in a hook")
        """
    )
    make_differing(pytester)
    result = run(pytester, BOTH)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["INTERNALERROR>*LookupError: in a hook"])


def test_what_cannot_be_found_is_a_usage_error(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    for wrong in ("nowhere.py", "test_x.py::test_nothing"):
        result = run(pytester, BOTH, wrong)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: *not found:*{wrong}"])
        result.stdout.no_fnmatch_line("*incomplete*")
    result = run(pytester, BOTH, "--no-such-option")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unrecognized arguments: --no-such-option"])


def test_no_tests_at_all_have_their_own_exit_code(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="")
    assert run(pytester, BOTH).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_pytest_exit_in_a_test_ends_the_run_with_its_code(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        def test_a(): pass
        def test_b(): pytest.exit("enough", returncode=7)
        def test_c(): pass
        """
    )
    result = run(pytester, BOTH, "-v")
    assert result.ret == 7
    assert ran(result) == ["test_a[epolls]"]
    result.stdout.fnmatch_lines(["*Exit: enough*"])
    pytester.makeconftest(
        """
        import pytest

        def pytest_runtest_setup(item):
            if item.name == "test_a[asyncio]":
                item.session.shouldstop = "the conftest says so"
        """
    )
    pytester.makepyfile(test_x="def test_a(): pass\ndef test_b(): pass")
    result = run(pytester, BOTH, "-v")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert ran(result) == ["test_a[epolls]", "test_b[epolls]", "test_a[asyncio]"]
    result.stdout.fnmatch_lines(["*Interrupted: the conftest says so*"])


def test_a_test_that_raises_keyboardinterrupt_interrupts_the_run_where_it_stands(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x="def test_a():\n    raise KeyboardInterrupt")
    result = run(pytester, BOTH)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*! KeyboardInterrupt !*", "*test_x.py:2: KeyboardInterrupt"])


# -- signals

INTERRUPTED = """
    import os, signal, subprocess, sys
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


@pytest.mark.parametrize(
    "arguments", [[BOTH], [BOTH, "--eventlet-jobs=2", "-k", "epolls"], ["--eventlet-timeout=60"]]
)
def test_ctrl_c_tears_the_running_test_down_and_reports(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    waiting = Waiting(pytester, *arguments)
    os.killpg(waiting.process.pid, signal.SIGINT)
    text = waiting.end()
    assert waiting.process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert pytester.path.joinpath("torn-down").exists()
    assert "! KeyboardInterrupt !" in text
    assert re.search(r"test_x.py:\d+: KeyboardInterrupt", text)
    assert "1 passed" in text
    if arguments == [BOTH]:
        assert "the run under epolls is incomplete" in text


def test_a_second_ctrl_c_ends_tests_that_ignore_the_first(pytester: pytest.Pytester) -> None:
    ignore = "[signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)]"
    waiting = Waiting(pytester, BOTH, before=ignore)
    os.killpg(waiting.process.pid, signal.SIGINT)
    assert waiting.process.stdout is not None
    while not waiting.process.stdout.readline().startswith(b"Ctrl-C: "):
        pass
    os.killpg(waiting.process.pid, signal.SIGINT)
    text = waiting.end()
    assert waiting.process.returncode == pytest.ExitCode.INTERRUPTED, text
    assert not pytester.path.joinpath("torn-down").exists()
    assert "! KeyboardInterrupt !" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_no_process_is_left_when_the_run_is_told_to_end(
    pytester: pytest.Pytester, number: signal.Signals
) -> None:
    waiting = Waiting(pytester, BOTH)
    waiting.process.send_signal(number)
    waiting.end()
    assert waiting.process.returncode == -number


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


# -- other plugins switched off, and a user's conftest


@pytest.mark.parametrize(
    "options",
    [
        ["-p", "no:cacheprovider", "-p", "no:stepwise"],
        ["-p", "no:junitxml", "-p", "no:warnings"],
        ["-p", "no:logging", "-p", "no:faulthandler", "-p", "no:unraisableexception"],
        ["-p", "no:xdist", "-p", "no:cov", "-p", "no:html", "-p", "no:rerunfailures"],
        ["--capture=sys"],
        ["--capture=tee-sys"],
        ["--capture=no"],
    ],
)
def test_a_run_without_this_or_that_plugin_has_the_same_outcomes(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    make_differing(pytester)
    result = run(pytester, BOTH, *options)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["1 test differs between epolls, asyncio"])


def test_without_a_terminal_nothing_is_printed(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    result = run(pytester, BOTH, "-p", "no:terminal", "--junitxml=out.xml")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert result.stdout.str().strip() == ""
    root = ElementTree.parse(pytester.path / "out.xml").getroot()
    assert len(list(root.iter("testcase"))) == 6


def test_options_and_hooks_of_a_conftest_see_one_run(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os
        import pytest

        SEEN = []

        def pytest_addoption(parser):
            parser.addoption("--colour")

        @pytest.fixture
        def colour(request):
            return request.config.getoption("--colour")

        def pytest_report_header(config):
            return "colour: " + config.getoption("--colour")

        def pytest_report_collectionfinish(items):
            return f"{len(items)} items to paint"

        def pytest_runtest_logreport(report):
            SEEN.append((report.when, report.nodeid))

        def pytest_report_teststatus(report):
            if report.when == "call" and report.passed:
                return "painted", "P", "PAINTED"

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_makereport(item):
            report = yield
            report.brush = item.name[::-1]
            report.unsendable = object()
            return report

        def pytest_terminal_summary(terminalreporter, exitstatus):
            painted = terminalreporter.getreports("painted")
            terminalreporter.line(f"brushes: {[report.brush for report in painted]}")
            terminalreporter.line(f"calls seen: {sum(when == 'call' for when, _ in SEEN)}")

        def pytest_sessionfinish(session, exitstatus):
            with open("finished", "a") as file:
                print(session.testscollected, int(exitstatus), session.testsfailed, file=file)
        """
    )
    pytester.makepyfile(
        test_x="""
        def test_a(colour): assert colour == "red"
        def test_b(colour, eventlet_hub): assert eventlet_hub == "epolls"
        """
    )
    result = run(pytester, BOTH, "-v", "--colour=red")
    result.stdout.fnmatch_lines(
        [
            "colour: red",
            "*eventlet hub epolls: 2 tests*",
            "2 items to paint",
            "test_x.py::test_a[[]epolls] PAINTED*",
            "test_x.py::test_b[[]asyncio] FAILED*",
            "brushes: *'[]]sllope[[]a_tset', *'[]]oicnysa[[]a_tset'[]]",
            "calls seen: 4",
            "*1 failed, 3 painted*",
        ]
    )
    finished = pytester.path.joinpath("finished").read_text().split("\n")
    # As under pytest-xdist, what frames a session runs in each process; the run's comes last.
    assert finished[-2] == "4 1 1"
    assert len(finished) == 4


# -- the real terminal

INTERACTIVE = """
    def test_a(eventlet_hub):
        name = "value of " + eventlet_hub
        {statement}

    def test_b(): pass
"""


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        ("assert 0", "--pdb"),
        ("assert 0", "--pdb -n0"),
        ("assert 0", "--trace"),
        ("breakpoint()", ""),
        ("breakpoint()", "--eventlet-jobs=2"),
    ],
)
def test_a_debugger_opens_on_each_hub_in_turn(
    pytester: pytest.Pytester, statement: str, arguments: str
) -> None:
    pytest.importorskip("pexpect")
    pytester.makepyfile(test_x=INTERACTIVE.format(statement=statement))
    only = "-k test_a" if "--trace" in arguments else ""
    child = pytester.spawn_pytest(f"{BOTH} -p no:cacheprovider {arguments} {only}", 60.0)
    stopped = []
    for _ in range(2):
        child.expect(r"\(Pdb\)")
        if "--trace" in arguments:
            child.sendline("n")
            child.expect(r"\(Pdb\)")
            child.sendline("n")
            child.expect(r"\(Pdb\)")
        child.sendline("p name")
        child.expect("'value of (epolls|asyncio)'")
        stopped.append(child.match[1].decode())
        child.expect(r"\(Pdb\)")
        child.sendline("c")
    rest = child.read().decode()
    child.wait()
    assert_no_traceback_of_ours(rest)
    assert sorted(stopped) == ["asyncio", "epolls"]
    failed = "passed" if statement == "breakpoint()" else "2 failed"
    assert failed in rest
    assert child.exitstatus == (0 if statement == "breakpoint()" else 1)


def test_leaving_the_debugger_by_quit_ends_the_run(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pexpect")
    pytester.makepyfile(test_x=INTERACTIVE.format(statement="assert 0"))
    child = pytester.spawn_pytest(f"{BOTH} -p no:cacheprovider --pdb", 60.0)
    child.expect(r"\(Pdb\)")
    child.sendline("q")
    rest = child.read().decode()
    child.wait()
    assert "asyncio]" not in rest
    assert "Exit: Quitting debugger" in rest
    assert child.exitstatus == pytest.ExitCode.INTERRUPTED


def test_s_gives_the_tests_the_terminal_and_a_lonely_stdin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import sys

        def test_a(eventlet_hub):
            print("printed under", eventlet_hub)
            print("and to stderr", file=sys.stderr)
        """
    )
    result = run(pytester, BOTH, "-s", "--eventlet-jobs=2")
    result.stdout.fnmatch_lines(
        ["*printed under epolls", "*eventlet hub asyncio*", "*printed under asyncio"]
    )
    assert result.stderr.str().count("and to stderr") == 2
    result = run(pytester, BOTH, "-rP")
    result.stdout.fnmatch_lines(["*Captured stdout call*", "printed under asyncio"])


# -- other plugins at work


@pytest.mark.parametrize("workers", [[], ["-n2"]])
def test_coverage_is_one_report_over_all_hubs(
    pytester: pytest.Pytester, workers: list[str]
) -> None:
    pytester.makepyfile(
        covered="""
        def chosen(hub):
            if hub == "asyncio":
                return "only here"
            return "elsewhere"

        def never():
            return 1
        """,
        test_x="""
        import covered

        def test_a(eventlet_hub): covered.chosen(eventlet_hub)
        """,
    )
    result = run(pytester, BOTH, "--cov=covered", "--cov-report=term-missing", *workers)
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["covered.py*6*1*83%*7"])
    assert sum(line.startswith("TOTAL") for line in result.outlines) == 1
    assert list(pytester.path.glob(".coverage*")) == [pytester.path / ".coverage"]
    low = run(pytester, BOTH, "--cov=covered", "--cov-fail-under=90")
    assert low.ret == pytest.ExitCode.TESTS_FAILED
    assert "83" in low.stdout.str()


def test_xdist_runs_the_tests_of_each_hub_in_workers(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import os
        import pytest

        @pytest.mark.parametrize("n", range(6))
        def test_p(n, eventlet_hub, worker_id):
            import eventlet.hubs
            assert type(eventlet.hubs.get_hub()).__module__ == f"eventlet.hubs.{eventlet_hub}"
            assert worker_id.startswith("gw")
            assert (n, eventlet_hub) != (3, "asyncio")
        """
    )
    result = run(pytester, BOTH, "-n2", "-v")
    result.assert_outcomes(passed=11, failed=1)
    hubs = ("epolls", "asyncio")
    assert sorted(ran(result)) == sorted(f"test_p[{n}-{hub}]" for n in range(6) for hub in hubs)
    result.stdout.fnmatch_lines(
        [
            "*eventlet hub epolls: 6 tests*",
            "1 test differs between epolls, asyncio",
            "*test_p[[]3]   epolls passed   asyncio failed",
        ]
    )
    again = run(pytester, BOTH, "-n2", "-v", "--lf")
    assert ran(again) == ["test_p[3-asyncio]"]
    again.stdout.no_fnmatch_line("*differ* between*")


def test_reruns_happen_within_the_hub_and_the_last_one_counts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import os

        def test_flaky(eventlet_hub):
            if eventlet_hub == "asyncio" and not os.path.exists("once"):
                open("once", "w")
                assert False
        """
    )
    result = run(pytester, BOTH, "-v", "--reruns=1")
    assert ran(result) == ["test_flaky[epolls]", "test_flaky[asyncio]", "test_flaky[asyncio]"]
    result.stdout.fnmatch_lines(["no tests differ between epolls, asyncio", "*2 passed, 1 rerun*"])


def test_pytest_timeout_fails_the_test_or_ends_the_process(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import signal

        def test_slow(eventlet_hub):
            while eventlet_hub == "asyncio":
                signal.pause()

        def test_after(): pass
        """
    )
    result = run(pytester, BOTH, "-v", "--timeout=1", "--timeout-method=signal")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(["E*Timeout*"])
    # This method ends the process, and with it a plain run.
    result = pytester.runpytest(BOTH, "-v", "--timeout=1", "--timeout-method=thread")
    result.assert_outcomes(passed=3, failed=1)
    result.stdout.fnmatch_lines(
        [
            "  test_x.py::test_slow   epolls passed   asyncio crashed",
            "CRASHED test_x.py::test_slow[[]asyncio]*",
        ]
    )


def test_html_is_one_file_over_all_hubs(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:asyncio")
    make_differing(pytester)
    run(pytester, BOTH, "--html=out.html", "--self-contained-html")
    text = pytester.path.joinpath("out.html").read_text()
    for name in on_both("test_a", "test_b", "test_c"):
        assert f"test_x.py::{name}" in text
    assert "5 Passed" in text
    assert "1 Failed" in text


# -- where the configuration comes from


def test_options_may_come_from_the_environment_and_the_ini_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_differing(pytester)
    monkeypatch.setenv("PYTEST_ADDOPTS", f"{BOTH} -k test_b")
    run(pytester).assert_outcomes(passed=1, failed=1, deselected=4)
    monkeypatch.delenv("PYTEST_ADDOPTS")
    pytester.makeini(f"[pytest]\naddopts = {BOTH} --maxfail=1")
    run(pytester).assert_outcomes(passed=4, failed=1)
    other = pytester.makefile(".ini", other="[pytest]\neventlet_hub = poll,selects\n")
    result = run(pytester, "-c", other, "-v", "test_x.py::test_a")
    assert ran(result) == ["test_a[poll]", "test_a[selects]"]
    result = run(pytester, "-o", "addopts=", "-o", "eventlet_hub=selects, poll", "-v", "-k", "_a")
    assert ran(result) == ["test_a[selects]", "test_a[poll]"]


def test_it_runs_from_a_subdirectory_and_with_a_root_elsewhere(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    pytester.mkpydir("sub")
    pytester.path.joinpath("sub", "test_x.py").write_text(
        "import os\n"
        "def test_a(tmp_path):\n"
        "    assert os.path.basename(os.getcwd()) == 'sub'\n"
        "    assert tmp_path.exists()\n"
    )
    monkeypatch.chdir(pytester.path / "sub")
    result = run(pytester, BOTH, "-v", "--import-mode=importlib")
    assert result.parseoutcomes() == {"passed": 2}
    result.stdout.fnmatch_lines(["test_x.py::test_a[[]epolls] PASSED*"])
    result = run(pytester, BOTH, "-v", "--rootdir=.", "test_x.py::test_a[asyncio]")
    assert ran(result) == ["test_a[asyncio]"]
    result = run(pytester, BOTH, "-v", "../sub/test_x.py::test_a")
    assert ran(result) == on_both("test_a")


def test_basetemp_is_kept_with_a_directory_for_each_hub(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_a(tmp_path): (tmp_path / 'left').touch()")
    base = pytester.path / "base"
    # pytester adds a --basetemp of its own, at the end.
    result = pytester.run(sys.executable, "-m", "pytest", BOTH, f"--basetemp={base}", "-n2")
    result.assert_outcomes(passed=2)
    result = pytester.run(sys.executable, "-m", "pytest", BOTH, f"--basetemp={base}")
    result.assert_outcomes(passed=2)
    found = sorted(path.relative_to(base).parts[0] for path in base.rglob("left"))
    assert found == ["asyncio", "epolls"]


def test_hubs_at_once_never_mix_their_lines(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.parametrize("n", range(30))
        def test_p(n): pass
        """
    )
    for jobs in ("2", "auto"):
        result = run(pytester, BOTH, "-v", f"--eventlet-jobs={jobs}")
        lines = [line for line in result.outlines if "test_p[" in line]
        assert len(lines) == 60
        for line in lines:
            assert re.fullmatch(r"test_x\.py::test_p\[\d+-\w+\] PASSED +\[ *\d+%\]", line)


def test_what_a_conftest_prints_is_shown_and_told_apart(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import atexit, os, sys

        def pytest_sessionfinish(session):
            print("finishing under", os.environ.get("EVENTLET_HUB"))
            print("to stderr", os.environ.get("EVENTLET_HUB"), file=sys.stderr)

        atexit.register(lambda: os.write(1, b"at exit %r\\n" % os.environ.get("EVENTLET_HUB")))
        """
    )
    pytester.makepyfile(test_x="def test_a(): pass")
    result = run(pytester, BOTH)
    result.assert_outcomes(passed=2)
    for hub in ("epolls", "asyncio"):
        result.stdout.fnmatch_lines([f"{hub} printed outside of its tests:", "*"])
        assert f"finishing under {hub}" in result.stdout.str()
        assert f"to stderr {hub}" in result.stdout.str()


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--setup-show", "*SETUP*F tmp_path*"),
        ("--setup-plan", "*SETUP*F tmp_path*"),
        ("--fixtures", "eventlet_hub*session scope*"),
        ("--fixtures-per-test", "tmp_path*"),
        ("--markers", "@pytest.mark.eventlet_hub(name, ...):*"),
        ("--help", "*--eventlet-hub=NAMES*"),
        ("--version", "pytest [0-9]*"),
        ("--cache-show", "cachedir:*"),
        ("--trace-config", "*eventlet-debug*"),
    ],
)
def test_options_that_show_something_still_show_it(
    pytester: pytest.Pytester, option: str, says: str
) -> None:
    pytester.makepyfile(test_x="def test_a(tmp_path): pass")
    result = run(pytester, BOTH, option)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([says])
