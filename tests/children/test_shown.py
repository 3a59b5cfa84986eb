"""What a run over several hubs prints and writes."""

from __future__ import annotations

from pathlib import Path
import re
from xml.etree import ElementTree

import pytest
from runs import BOTH
from runs import make_differing
from runs import on_both
from runs import ran
from runs import run


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
            "*s *test_x.py::test_*[[]*]",
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
        import os
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

        @pytest.fixture
        def failing(eventlet_artifacts):
            yield
            raise OSError

        def test_fails_twice(failing): assert 0

        def test_crashes(eventlet_artifacts):
            os._exit(3)
        """,
        test_broken="import nowhere_at_all",
        test_nothing="import pytest; pytest.skip('not here', allow_module_level=True)",
    )
    go_on = "--continue-on-collection-errors"
    result = run(pytester, BOTH, "--junitxml=ci/out.xml", "--eventlet-jobs=2", go_on)
    result.assert_outcomes(passed=4, failed=5, skipped=3, errors=6)
    root = ElementTree.parse(pytester.path / "ci" / "out.xml").getroot()
    (suite,) = root.iter("testsuite")
    assert {name: suite.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": "18",
        "failures": "5",
        "errors": "6",
        "skipped": "3",
    }
    found = [
        (
            (case.get("classname"), case.get("name")),
            {each.get("name"): each.get("value") for each in case.iter("property")},
        )
        for case in root.iter("testcase")
    ]
    cases = dict(found)
    # A test whose call and teardown fail has two of the same name, as ever.
    assert (len(found), len(cases)) == (18, 16)
    assert {("test_x.TestUnit", "test_method[asyncio]"), ("", "test_broken[asyncio]")} < {*cases}
    for (_, name), properties in found:
        assert f"[{properties['eventlet_hub']}]" in str(name)
    assert cases["test_x", "test_b[asyncio]"]["hub"] == "asyncio"
    # Relative to the file, and there for a test whose process died, too.
    directory = cases["test_x", "test_crashes[epolls]"]["eventlet_artifacts"]
    assert (pytester.path / "ci" / str(directory) / "test.json").exists()
    assert not Path(str(directory)).is_absolute()


def test_what_fails_outside_of_a_tests_function_is_shown_without_hooks_of_the_plugin(
    pytester: pytest.Pytester,
) -> None:
    hooks = [
        f"""
@pytest.hookimpl(wrapper=True)
def pytest_runtest_{phase}(item):
    yield
    if item.name.startswith("test_{phase}"):
        raise ValueError
"""
        for phase in ("setup", "call", "teardown")
    ]
    pytester.makeconftest("import pytest\n" + "".join(hooks))
    pytester.makepyfile("def test_setup(): pass\ndef test_call(): pass\ndef test_teardown(): pass")
    watched = ["--cprofile", "--eventlet-leaks=warn", "--eventlet-blocked", "--dump-asyncio-tasks"]
    result = run(pytester, BOTH, *watched)  # which looks for that
    result.assert_outcomes(passed=2, failed=2, errors=4)
    assert sum(": ValueError" in line for line in result.outlines) == 6


def test_warnings_at_the_end_of_a_session_are_shown(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import os, warnings

        warnings.warn("the configuration")

        def pytest_sessionfinish():
            if hub := os.environ.get("EVENTLET_HUB"):
                warnings.warn("something is left")
                warnings.warn(f"{hub} is left")
        """
    )
    pytester.makeini("[pytest]\nunknown = 1")
    pytester.makepyfile("def test_x(): pass")
    result = run(pytester, BOTH)
    result.assert_outcomes(passed=2, warnings=5)
    for words in ("something", "epolls", "asyncio"):
        result.stdout.fnmatch_lines([f"*UserWarning: {words} is left"])


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
