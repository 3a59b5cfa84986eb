"""A run in Markdown, for a job's page."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_eventlet_debug.report import markdown
from pytest_eventlet_debug.report.results import Result
from pytest_eventlet_debug.report.results import Results

PASSED = Result("test_it", "poll", "test_it[poll]", "passed", 0.1)
FAILED = Result("test_it", "asyncio", "test_it[asyncio]", "failed", 0.1, reason="gone")


def test_a_summary_counts_by_hub_and_names_what_differs_and_failed() -> None:
    results = Results(run="run", hubs=("poll", "asyncio"), tests=(PASSED, FAILED))
    found = [("test_it", "poll", "wire: late"), ("test_it", "asyncio", "storm: it spins")]
    assert list(markdown.lines(results, found)) == [
        "### Tests by eventlet hub",
        "",
        "| Hub | passed | failed |",
        "| --- | --- | --- |",
        "| poll | 1 | 0 |",
        "| asyncio | 0 | 1 |",
        "",
        "#### 1 differ between hubs",
        "",
        "| Test | poll | asyncio |",
        "| --- | --- | --- |",
        "| <code>test&#95;it</code> | passed | failed |",
        "",
        "#### 1 failed",
        "",
        "| Test | Hub | Outcome | Error |",
        "| --- | --- | --- | --- |",
        "| <code>test&#95;it</code> | asyncio | failed | gone |",
        "",
        "#### 2 found in recordings",
        "",
        "| Test | Hub | Finding |",
        "| --- | --- | --- |",
        "| <code>test&#95;it</code> | asyncio | storm: it spins |",
        "| <code>test&#95;it</code> | poll | wire: late |",
    ]


@pytest.mark.fault("hostile-report")
def test_no_name_or_error_is_taken_for_markdown_or_html() -> None:
    hostile = Result("a|b`c`<b>", "poll", "x", "failed", 0.1, reason="*x*\n[y](z) | <script>")
    text = "\n".join(markdown.lines(Results(run="run", hubs=("poll",), tests=(hostile,)), []))
    row = next(line for line in text.splitlines() if line.startswith("| <code>"))
    assert row.count("|") == 5
    assert not set("`*[]<>") & set(row.replace("<code>", "").replace("</code>", ""))


def test_rows_beyond_what_a_page_bears_are_counted() -> None:
    tests = tuple(Result(f"test{n}", "poll", "", "failed", 0.1) for n in range(markdown.SHOWN + 2))
    assert (
        list(markdown.lines(Results(run="run", hubs=("poll",), tests=tests), []))[-1]
        == "and 2 more"
    )


def test_other_steps_of_a_github_job_keep_their_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "summary.md"
    path.write_text("of an earlier step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    markdown.write(Results(run="run", hubs=("poll",), tests=(PASSED,)), None, path)
    assert path.read_text().startswith("of an earlier step\n### Tests")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    markdown.write(Results(run="run", hubs=("poll",), tests=(PASSED,)), None, path)
    assert path.read_text().startswith("### Tests")


def test_the_directory_of_a_summary_is_made(tmp_path: Path) -> None:
    path = tmp_path / "out" / "summary.md"
    markdown.write(Results(run="run", hubs=("poll",), tests=(PASSED,)), None, path)
    assert path.read_text().startswith("### Tests")
