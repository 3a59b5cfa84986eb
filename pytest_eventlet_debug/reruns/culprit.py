"""``--eventlet-culprit``: the earlier tests that make a test fail."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.reruns.reruns import Reruns
from pytest_eventlet_debug.reruns.smallest import smallest


class _Unknown(Exception):
    """A process ended before the test in question, or Ctrl-C came."""


class Culprit:
    """Look for them when the run is over; a plugin object.

    :param name: the node id of the test in question.
    :param gathering: knows how the tests ended, and in which order they ran.
    :param reruns: runs parts of them again, the test in question last.
    """

    def __init__(self, name: str, gathering: Gathering, reruns: Reruns) -> None:
        self._name = name
        self._gathering = gathering
        self._reruns = reruns
        self._runs = 0
        self._lines: list[str] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        named = [each for each in self._gathering.nodeids if self._is_named(each)]
        if not named:
            self._lines.append(f"{self._name} did not run: name it as the report does")
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.USAGE_ERROR
        for nodeid in named:
            try:
                self._lines.append(self._search(nodeid))
            except _Unknown:
                why = self._reruns.ended_by or "its process ended before it"
                shown = self._gathering.shown(nodeid)
                self._lines.append(f"{shown} could not be run again: {why}")

    def _is_named(self, nodeid: str) -> bool:
        ids = (nodeid, self._gathering.key(nodeid)[0])
        return self._name in (*ids, *map(self._gathering.shown, ids))

    def _search(self, nodeid: str) -> str:
        """Return what makes a test fail, in a line or several."""
        shown = self._gathering.shown(nodeid)
        if self._gathering.outcome(nodeid) not in BAD:
            return f"{shown} did not fail: there is nothing to explain"
        if self._reruns.ended_by:
            raise _Unknown
        if not self._reruns.possible:
            return f"{shown}: tests cannot be run again under --pdb or --trace"
        hub = self._gathering.key(nodeid)[1]
        before = [
            each
            for each in self._gathering.nodeids[: self._gathering.nodeids.index(nodeid)]
            if self._gathering.key(each)[1] == hub
        ]
        self._runs = 0
        if self._fails_after([], nodeid):
            return f"{shown} fails alone, too: no earlier test is to blame"
        if not before or not self._fails_after(before, nodeid):
            return (
                f"{shown} passes alone, and passes after the {tests(len(before))} before it: "
                "it is flaky, or depends on what ran at the same time"
            )
        found = smallest(before, lambda part: self._fails_after(part, nodeid))
        again = self._fails_after(found, nodeid)
        doubt = "" if again else " (not every time)"
        lines = [f"{shown} fails after{doubt}:"]
        lines += [f"  {self._gathering.shown(each)}" for each in found]
        return "\n".join([*lines, f"  ({self._runs} runs; alone it passes)"])

    def _fails_after(self, part: Sequence[str], nodeid: str) -> bool:
        self._runs += 1
        ended = self._reruns.run([*part, nodeid])
        if nodeid not in ended:
            raise _Unknown
        return ended[nodeid].outcome in BAD

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._lines:
            terminalreporter.section("culprit", "=")
            for line in self._lines:
                terminalreporter.line(line)
