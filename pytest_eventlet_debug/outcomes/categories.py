"""What pytest counts a report as."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.outcomes.outcomes import CATEGORIES

_NO_OUTCOME = ("", "rerun", "subtests passed", "subtests skipped")


def category_of(config: pytest.Config, report: pytest.TestReport) -> str:
    """Return the category that the terminal would count a report in."""
    status = config.hook.pytest_report_teststatus(report=report, config=config)
    if status is None:  # -p no:terminal
        if report.when != "call" and not report.skipped:
            return "error" if report.failed else ""
        return report.outcome
    category: str = status[0]
    if category in CATEGORIES or category in _NO_OUTCOME:
        return category
    return report.outcome  # a conftest has a category of its own
