"""Links to what was recorded of a test, in its row of pytest-html's report."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from pytest_eventlet_debug.artifact_names import PAGE_FILE
from pytest_eventlet_debug.artifact_names import TASKS_FILE
from pytest_eventlet_debug.report.opening import fragment
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY
from pytest_eventlet_debug.report_properties import ERROR_PROPERTY

# What the link says, the tracer that records it, and the tab of the page that shows it.
_RECORDED = (
    ("strace", "strace", "calls"),
    ("packets", "pcap", "packets"),
    ("profile", "cprofile", "profile"),
)


class HtmlLinks:
    """Adds the links to reports before pytest-html takes them in; a plugin object.

    :param page: what was given with ``--html``; the links are relative to that file.
    :param artifacts: the run's directory.
    :param tracers: the names of those that record each test.
    :param test_of: returns the id without its hub.
    """

    def __init__(
        self,
        page: str,
        artifacts: Path,
        tracers: Collection[str],
        test_of: Callable[[str], str],
    ) -> None:
        self._folder = Path(os.path.expandvars(page)).expanduser().absolute().parent
        self._artifacts = artifacts
        self._tracers = tracers
        self._test_of = test_of

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A report before the last phase may name the directory of an earlier attempt.
        if report.when != "teardown" and not hasattr(report, "eventlet_end"):
            return
        named = [value for name, value in report.user_properties if name == DIRECTORY_PROPERTY]
        if named:
            links = self._links(report, Path(str(named[-1])))
            report.extras = [*getattr(report, "extras", ()), *links]  # type: ignore[attr-defined]

    def _links(self, report: pytest.TestReport, directory: Path) -> Iterator[dict[str, str | None]]:
        from pytest_html import extras  # there when this object is

        page = self._relative(self._artifacts / PAGE_FILE)
        test = f"{page}{fragment(self._test_of(report.nodeid))}"
        yield extras.url(test, "report")
        errors = [str(value) for name, value in report.user_properties if name == ERROR_PROPERTY]
        for name, tracer, tab in _RECORDED:
            # The files are still being written, and long ones are packed then.
            if tracer in self._tracers and not any(
                error.startswith(f"{tracer}:") for error in errors
            ):
                yield extras.url(f"{test}?tab={tab}", name)
        if (directory / TASKS_FILE).exists():
            yield extras.url(self._relative(directory / TASKS_FILE), "tasks")

    def _relative(self, path: Path) -> str:
        return quote(os.path.relpath(path, self._folder))
