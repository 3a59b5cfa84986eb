"""``--eventlet-retrace``: record only the tests that fail or differ, after an unwatched run."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.reruns.differences import MOST
from pytest_eventlet_debug.reruns.differences import HubDifferences
from pytest_eventlet_debug.reruns.judgement import ending_of
from pytest_eventlet_debug.reruns.reruns import Reruns


class Retrace:
    """Run tests that failed or differ once more under the tracers, each alone; a plugin object.

    :param gathering: knows how the tests ended when nobody watched.
    :param reruns: runs some of them again.
    """

    NAME = "eventlet-debug-retrace"

    def __init__(self, config: pytest.Config, gathering: Gathering, reruns: Reruns) -> None:
        self._config = config
        self._gathering = gathering
        self._reruns = reruns
        #: How each test ended under the tracers.
        self.traced: dict[str, Attempt] = {}

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if not self._reruns.possible or exitstatus != pytest.ExitCode.TESTS_FAILED:
            return
        nodeids = self._chosen()
        for attempts in self._reruns.run_each([[nodeid] for nodeid in nodeids[:MOST]], "on"):
            for traced in attempts.values():
                self.traced[traced.nodeid] = traced
                self._gathering.traced[traced.nodeid] = traced.directory
        left = len(nodeids) - len(nodeids[:MOST])
        if left:
            self._reruns.say(f"{left} more failed and were not traced")

    def _chosen(self) -> list[str]:
        """Return the tests that failed, and those that failed on another hub."""
        differences = HubDifferences.of(self._config)
        differing = set(differences.judgements) if differences is not None else set()
        by_test: dict[str, list[str]] = {}
        for nodeid in self._gathering.nodeids:
            test, _ = self._gathering.key(nodeid)
            if self._gathering.outcome(nodeid) in BAD or test in differing:
                by_test.setdefault(test, []).append(nodeid)
        return [
            nodeid for test in self._gathering.unlike_first(by_test) for nodeid in by_test[test]
        ]

    def describe(self, nodeid: str) -> str | None:
        """Say how a test ended otherwise under the tracers, or ``None`` if it did not."""
        before, traced = self._gathering.attempt(nodeid), self.traced.get(nodeid)
        if traced is None:
            return None
        if (before.outcome in BAD) != (traced.outcome in BAD):
            words = f"{before.outcome} in the run, {traced.outcome} alone under the tracers"
            if before.outcome in BAD:
                return f"{words}; --eventlet-culprit looks for an earlier test that makes it fail"
            return words
        first, second = _reason(before), _reason(traced)
        if before.outcome in BAD and first != second:
            return f"{first} in the run, {second} alone under the tracers"
        return None


def _reason(attempt: Attempt) -> str:
    """Return the type of a test's error, or how it ended if there was none."""
    ending = ending_of(attempt)
    return ending.error or ending.outcome
