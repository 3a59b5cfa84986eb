"""Write the report, and the summary for a job's page, when a run has ended."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path

import pytest

from pytest_eventlet_debug.artifacts import read_run as read_record
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.report import results
from pytest_eventlet_debug.report import run_results
from pytest_eventlet_debug.report.results import RESULTS_FILE
from pytest_eventlet_debug.report.results import Results
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import unpatched


class ReportWriter:
    """Writes what people look at once all that a run records is there; a plugin object.

    :param gathering: knows how the tests end.
    :param run: names the run. There is no report where nothing of it is recorded.
    """

    def __init__(self, settings: Settings, gathering: Gathering, run: str) -> None:
        self._run = run
        self._gathering = gathering
        self._directory = settings.artifacts
        self._summary = settings.summary_file
        self._lines: list[str] = []
        self._pid = unpatched.getpid()

    # After RunEnd, which completes what the report is made from.
    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        if unpatched.getpid() != self._pid:
            return  # in a fork, which would read its own trace for as long as it writes it
        if not self._gathering.any:
            return  # --collect-only, or a usage error
        gathered = run_results.results_of(self._gathering, self._run)
        record = read_record(self._directory)
        recorded = record is not None and record.run == self._run
        if recorded:
            with self._noting("the report is not written"):
                self._lines.append(f"report: {_write_report(gathered, self._directory)}")
        if self._summary is not None:
            with self._noting("--eventlet-summary"):
                directory = self._directory if recorded else None
                _write_summary(gathered, directory, self._summary)

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Keep out of the run whatever goes wrong: its tests have ended as they have."""
        try:
            yield
        except Exception as error:
            self._lines.append(f"{what}: {type(error).__name__}: {error}")

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._lines:
            terminalreporter.line(line)


def _write_report(gathered: Results, directory: Path) -> Path:
    from pytest_eventlet_debug.report import page  # Jinja2 takes time to import
    from pytest_eventlet_debug.report.data import read_run

    results.write(gathered, directory / RESULTS_FILE)
    return page.write_report([read_run(directory)], directory)


def _write_summary(gathered: Results, directory: Path | None, path: Path) -> None:
    from pytest_eventlet_debug.report import markdown  # only where it is used

    markdown.write(gathered, directory, path)
