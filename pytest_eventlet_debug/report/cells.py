"""What the matrix has in its cells: a test on a hub, in one run or in several."""

from __future__ import annotations

from typing import Any
from typing import TypeAlias

from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.report.data import Cell
from pytest_eventlet_debug.report.history import Column

#: Characters of an error in the history of a test.
MAX_REASON = 300

#: The runs in which a column has a test, the oldest first: the number of each, and what it shows.
Past: TypeAlias = list[tuple[int, Cell]]


def shown(runs: Past, column: Column) -> dict[str, Any]:
    """Return what the matrix shows of a test in a column: its last run, and how others ended."""
    number, cell = runs[-1]
    found = ended(cell)
    if len(runs) > 1:
        found["past"] = [_attempts(each) for _, each in runs]
    if len(column.runs) > 1:
        found["run"] = number
        numbers = tuple(each for each, _ in runs)
        if numbers != column.runs:
            found["runs"] = numbers
    return found


def _attempts(cell: Cell) -> str:
    """Return how a test ended in a run, each attempt."""
    return " ".join((*cell.result.earlier, cell.result.outcome))


def past(runs: Past) -> list[tuple[int, float, str]]:
    """Return run, seconds and error of each run of a test, where there are several."""
    if len(runs) < 2:
        return []
    return [(number, cell.result.seconds, cell.result.reason[:MAX_REASON]) for number, cell in runs]


def contrast(runs: Past) -> tuple[int, Cell] | None:
    """Return the newest run that failed if the last one passed, or passed if that failed."""
    ends = [each for each in runs if each[1].result.outcome != "skipped"]
    if not ends or runs[-1] is not ends[-1]:
        return None
    bad = runs[-1][1].result.outcome in BAD
    return next((each for each in reversed(ends) if (each[1].result.outcome in BAD) != bad), None)


def ended(cell: Cell) -> dict[str, Any]:
    """Return how a test ended in a run."""
    result = cell.result
    found: dict[str, Any] = {"outcome": result.outcome, "seconds": result.seconds}
    if result.reason:
        found["reason"] = result.reason
    if result.printed:
        found["printed"] = result.printed
    if result.earlier:
        found["earlier"] = result.earlier
    if cell.findings:
        found["findings"] = [f"{each.kind}: {each.title}" for each in cell.findings]
    return found
