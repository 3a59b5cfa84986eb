"""What CI reads in pytest's JUnit XML: the hub of each case, and paths that lead on from there."""

from __future__ import annotations

from collections.abc import Generator
import os
from pathlib import Path

import pytest

from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.hubs.ids import add_hub
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY

#: Name of a property of each case, whether it ran or not.
HUB_OF_CASE = "eventlet_hub"


class JunitCases:
    """Completes the cases that pytest makes; a plugin object.

    :param path: what was given with ``--junitxml``; paths are relative to that file.
    :param hub: the hub of what no report says otherwise of, or ``None`` if none was asked for.
    """

    def __init__(self, config: pytest.Config, path: str, hub: str | None) -> None:
        self._config = config
        self._folder = Path(os.path.expandvars(path)).expanduser().absolute().parent
        self._hub = hub

    # A wrapper comes after pytest, which opens the case.
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_logreport(
        self, report: pytest.TestReport
    ) -> Generator[None, object, object]:
        result = yield
        has_no_teardown = hasattr(report, "eventlet_end") and report.when != "teardown"
        if report.when == "setup" or has_no_teardown:
            self._name_hub(report)
        if has_no_teardown and report.failed:  # or else it is rerun; at a teardown pytest does so
            pytest_internals.finish_junit_case(self._config, report)
        hub = self._hub_of(report)
        if report.when == "teardown" and report.failed and hub is not None:
            # If the call has failed as well, pytest opens a second case, and ends it at once.
            pytest_internals.add_to_last_junit_case(self._config, HUB_OF_CASE, hub)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> Generator[None, object, object]:
        result = yield
        if not report.passed:
            hub = self._name_hub(report)
            if hub is not None:
                pytest_internals.end_junit_case(
                    self._config, report, lambda name: add_hub(name, hub)
                )
        return result

    def _name_hub(self, report: pytest.TestReport | pytest.CollectReport) -> str | None:
        hub = self._hub_of(report)
        if hub is not None:
            pytest_internals.add_junit_property(self._config, report, HUB_OF_CASE, hub)
        return hub

    def _hub_of(self, report: pytest.TestReport | pytest.CollectReport) -> str | None:
        hub: str | None = getattr(report, "eventlet_hub", self._hub)
        return hub

    # Before pytest, which writes the file.
    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        for each in pytest_internals.junit_properties(self._config):
            if each.get("name") == DIRECTORY_PROPERTY:
                each.set("value", os.path.relpath(each.get("value", ""), self._folder))
