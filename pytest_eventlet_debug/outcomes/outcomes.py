"""How tests end: one outcome from the reports on a test."""

from __future__ import annotations

from typing import Literal

Outcome = Literal["passed", "failed", "error", "skipped", "xfailed", "xpassed", "hung", "crashed"]
OutcomeOrAbsent = Literal[Outcome, "absent"]

#: All outcomes, by gravity: of several reports on one test the gravest counts.
OUTCOMES: tuple[Outcome, ...] = (
    "passed",
    "skipped",
    "xfailed",
    "xpassed",
    "error",
    "failed",
    "hung",
    "crashed",
)

#: Those of a test that went wrong.
BAD: frozenset[OutcomeOrAbsent] = frozenset(("failed", "error", "hung", "crashed"))

#: The categories of ``pytest_report_teststatus`` that are an outcome of the test.
CATEGORIES: dict[str, Outcome] = {
    **{outcome: outcome for outcome in OUTCOMES},
    "subtests failed": "failed",
}


class Outcomes:
    """The outcome of each test, from the reports on its phases as they come.

    ``latest`` has one for each test, in the order in which they began. A test that is
    retried begins anew, and ``attempts`` has the outcomes of its earlier attempts.
    """

    def __init__(self) -> None:
        self.latest: dict[str, Outcome] = {}
        self.attempts: dict[str, list[Outcome]] = {}

    def note(
        self, test: str, category: str, end: Outcome | None = None, phase: str | None = "call"
    ) -> None:
        """Take in one report.

        :param test: the node id.
        :param category: what ``pytest_report_teststatus`` calls the report.
        :param end: ``crashed`` or ``hung`` where the test's process ended in it.
        :param phase: which one the report is on.
        """
        if category == "rerun":
            self.latest.pop(test, None)
            self.attempts.setdefault(test, []).append("failed" if phase == "call" else "error")
            return
        outcome = end or CATEGORIES.get(category)
        if outcome is not None:
            before = self.latest.get(test, "passed")
            self.latest[test] = max(before, outcome, key=OUTCOMES.index)
