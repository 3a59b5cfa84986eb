"""Gather how every test ends, from the reports of a run as they come by."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import pytest

from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.outcomes.categories import category_of
from pytest_eventlet_debug.outcomes.outcomes import Outcomes
from pytest_eventlet_debug.report.results import Result
from pytest_eventlet_debug.report.results import Results
from pytest_eventlet_debug.report.results import Section
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.upgrade import failure_text

#: Characters of a failure or of a section that are kept; what is longer loses its middle.
MAX_CHARACTERS = 100_000


@dataclasses.dataclass
class _Gathered:
    """What is known of the attempt of a test that is under way, or was the last."""

    seconds: float = 0.0
    reason: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)
    sections: dict[str, str] = dataclasses.field(default_factory=dict)


class Gathering:
    """Note each test's outcome, duration and failure, in the process that the user started.

    A plugin object. Reports of children and of pytest-xdist's workers come by here, too.

    :param hubs: the names of the hubs that the tests run under.
    """

    def __init__(self, config: pytest.Config, settings: Settings, hubs: Sequence[str]) -> None:
        self._config = config
        self._hubs = tuple(hubs)
        self._hub_in_ids = settings.hub_in_ids
        self._outcomes = Outcomes()
        self._gathered: dict[str, _Gathered] = {}
        self._uncollected: dict[tuple[str, str], Result] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        category = category_of(self._config, report)
        self._outcomes.note(report.nodeid, category, getattr(report, "eventlet_end", None))
        if report.when == "setup" or category == "rerun":
            self._gathered.pop(report.nodeid, None)
        if category == "rerun":
            return
        gathered = self._gathered.setdefault(report.nodeid, _Gathered())
        if not hasattr(report, "context"):  # a subtest's time is in its test's call
            gathered.seconds += report.duration
        if not report.passed:
            _take_failure(gathered, report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module that could not be imported, or was skipped, in the place of its tests."""
        if report.passed:
            return
        named = dict(report.sections).get("eventlet hub")
        hub = named if named in self._hubs else self._hubs[0]
        gathered = _Gathered()
        _take_failure(gathered, report)
        self._uncollected[report.nodeid, hub] = Result(
            test=report.nodeid,
            hub=hub,
            nodeid=report.nodeid,
            outcome="error" if report.failed else "skipped",
            seconds=0.0,
            reason=gathered.reason,
            failure=_shortened("\n".join(gathered.failures)),
        )

    def results(self) -> Results:
        """Return how the tests have ended so far, in the order in which they began."""
        tests = map(self._result, self._outcomes.latest)
        return Results(self._hubs, (*self._uncollected.values(), *tests))

    def _result(self, nodeid: str) -> Result:
        test, hub = split_hub(nodeid, self._hubs) if self._hub_in_ids else (nodeid, None)
        gathered = self._gathered[nodeid]
        return Result(
            test=test,
            hub=hub or self._hubs[0],
            nodeid=nodeid,
            outcome=self._outcomes.latest[nodeid],
            seconds=round(gathered.seconds, 6),
            earlier=tuple(self._outcomes.attempts.get(nodeid, ())),
            reason=gathered.reason,
            failure=_shortened("\n".join(gathered.failures)),
            sections=tuple(
                Section(title, _shortened(text)) for title, text in gathered.sections.items()
            ),
        )


def _take_failure(gathered: _Gathered, report: pytest.TestReport | pytest.CollectReport) -> None:
    if isinstance(report.longrepr, tuple):  # a skip: path, line, reason
        gathered.reason = gathered.reason or failure_text.one_line(report.longrepr[2])
        return
    crash = getattr(report.longrepr, "reprcrash", None)
    text = report.longreprtext
    error = str(crash.message) if crash is not None else failure_text.error_line(text)
    reason = getattr(report, "wasxfail", "") or error
    gathered.reason = gathered.reason or failure_text.one_line(reason)
    gathered.failures.append(text)
    # Each report of a test has the sections of those before it.
    gathered.sections.update(report.sections)


def _shortened(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[... {left_out:,} characters are left out ...]\n{text[-half:]}"
