"""What a saved run holds, gathered from the reports of a run as it goes."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
import platform
from typing import Any

import pytest

from pytest_eventlet_debug.children.controller import Controller
from pytest_eventlet_debug.node_ids import absolute_id
from pytest_eventlet_debug.node_ids import relative_id
from pytest_eventlet_debug.outcomes import failure_text
from pytest_eventlet_debug.outcomes.cause import Cause
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.upgrade.distributions import Installed
from pytest_eventlet_debug.upgrade.saved_run import Failure
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedTest
from pytest_eventlet_debug.upgrade.saved_run import Uncollectable
from pytest_eventlet_debug.upgrade.saved_run import Uncollected

# Whose code is the outermost in the traceback of every test.
_AROUND_TESTS = frozenset({"pytest", "pluggy"})


class Recorder:
    """Gather what happens in a run, in the process that the user started; a plugin object.

    Where hubs have children, or pytest-xdist has workers, their reports come by here too.

    :param gathering: knows how the tests end.
    :param redact: takes out of a text what is not to be in it.
    """

    def __init__(
        self, config: pytest.Config, gathering: Gathering, redact: Callable[[str], str]
    ) -> None:
        self._config = config
        self._redact = redact
        self._gathering = gathering
        self.hubs = gathering.hubs
        # Now, for somebody may upgrade while the tests run.
        self._installed = Installed()
        self._started_ns, self._started = unpatched.time_ns(), unpatched.monotonic()
        self._collected: set[str] = set()
        self._deselected: set[str] = set()
        self._stopped: str | None = None

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

    def _failure(self, cause: Cause) -> Failure:
        involved = list(self._installed.owners(cause.files, self._config.invocation_params.dir))
        while involved and involved[-1] in _AROUND_TESTS:
            involved.pop()
        return Failure(
            self._redact(cause.message), tuple(involved), failure_text.modules(cause.message)
        )

    def run(self, session: pytest.Session) -> SavedRun:
        """Return the run as it stands now, with the attempts after it."""
        config = self._config
        return SavedRun(
            suite=config.rootpath.name,
            command=tuple(self._redact(str(each)) for each in config.invocation_params.args),
            started_ns=self._started_ns,
            seconds=round(unpatched.monotonic() - self._started, 3),
            exit_status=int(session.exitstatus),
            incomplete=self._incomplete(session),
            hubs=self.hubs,
            python=f"{platform.python_implementation()} {platform.python_version()}",
            platform=unpatched.platform_name(),
            distributions=self._installed.distributions,
            selection=tuple(self._selection()),
            deselected=tuple(sorted({self._test_of(nodeid) for nodeid in self._deselected})),
            tests=tuple(self._test(nodeid) for nodeid in self._gathering.nodeids),
            uncollected=tuple(self._uncollected()),
        )

    def _uncollected(self) -> Iterator[Uncollected]:
        for (node, hub), found in self._gathering.uncollected.items():
            kind: Uncollectable = "error" if found.outcome == "error" else "skipped"
            yield Uncollected(node, hub, kind, self._failure(found.cause))

    def _test_of(self, nodeid: str) -> str:
        return self._gathering.key(nodeid)[0]

    def _test(self, nodeid: str) -> SavedTest:
        test, hub = self._gathering.key(nodeid)
        first, *again = self._gathering.attempts(nodeid)
        earlier = self._gathering.earlier(nodeid)
        cause = None if first.outcome == "xfailed" else first.cause
        return SavedTest(
            test=test,
            hub=hub,
            outcome=first.outcome,
            seconds=round(min(each.seconds for each in (first, *again)), 6),
            attempts=(*earlier, first.outcome, *(each.outcome for each in again)),
            failure=None if cause is None else self._failure(cause),
        )

    def _incomplete(self, session: pytest.Session) -> str | None:
        option: Any = self._config.option
        stop = self._stopped or session.shouldfail or session.shouldstop
        if stop:
            return failure_text.one_line(str(stop))
        if getattr(option, "lf", False):
            return "--last-failed"
        left = len(self.collected.difference(self._gathering.nodeids))
        return f"{left} of {len(self.collected)} tests did not run" if left else None

    def _selection(self) -> list[str]:
        """Return what the run was asked for, as node ids relative to the root."""
        config = self._config
        if config.option.pyargs:
            return ["."]
        asked = map(self._test_of, config.args)
        return [relative_id(absolute_id(each, config), config) for each in asked]

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
