"""Tests whose worker of pytest-xdist has died in them: what is recorded of them."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug.children.hub_run import RunningTest
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.shield import Shield


class DeadWorkers:
    """Name the recordings of such a test in its report; a plugin object beside xdist's own.

    :param settings: say where the run's directory is, if it was opened under the name *run*.
    """

    def __init__(self, settings: Settings, run: str) -> None:
        self._settings = settings
        self._run = run
        self._running: dict[str, RunningTest] = {}

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._running[nodeid] = RunningTest(location)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self._running:
            self._running[report.nodeid].note(report)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._running.pop(nodeid, None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_handlecrashitem(self, crashitem: str, report: pytest.TestReport) -> None:
        test = self._running.pop(crashitem, None)
        with Shield():
            directory = artifacts.opened_by(self._settings.artifacts, self._run)
            if test is None or directory is None:
                return
            test.note_end(directory, crashitem, "crashed")
            if test.directory is not None:
                report.user_properties.append((DIRECTORY_PROPERTY, str(test.directory)))
                report.sections.append(("eventlet-debug", f"artifacts: {test.directory}"))
