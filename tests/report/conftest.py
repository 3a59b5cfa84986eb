"""A real run with hostile tests, its report, and Chromium to look at it."""

from __future__ import annotations

from collections.abc import Iterator
import shutil
import subprocess
import sys

from hostile_run import SUITE
from hostile_run import Recorded
from hostile_run import line_of
from hostile_run import report
from playwright.sync_api import Browser
from playwright.sync_api import Page
from playwright.sync_api import expect
from playwright.sync_api import sync_playwright
import pytest

from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

#: What is awaited comes at once, unless others have the CPUs.
PATIENCE_MILLISECONDS = 60_000
expect.set_options(PATIENCE_MILLISECONDS)


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """A run under two hubs with every tracer, with a finding that is as hostile as its tests."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    folder = tmp_path_factory.mktemp("hostile")
    lines = [line[4:] for line in SUITE.splitlines()]
    (folder / "test_hostile.py").write_text("\n".join(lines))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:html"]
    tracers = ["--strace", "--cprofile", "--eventlet-isolate", "--pcap"]
    ran = subprocess.run(
        [*command, "--eventlet-hub=poll,selects", *tracers],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1, ran.stdout + ran.stderr
    run = Recorded(folder / "eventlet-debug", ran.stdout)
    test = run.of("differs-selects")
    evidence = Evidence("connect(", "strace.txt", line_of(test / "strace.txt", "connect("))
    finding = Finding("storm", "<script>window.attacked=1</script>", (evidence,))
    findings_file.write(test, findings_file.found([finding]))
    report(run.directory)
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window.

    It ends with its module: while it is there, asyncio's running loop is Playwright's.
    """
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A new page. It may say nothing on its console, and ask for nothing that is not a file."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(PATIENCE_MILLISECONDS)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("dialog", lambda dialog: said.append(dialog.message))
    page.on("request", lambda request: said.extend(_outside(request.url)))
    yield page
    page.close()
    assert said == []


def _outside(url: str) -> list[str]:
    return [] if url.startswith(("file:", "data:", "blob:")) else [url]
