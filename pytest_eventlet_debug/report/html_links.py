"""Links to what was recorded of a test, in its row of pytest-html's report."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
import os
from pathlib import Path
from urllib.parse import quote

import pytest

from pytest_eventlet_debug.artifact_names import CALLGRIND_FILE
from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_names import TASKS_FILE
from pytest_eventlet_debug.report.opening import fragment
from pytest_eventlet_debug.report.page import PAGE_FILE
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY
from pytest_eventlet_debug.report_properties import ERROR_PROPERTY

# What a reader may open, what the link says, and the tracer that records it.
_LINKED = (
    (STRACE_FILE, "strace", "strace"),
    (CAPTURE_FILE, "packets", "pcap"),
    (CALLGRIND_FILE, "profile", "cprofile"),
    (TASKS_FILE, "tasks", None),
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
        yield extras.url(f"{page}{fragment(self._test_of(report.nodeid))}", "report")
        errors = [str(value) for name, value in report.user_properties if name == ERROR_PROPERTY]
        for file, name, tracer in _LINKED:
            # Other processes may still be writing what a tracer has recorded.
            comes = tracer in self._tracers and not any(
                error.startswith(f"{tracer}:") for error in errors
            )
            if comes or (directory / file).exists():
                yield extras.url(self._relative(directory / file), name)

    def _relative(self, path: Path) -> str:
        return quote(os.path.relpath(path, self._folder))
