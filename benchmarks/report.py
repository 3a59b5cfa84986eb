"""Measure how fast the HTML report opens, filters and draws, in headless Chromium.

Usage: python benchmarks/report.py [DIR]

Without DIR a run of 1,500 tests under two hubs is made, one of which has 100,000 events. With
DIR, the directory of a real run, that one's report is written anew and opened, and the test with
the longest trace is drawn; what the report takes is compared with what was recorded.
Needs chromium on PATH and ``pip install playwright``.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
import shutil
import sys
import tempfile
import time

from playwright.sync_api import Page
from playwright.sync_api import sync_playwright

from pytest_eventlet_debug import artifact_names
from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import PAGE_FILE
from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.artifact_records import TestRecord
from pytest_eventlet_debug.artifacts import directory_name
from pytest_eventlet_debug.recordings import report_part
from pytest_eventlet_debug.recordings.rows import Row
from pytest_eventlet_debug.recordings.rows import Timeline
from pytest_eventlet_debug.report import results
from pytest_eventlet_debug.report.data import read_run
from pytest_eventlet_debug.report.page import DATA_FOLDER
from pytest_eventlet_debug.report.page import write_report
from pytest_eventlet_debug.report.results import Result
from pytest_eventlet_debug.report.results import Results

TESTS = 1_500
EVENTS = 100_000
HUBS = ("epolls", "asyncio")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]

# From the first byte of the page until the browser has drawn rows with tests in them.
OPENED = """() => new Promise((resolve) => {
    const look = () => document.querySelector("#matrix .tabulator-row")
        ? requestAnimationFrame(() => setTimeout(() => resolve(performance.now())))
        : requestAnimationFrame(look);
    look();
})"""

# From a key in the search until what it leaves is drawn.
FILTERED = """(text) => new Promise((resolve) => {
    const search = document.getElementById("search");
    const began = performance.now();
    search.value = text;
    search.dispatchEvent(new Event("input"));
    requestAnimationFrame(() => setTimeout(() => resolve(performance.now() - began)));
})"""

# Two seconds of zooming in and out: frames a second, and the longest time to draw one.
ZOOMED = """() => new Promise((resolve) => {
    const { timeline } = document.querySelector("canvas.timeline");
    const began = performance.now();
    let frames = 0, longest = 0;
    const draw = timeline.draw.bind(timeline);
    timeline.draw = () => {
        const before = performance.now();
        draw();
        frames++;
        longest = Math.max(longest, performance.now() - before);
    };
    const step = () => {
        const passed = performance.now() - began;
        if (passed > 2000) return resolve([frames / (passed / 1000), longest]);
        timeline.zoom(passed < 1000 ? 0.95 : 1 / 0.95, 700);
        requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
})"""


def make_run(directory: Path) -> str:
    """Make the files of a large run; return the test with all the events."""
    names = [f"tests/file_{n % 40}_test.py::TestCase::test_number_{n}" for n in range(TESTS)]
    tests = [
        Result(name, hub, f"{name}[{hub}]", "failed" if n % 97 == 0 else "passed", n % 13 / 10)
        for n, name in enumerate(names)
        for hub in HUBS
    ]
    record = RunRecord(format=FORMAT, run="benchmark", hubs=list(HUBS))
    json_files.write(directory / "run.json", record)
    results.write(
        Results(run="benchmark", hubs=HUBS, tests=tuple(tests)),
        directory / artifact_names.RESULTS_FILE,
    )
    for hub in HUBS:
        nodeid = f"{names[0]}[{hub}]"
        test = directory / directory_name(nodeid)
        test.mkdir()
        record = TestRecord(format=FORMAT, nodeid=nodeid, hub=hub, artifacts=["strace.txt"])
        json_files.write(test / "test.json", record)
        (test / "strace.txt").write_text("")
        report_part.write(test, Timeline(nodeid, events(), []))
    return names[0]


def events() -> list[Row]:
    """Return calls of 20 greenthreads, a few microseconds apart."""
    begin = time.time_ns()
    rows = [Row(begin, "phase", "call: passed", duration_ns=EVENTS * 10_000, name="call")]
    for n in range(EVENTS):
        name = ("recvfrom", "epoll_wait", "sendto", "read")[n % 4]
        text = (
            f'{name}(5<TCP:[127.0.0.1:1000->127.0.0.1:{2000 + n % 999}]>, "GET", 8192) = {n % 99}'
        )
        who = f"{n % 20}:serve"
        when = begin + n * 10_000
        rows.append(Row(when, "syscall", text, 100, 100, who, 4_000, n + 1, name, n % 50 == 0))
    return rows


def longest(directory: Path) -> str:
    """Return the test with the longest trace."""
    _, name = max(
        (os.path.getsize(path), test)
        for test, row in read_run(directory).cells.items()
        for cell in row.values()
        for attempt in cell.attempts
        if (path := directory / attempt.directory / "strace.txt").exists()
    )
    return name


def size(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def measure_writing(directory: Path) -> None:
    began = time.perf_counter()
    write_report([read_run(directory)], directory)
    print(f"written in {time.perf_counter() - began:.2f} s")
    own = [*directory.glob("*/report.js"), *(directory / DATA_FOLDER).iterdir()]
    own += [directory / PAGE_FILE, directory / artifact_names.RESULTS_FILE]
    rest = size(list(directory.rglob("*"))) - size(own)
    share = f", {size(own) / rest:.1%} of the recordings" if rest > size(own) else ""
    print(f"size: {size(own) / 1e6:.1f} MB{share}")


def measure_page(page: Page, url: str, test: str) -> None:
    page.goto(url)
    print(f"opened in {page.evaluate(OPENED):.0f} ms")
    taken = [page.evaluate(FILTERED, text) for text in ("test_number_1", "fail", "zzz", "")]
    print(f"filtered in {max(taken):.0f} ms at most, {sum(taken) / len(taken):.0f} ms on average")
    page.evaluate("test => { location.hash = eventletReport.matrix.address(test); }", test)
    page.wait_for_selector("canvas.timeline", timeout=60_000)
    events = page.evaluate("document.querySelector('canvas.timeline').timeline.data.t.length")
    frames, slowest = page.evaluate(ZOOMED)
    print(f"timeline of {events:,} events: {frames:.0f} frames/s, {slowest:.1f} ms at most to draw")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        if len(sys.argv) > 1:
            directory = Path(sys.argv[1])
            test = longest(directory)
        else:
            directory = Path(scratch)
            test = make_run(directory)
        measure_writing(directory)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=FLAGS
            )
            page = browser.new_page(viewport={"width": 1400, "height": 900})
            said: list[str] = []
            page.on("console", lambda message: said.append(message.text))
            measure_page(page, (directory / PAGE_FILE).absolute().as_uri(), test)
            print(f"console: {json.dumps(said) if said else 'nothing'}")
            browser.close()


if __name__ == "__main__":
    main()
