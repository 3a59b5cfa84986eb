"""The script that compares suites of others reads outcomes right."""

from __future__ import annotations

import importlib.util
from pathlib import Path
import sys
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "downstream.py"

SUITE = """
    import unittest

    import pytest

    def test_fails():
        assert False

    @pytest.mark.parametrize("number", [1, 2])
    def test_number(number):
        pass

    @pytest.fixture
    def broken():
        yield
        raise ValueError

    def test_teardown(broken):
        pass

    class TestSkipped(unittest.TestCase):
        def test_skipped(self):
            self.skipTest("not today")
"""

OUTCOMES = {
    "test_suite::test_fails": "failure",
    "test_suite::test_number[1]": "passed",
    "test_suite::test_number[2]": "passed",
    "test_suite::test_teardown": "error",
    "test_suite.TestSkipped::test_skipped": "skipped",
}


@pytest.fixture
def downstream(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("downstream", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "downstream", module)  # where dataclasses look
    spec.loader.exec_module(module)
    return module


def test_outcomes_of_a_run_under_several_hubs_are_those_of_runs_by_hand(
    pytester: pytest.Pytester, downstream: ModuleType
) -> None:
    pytester.makepyfile(test_suite=SUITE)
    pytester.runpytest("-p", "no:eventlet-debug", "--junitxml=by-hand.xml")
    pytester.runpytest("--eventlet-hub=epolls,asyncio", "--junitxml=plugin.xml")
    assert downstream.read(pytester.path / "by-hand.xml") == OUTCOMES
    plugin = downstream.by_hub(downstream.read(pytester.path / "plugin.xml"))
    assert plugin == {"epolls": OUTCOMES, "asyncio": OUTCOMES}


def test_each_test_with_another_outcome_is_a_difference(downstream: ModuleType) -> None:
    other = {**OUTCOMES, "test_suite::test_fails": "passed", "test_suite::test_new": "passed"}
    assert downstream.Comparison(OUTCOMES, OUTCOMES).differences() == []
    assert downstream.Comparison(OUTCOMES, other).differences() == [
        "test_suite::test_fails: failure by hand, passed under the plugin",
        "test_suite::test_new: not there by hand, passed under the plugin",
    ]


def test_a_suite_that_hangs_under_the_plugin_alone_is_a_difference(downstream: ModuleType) -> None:
    assert len(downstream.Comparison(OUTCOMES, None).differences()) == 1
    assert downstream.Comparison(None, None).differences() == []
