"""A run in Markdown, for the page that GitHub or GitLab shows of a job."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from collections.abc import Sequence
import os
from pathlib import Path
import re

from pytest_eventlet_debug.outcomes.comparison import compare_outcomes
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.outcomes.outcomes import OUTCOMES
from pytest_eventlet_debug.recordings.findings import text as findings_text
from pytest_eventlet_debug.report.data import Run
from pytest_eventlet_debug.report.results import Result
from pytest_eventlet_debug.report.results import Results

#: Rows of each kind that are shown; GitHub cuts a summary at 1 MiB.
SHOWN = 100


def write(results: Results, run: Run | None, path: Path) -> None:
    """Write the summary of a run, in a directory that is made if there is none.

    What other steps of a job of GitHub's have written to its file stays there.

    :param run: what is in the run's directory, if it has one.
    :raises OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    shared = os.environ.get("GITHUB_STEP_SUMMARY") == str(path)
    with open(path, "a" if shared else "w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(f"{line}\n" for line in lines(results, _findings(run)))


def _findings(run: Run | None) -> list[tuple[str, str, str]]:
    """Return test, hub and line of each finding of a run."""
    return [
        (test, hub, findings_text.line(finding))
        for test, row in (run.cells.items() if run is not None else ())
        for hub, cell in row.items()
        for finding in cell.findings
    ]


def lines(results: Results, findings: Sequence[tuple[str, str, str]]) -> Iterator[str]:
    """Yield the lines of a summary.

    :param findings: test, hub and line of each.
    """
    yield "### Tests by eventlet hub"
    yield ""
    yield from _totals(results)
    yield from _differences(results)
    failed = [result for result in results.tests if result.outcome in BAD]
    yield from _table(
        "failed",
        ("Test", "Hub", "Outcome", "Error"),
        [
            (
                _code(r.test),
                _text(r.hub),
                r.outcome,
                _text("; ".join(filter(None, (r.reason, r.printed)))),
            )
            for r in failed
        ],
    )
    went_wrong = {(result.test, result.hub) for result in failed}
    ordered = sorted(findings, key=lambda each: each[:2] not in went_wrong)
    yield from _table(
        "found in recordings",
        ("Test", "Hub", "Finding"),
        [(_code(test), _text(hub), _text(line)) for test, hub, line in ordered],
    )


def _totals(results: Results) -> Iterator[str]:
    counts = Counter((result.hub, result.outcome) for result in results.tests)
    present = [name for name in OUTCOMES if any((hub, name) in counts for hub in results.hubs)]
    rows = [(_text(hub), *(str(counts[hub, name]) for name in present)) for hub in results.hubs]
    yield from _rows(("Hub", *present), rows)


def _differences(results: Results) -> Iterator[str]:
    by_hub: dict[str, dict[str, Result]] = {hub: {} for hub in results.hubs}
    for result in results.tests:
        by_hub.setdefault(result.hub, {})[result.test] = result
    compared = compare_outcomes(
        {hub: {test: r.outcome for test, r in found.items()} for hub, found in by_hub.items()}
    )
    yield from _table(
        "differ between hubs",
        ("Test", *map(_text, compared.hubs)),
        [
            (_code(difference.test), *(outcome for _, outcome in difference.outcomes))
            for difference in compared.differences
        ],
    )


def _table(what: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table under a heading with its number of rows, or nothing without rows."""
    if not rows:
        return
    yield ""
    yield f"#### {len(rows)} {what}"
    yield ""
    yield from _rows(head, rows[:SHOWN])
    if len(rows) > SHOWN:
        yield ""
        yield f"and {len(rows) - SHOWN} more"


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        yield f"| {' | '.join(row)} |"


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"


def _text(text: str) -> str:
    """Return text that is neither Markdown nor HTML."""
    line = " ".join(text.split())
    return re.sub(r"[^\w ./:,()=+-]|_", lambda match: f"&#{ord(match[0])};", line)
