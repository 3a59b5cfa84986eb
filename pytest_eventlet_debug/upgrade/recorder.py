"""What a saved run holds, gathered from the reports of a run as it goes."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import platform
import time
from typing import Any

import pytest

from pytest_eventlet_debug.children.controller import Controller
from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.outcomes.categories import category_of
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.outcomes import Outcomes
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.upgrade import failure_text
from pytest_eventlet_debug.upgrade.distributions import Installed
from pytest_eventlet_debug.upgrade.saved_run import Failure
from pytest_eventlet_debug.upgrade.saved_run import Key
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedTest
from pytest_eventlet_debug.upgrade.saved_run import Uncollected

# Whose code is the outermost in the traceback of every test.
_AROUND_TESTS = frozenset({"pytest", "pluggy"})

_Report = pytest.TestReport | pytest.CollectReport


@dataclasses.dataclass
class Again:
    """How a test ended when it was run again.

    :param seconds: the shortest of its further runs.
    """

    outcomes: list[Outcome] = dataclasses.field(default_factory=list)
    seconds: float = float("inf")


class Recorder:
    """Gather what happens in a run, in the process that the user started; a plugin object.

    Where hubs have children, or pytest-xdist has workers, their reports come by here too.

    :param hubs: the names of the hubs that the tests run under.
    """

    def __init__(self, config: pytest.Config, settings: Settings, hubs: Sequence[str]) -> None:
        self._config = config
        self.hubs = tuple(hubs)
        self._hub_in_ids = settings.hub_in_ids
        # Now, for somebody may upgrade while the tests run.
        self._installed = Installed()
        self._started_ns, self._started = time.time_ns(), time.monotonic()
        self._outcomes = Outcomes()
        self._reported_hubs: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._failures: dict[str, Failure] = {}
        self._collected: set[str] = set()
        self._deselected: set[str] = set()
        self._stopped: str | None = None
        self.uncollected: dict[Key, Uncollected] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        nodeid = report.nodeid
        self._reported_hubs[nodeid] = getattr(report, "eventlet_hub", self.hubs[0])
        category = category_of(self._config, report)
        if report.when == "setup":
            self._seconds.pop(nodeid, None)  # of an attempt before
        self._outcomes.note(nodeid, category, getattr(report, "eventlet_end", None))
        if not hasattr(report, "context"):  # a subtest's time is in its test's call
            self._seconds[nodeid] = self._seconds.get(nodeid, 0.0) + report.duration
        if category == "rerun":
            self._failures.pop(nodeid, None)
        elif category != "xfailed" and not report.passed:
            self._failures.setdefault(nodeid, self._failure(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            hub = getattr(report, "eventlet_hub", self.hubs[0])
            self.uncollected[report.nodeid, hub] = Uncollected(
                report.nodeid, hub, "error" if report.failed else "skipped", self._failure(report)
            )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._collected.update(ids)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._deselected.update(item.nodeid for item in items)

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        self._stopped = str(excinfo.value) or excinfo.typename

    def pytest_internalerror(self, excrepr: object) -> None:
        self._stopped = "an internal error of pytest"

    @property
    def collected(self) -> set[str]:
        """The node ids of the tests that were found, as far as is known."""
        controller: Controller | None = self._config.pluginmanager.getplugin(Controller.NAME)
        if controller is not None:
            return {nodeid for run in controller.runs for nodeid in run.ids or ()}
        return self._collected

    @property
    def nodeids(self) -> list[str]:
        """The node ids of the tests that ran, in order."""
        return list(self._outcomes.latest)

    def key(self, nodeid: str) -> Key:
        """Return the test that a node id stands for, and its hub.

        A test that did not run, and an argument of the user's, have no hub but in their names.
        """
        reported = self._reported_hubs.get(nodeid)
        if not self._hub_in_ids:
            return nodeid, reported or self.hubs[0]
        test, hub = split_hub(nodeid, self.hubs if reported is None else [reported])
        return test, reported or hub or self.hubs[0]

    def _failure(self, report: _Report) -> Failure:
        if isinstance(report.longrepr, tuple):  # a skip: path, line, reason
            return Failure(failure_text.one_line(report.longrepr[2]))
        text = report.longreprtext
        printed = "\n".join(content for _, content in report.sections)
        files = failure_text.files(f"{printed}\n{text}")
        crash = getattr(report.longrepr, "reprcrash", None)
        error = failure_text.error_line(text)
        if crash is not None:  # there with --tb=no too
            error, files = str(crash.message), (crash.path, *files)
        involved = list(self._installed.owners(files, self._config.invocation_params.dir))
        while involved and involved[-1] in _AROUND_TESTS:
            involved.pop()
        return Failure(failure_text.one_line(error), tuple(involved), failure_text.modules(error))

    def run(self, session: pytest.Session, again: Mapping[str, Again]) -> SavedRun:
        """Return the run as it stands now.

        :param again: how tests ended that were run again, by node id.
        """
        config = self._config
        return SavedRun(
            suite=config.rootpath.name,
            command=tuple(str(argument) for argument in config.invocation_params.args),
            started_ns=self._started_ns,
            seconds=round(time.monotonic() - self._started, 3),
            exit_status=int(session.exitstatus),
            incomplete=self._incomplete(session),
            hubs=self.hubs,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            platform=unpatched.platform_name(),
            distributions=self._installed.distributions,
            selection=tuple(self._selection()),
            deselected=tuple(sorted({self.key(nodeid)[0] for nodeid in self._deselected})),
            tests=tuple(
                self._test(nodeid, outcome, again.get(nodeid, Again()))
                for nodeid, outcome in self._outcomes.latest.items()
            ),
            uncollected=tuple(self.uncollected.values()),
        )

    def _test(self, nodeid: str, outcome: Outcome, again: Again) -> SavedTest:
        test, hub = self.key(nodeid)
        return SavedTest(
            test=test,
            hub=hub,
            outcome=outcome,
            seconds=round(min(self._seconds.get(nodeid, 0.0), again.seconds), 6),
            attempts=(*self._outcomes.attempts.get(nodeid, ()), outcome, *again.outcomes),
            failure=self._failures.get(nodeid),
        )

    def _incomplete(self, session: pytest.Session) -> str | None:
        option: Any = self._config.option
        stop = self._stopped or session.shouldfail or session.shouldstop
        if stop:
            return failure_text.one_line(str(stop))
        if getattr(option, "lf", False):
            return "--last-failed"
        left = len(self.collected - self._outcomes.latest.keys())
        return f"{left} of {len(self.collected)} tests did not run" if left else None

    def _selection(self) -> list[str]:
        """Return what the run was asked for, as node ids relative to the root."""
        config = self._config
        if config.option.pyargs:
            return ["."]
        asked = []
        for argument in config.args:
            path, colons, rest = self.key(argument)[0].partition("::")
            absolute = os.path.normpath(config.invocation_params.dir / path)
            asked.append(
                Path(os.path.relpath(absolute, config.rootpath)).as_posix() + colons + rest
            )
        return asked

    def has_files_of(self, run: SavedRun) -> bool:
        """Say whether any of the files that a run's tests came from is here."""
        config = self._config
        named = [Path(argument.partition("::")[0]) for argument in config.args]
        folders = [config.rootpath, config.invocation_params.dir]
        for path in named:
            absolute = config.invocation_params.dir / path
            folders += [absolute, absolute.parent]
        files = {each.test.partition("::")[0] for each in run.tests}
        return not files or any((folder / file).exists() for folder in folders for file in files)
