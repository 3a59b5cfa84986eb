"""Several runs of the same tests: which of them follow one another, and how the page shows that."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

from playwright.sync_api import Page
from playwright.sync_api import expect
import pytest

from pytest_eventlet_debug import artifact_names
from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.report import results
from pytest_eventlet_debug.report.data import Cell
from pytest_eventlet_debug.report.data import Run
from pytest_eventlet_debug.report.history import columns
from pytest_eventlet_debug.report.history import labels
from pytest_eventlet_debug.report.results import Result
from pytest_eventlet_debug.upgrade import saved_run
from pytest_eventlet_debug.upgrade.saved_run import Distribution
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedTest

HOUR = 3600 * 10**9
DAY = 24 * HOUR
MONDAY = 1_790_000_000 * 10**9


def record(
    hub: str, started_ns: int, python: str = "3.12.3", eventlet: str = "0.41.0"
) -> RunRecord:
    """Return what is known of a run of an hour."""
    return RunRecord(
        format=FORMAT,
        run=f"{hub} {started_ns}",
        hubs=[hub],
        started_ns=started_ns,
        ended_ns=started_ns + HOUR,
        python=python,
        platform="Linux-6.1.0-x86_64-with-glibc2.36",
        versions={"eventlet": eventlet, "pytest-eventlet-debug": str(started_ns)},
    )


def ran(path: str, facts: RunRecord, *tests: str) -> Run:
    """Return a run of tests that pass, by default one."""
    (hub,) = facts.hubs
    cells = {
        test: {hub: Cell(Result(test, hub, f"{test}[{hub}]", "passed", 0.1))}
        for test in tests or ("test_x",)
    }
    return Run(Path(path), facts, (hub,), cells)


def shown(*runs: Run) -> list[tuple[str, tuple[int, ...]]]:
    return [(column.label, column.runs) for column in columns(runs)]


def test_runs_of_a_hub_are_one_history_and_jobs_of_other_hubs_stand_beside_it() -> None:
    nights = [
        ran(f"night-{n}/{hub}", record(hub, MONDAY + n * DAY))
        for n in range(3)
        for hub in ("epolls", "asyncio")
    ]
    assert shown(*nights) == [("epolls", (0, 2, 4)), ("asyncio", (1, 3, 5))]


def test_what_runs_ran_on_sets_their_columns_apart() -> None:
    first = record("epolls", MONDAY)
    upgraded = record("epolls", MONDAY + DAY, eventlet="0.42.0.dev3+gabc")
    nightly = record("epolls", MONDAY + 2 * DAY, eventlet="0.42.0.dev4+gdef")
    found = columns([ran("a", first), ran("b", upgraded), ran("c", nightly)])
    assert [(each.label, each.runs) for each in found] == [
        ("epolls · eventlet 0.41.0", (0,)),
        ("epolls · eventlet 0.42.0", (1, 2)),
    ]
    assert [each.variant for each in found] == [0, 1]
    older = record("epolls", MONDAY, python="3.10.1")
    patched = record("epolls", MONDAY + DAY, python="CPython 3.12.9")
    assert shown(ran("a", first), ran("b", older), ran("c", patched)) == [
        ("epolls · Python 3.12", (0, 2)),
        ("epolls · Python 3.10", (1,)),
    ]


def test_runs_at_the_same_time_are_no_history_unless_they_share_no_test() -> None:
    jobs = [
        ran(f"{n}/{name}/eventlet-debug", record("epolls", MONDAY + n * DAY))
        for n in range(2)
        for name in ("mysql", "postgres")
    ]
    assert shown(*jobs) == [("epolls · 1/mysql", (0, 2)), ("epolls · 1/postgres", (1, 3))]
    parts = [ran(f"part-{n}", record("epolls", MONDAY), f"test_{n}") for n in range(2)]
    assert shown(*parts) == [("epolls", (0, 1))]
    twice = [ran(f"job-{n}", record("epolls", MONDAY)) for n in range(2)]
    assert shown(*twice) == [("epolls · job-0", (0,)), ("epolls · job-1", (1,))]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["out"], ["out"]),
        (["job-1/eventlet-debug", "job-2/eventlet-debug"], ["job-1", "job-2"]),
        (["a/epolls", "a/poll"], ["epolls", "poll"]),
        (["1/epolls", "1/poll", "2/epolls"], ["1/epolls", "1/poll", "2/epolls"]),
        (["same", "same"], ["same", "same"]),
    ],
)
def test_a_run_is_called_by_what_sets_its_path_apart(paths: list[str], names: list[str]) -> None:
    assert labels([Path("/x", path) for path in paths]) == names


#: How tests end night after night: flaky, broken since the third, fixed.
NIGHTS: dict[str, list[Outcome]] = {
    "test_flaky": ["passed", "failed", "passed", "passed"],
    "test_broke": ["passed", "passed", "failed", "failed"],
    "test_broke_now": ["passed", "passed", "passed", "failed"],
    "test_<b>fixed": ["failed", "failed", "passed", "passed"],
    "test_new": ["passed"],
}


@pytest.fixture
def nights(tmp_path: Path) -> str:
    """A report on a saved run and three directories; return its address."""
    for n in range(4):
        of_night = {test: ends[n - 4] for test, ends in NIGHTS.items() if len(ends) >= 4 - n}
        facts = record("epolls", MONDAY + n * DAY)
        if n == 0:
            _save(tmp_path / "night-0.json", facts, of_night)
            continue
        directory = tmp_path / f"night-{n}"
        directory.mkdir()
        (directory / "index.html").write_text("the night's own report")
        json_files.write(directory / "run.json", facts)
        tests = tuple(
            Result(test, "epolls", f"{test}[epolls]", end, n / 8, failure=f"E   in night {n}")
            for test, end in of_night.items()
        )
        found = results.Results(run=facts.run, hubs=("epolls",), tests=tests)
        results.write(found, directory / artifact_names.RESULTS_FILE)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pytest_eventlet_debug", "report", "-o", out]
    paths = [*sorted(tmp_path.glob("night-*")), tmp_path / "night-2"]
    subprocess.run([*command, *paths], check=True)
    return (out / "index.html").as_uri()


def _save(path: Path, facts: RunRecord, ends: dict[str, Outcome]) -> None:
    saved = SavedRun(
        suite="suite",
        command=(),
        started_ns=facts.started_ns,
        seconds=3600.0,
        exit_status=1,
        incomplete=None,
        hubs=("epolls",),
        python="CPython 3.12.3",
        platform=facts.platform,
        distributions={"eventlet": Distribution("0.41.0")},
        selection=(),
        deselected=(),
        tests=tuple(SavedTest(test, "epolls", end, 0.1, (end,)) for test, end in ends.items()),
        uncollected=(),
    )
    saved_run.write(path, saved)


def test_nights_are_letters_in_order_with_the_rate_of_failures(page: Page, nights: str) -> None:
    page.goto(nights)
    strips = page.locator("#matrix .strip")
    expect(strips).to_have_text(["PFPP", "PPFF", "PPPF", "FFPP", "P"])
    expect(page.locator("#matrix").get_by_role("img").nth(1)).to_have_attribute(
        "aria-label",
        "epolls, last 4 runs, the oldest first: 2 times passed; 2 times failed. "
        "It failed in 2 of 4 runs.",
    )
    for name, tests in {"Flaky": ["test_flaky"], "New failures": ["test_broke_now"]}.items():
        page.get_by_role("button", name=name).click()
        expect(page.locator("#matrix .test-name")).to_have_text(tests)
        page.get_by_role("button", name=name).click()
    page.get_by_role("columnheader", name="Failed runs").click()
    page.get_by_role("columnheader", name="Failed runs").click()
    expect(page.locator("#matrix .test-name").last).to_have_text("test_new")


def test_a_tests_page_shows_its_runs_in_time_and_the_one_that_differs(
    page: Page, nights: str
) -> None:
    page.goto(f"{nights}#/test/test_flaky")
    expect(page.locator(".verdict")).to_contain_text("flaky: epolls: failed in 1 of 4 runs")
    history = page.get_by_role("region", name="History")
    expect(history).to_contain_text("failed in 1 of 4 runs 0.10 s to 0.38 s, median 0.25 s")
    expect(history.locator("tbody tr td:first-child")).to_have_text(
        ["night-3", "night-2", "night-1", "night-0.json"]
    )
    link = history.get_by_role("link", name="night-2")
    assert link.get_attribute("href") == "../night-2/index.html#/test/test_flaky"
    # Beside the last run, which passed, the newest that failed, with what it said.
    other = page.get_by_role("region", name="epolls · night-1")
    expect(other).to_contain_text("in night 1")
    page.goto(f"{nights}#/test/test_broke")
    expect(page.locator(".verdict")).to_contain_text("has failed under epolls since night-2.")
    page.get_by_role("link", name="Run").click()
    expect(page.locator("summary h2")).to_have_text(
        ["night-3", "night-2", "night-1", "night-0.json"]
    )
