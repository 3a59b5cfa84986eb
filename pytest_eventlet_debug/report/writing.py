"""Write the report, and the summary for a job's page, when a run has ended.

What that takes is imported then: nothing of it may delay the first test.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterator
import contextlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.collector import collector_paused

if TYPE_CHECKING:
    from pytest_eventlet_debug.report.data import Run
    from pytest_eventlet_debug.report.results import Results
    from pytest_eventlet_debug.reruns.verdicts import Verdict


class ReportWriter:
    """Writes what people look at once all that a run records is there; a plugin object.

    :param gathering: knows how the tests end.
    :param run: names the run. There is no report where nothing of it is recorded.
    """

    NAME = "eventlet-debug-report"

    def __init__(
        self, config: pytest.Config, settings: Settings, gathering: Gathering, run: str
    ) -> None:
        self._config = config
        self._run = run
        self._gathering = gathering
        self._settings = settings
        self._lines: list[str] = []
        self._pid = unpatched.getpid()

    # Before the last recordings are waited for; and after all that judges the run and RunEnd, which
    # completes run.json, but before the terminal's wrapper shows the summary.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self) -> Generator[None, object, object]:
        is_wanted = self._is_wanted
        with collector_paused():  # the process is about to end
            if is_wanted:
                self._prepare()
        result = yield
        with collector_paused():
            if is_wanted:
                self._write()
        return result

    @property
    def _is_wanted(self) -> bool:
        # In a fork it would read its own trace for as long as it writes that. Without tests there
        # was --collect-only, or a usage error.
        return unpatched.getpid() == self._pid and self._gathering.any

    def _prepare(self) -> None:
        # What fails now fails again, and is reported then.
        with contextlib.suppress(Exception):
            if self._has_recorded():
                from pytest_eventlet_debug.report import page

                page.prepare(str(self._config.rootpath), self._settings.artifacts)

    def _write(self) -> None:
        has_recorded = self._has_recorded()
        summary = self._settings.summary_file
        if has_recorded:
            with self._noting("the report is not written"):
                self._lines.append(f"report: {self._write_report()}")
            allure = getattr(self._config.option, "allure_report_dir", None)
            if allure:
                with self._noting("nothing is attached to allure's results"):
                    from pytest_eventlet_debug.report import allure_attachments

                    allure_attachments.attach(self._recorded, Path(allure))
        if summary is not None:
            with self._noting("the summary is not written"):
                from pytest_eventlet_debug.report import markdown

                run = self._recorded if has_recorded else None
                markdown.write(self._results, run, summary)

    def _write_report(self) -> Path:
        from pytest_eventlet_debug.artifact_names import RESULTS_FILE
        from pytest_eventlet_debug.report import page
        from pytest_eventlet_debug.report import results

        directory = self._settings.artifacts
        results.write(self._results, directory / RESULTS_FILE)
        return page.write_report([self._recorded], directory)

    @cached_property
    def _recorded(self) -> Run:
        """What is in the run's directory, once its results are written there."""
        from pytest_eventlet_debug.report.data import read_run

        return read_run(self._settings.artifacts, just_ended=True)

    def _has_recorded(self) -> bool:
        """Say whether the directory for the artifacts holds those of this run."""
        if not self._settings.artifacts.is_dir():
            return False
        from pytest_eventlet_debug.artifact_records import read_run

        record = read_run(self._settings.artifacts)
        return record is not None and record.run == self._run

    @cached_property
    def _results(self) -> Results:
        from pytest_eventlet_debug.report.run_results import redacted
        from pytest_eventlet_debug.report.run_results import results_of

        results = results_of(self._gathering, self._run, self._verdicts(), self._upgrade())
        return redacted(results, self._settings.redact)

    def _verdicts(self) -> tuple[Verdict, ...]:
        if not self._settings.needs_children:
            return ()
        from pytest_eventlet_debug.reruns.differences import HubDifferences

        found = HubDifferences.of(self._config)
        return found.verdicts if found is not None else ()

    def _upgrade(self) -> tuple[str, ...]:
        if self._settings.compare is None:
            return ()
        from pytest_eventlet_debug.upgrade.check import UpgradeCheck

        check: UpgradeCheck | None = self._config.pluginmanager.getplugin(UpgradeCheck.NAME)
        return check.lines if check is not None else ()

    @contextlib.contextmanager
    def _noting(self, what: str) -> Iterator[None]:
        """Keep out of the run whatever goes wrong: its tests have ended as they have."""
        try:
            yield
        except OSError as error:
            named = error.strerror and error.filename
            why = f"{error.strerror}: {error.filename}" if named else str(error)
            self._lines.append(f"{what}: {why}")
        except Exception as error:
            self._lines.append(f"{what}: {type(error).__name__}: {error}")

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._lines:
            terminalreporter.line(line)
