"""Gather how every test ends, from the reports of a run as they come by."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

import pytest

from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.outcomes import failure_text
from pytest_eventlet_debug.outcomes.categories import category_of
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.outcomes import Outcomes
from pytest_eventlet_debug.report.results import Result
from pytest_eventlet_debug.report.results import Results
from pytest_eventlet_debug.report.results import Section
from pytest_eventlet_debug.settings import Settings

#: Characters of a failure or of a section that are kept; what is longer loses its middle.
MAX_CHARACTERS = 100_000


@dataclasses.dataclass
class _Gathered:
    """What is known of the attempt of a test that is under way, or was the last."""

    seconds: float = 0.0
    reason: str = ""
    failures: list[str] = dataclasses.field(default_factory=list)
    sections: dict[str, str] = dataclasses.field(default_factory=dict)


_Uncollected = tuple[Outcome, _Gathered]


class Gathering:
    """Note each test's outcome, duration and failure, in the process that the user started.

    A plugin object. Reports of children and of pytest-xdist's workers come by here, too.
    """

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._hub_in_ids = settings.hub_in_ids
        self._outcomes = Outcomes()
        self._gathered: dict[str, _Gathered] = {}
        self._uncollected: dict[tuple[str, str | None], _Uncollected] = {}

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
        gathered = _Gathered()
        _take_failure(gathered, report)
        hub = dict(report.sections).get("eventlet hub")  # the controller says so
        outcome: Outcome = "error" if report.failed else "skipped"
        self._uncollected[report.nodeid, hub] = outcome, gathered

    @property
    def any(self) -> bool:
        """Whether any test has ended, or a module could not be collected."""
        return bool(self._outcomes.latest or self._uncollected)

    def results(self, run: str, hubs: tuple[str, ...]) -> Results:
        """Return how the tests have ended so far, in the order in which they began.

        :param run: names the run.
        :param hubs: the names of the hubs that they ran under.
        """
        uncollected = [
            _result(nodeid, nodeid, hub if hub in hubs else hubs[0], outcome, gathered)
            for (nodeid, hub), (outcome, gathered) in self._uncollected.items()
        ]
        tests = [self._result_of(nodeid, hubs) for nodeid in self._outcomes.latest]
        return Results(run, hubs, (*uncollected, *tests))

    def _result_of(self, nodeid: str, hubs: tuple[str, ...]) -> Result:
        test, hub = split_hub(nodeid, hubs) if self._hub_in_ids else (nodeid, None)
        return _result(
            nodeid,
            test,
            hub or hubs[0],
            self._outcomes.latest[nodeid],
            self._gathered[nodeid],
            self._outcomes.attempts.get(nodeid, ()),
        )


def _result(
    nodeid: str,
    test: str,
    hub: str,
    outcome: Outcome,
    gathered: _Gathered,
    earlier: Sequence[Outcome] = (),
) -> Result:
    return Result(
        test=test,
        hub=hub,
        nodeid=nodeid,
        outcome=outcome,
        seconds=round(gathered.seconds, 6),
        earlier=tuple(earlier),
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
