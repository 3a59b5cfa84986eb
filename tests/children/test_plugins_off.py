"""Without this or that plugin, and with a user's conftest."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from runs import BOTH
from runs import make_differing
from runs import run


@pytest.mark.parametrize(
    "plugins",
    [
        "cacheprovider stepwise junitxml warnings debugging tmpdir doctest unittest",
        "logging faulthandler unraisableexception pastebin subtests threadexception",
        "capture xdist cov html rerunfailures",
    ],
)
def test_a_run_without_this_or_that_plugin_has_the_same_outcomes(
    pytester: pytest.Pytester, plugins: str
) -> None:
    make_differing(pytester)
    options = [f"-pno:{name}" for name in plugins.split()]
    result = run(pytester, BOTH, "--dump-asyncio-tasks", *options)
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["1 test differs between epolls, asyncio"])


@pytest.mark.parametrize("method", ["sys", "tee-sys", "no"])
def test_a_run_that_captures_otherwise_has_the_same_outcomes(
    pytester: pytest.Pytester, method: str
) -> None:
    make_differing(pytester)
    result = run(pytester, BOTH, "--dump-asyncio-tasks", f"--capture={method}")
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
