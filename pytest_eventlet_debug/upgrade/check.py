"""``--eventlet-save`` and ``--eventlet-compare``: the file, the verdict, the exit status."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.reruns.reruns import Reruns
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.upgrade import comparison
from pytest_eventlet_debug.upgrade import saved_run
from pytest_eventlet_debug.upgrade.comparison import Kind
from pytest_eventlet_debug.upgrade.comparison import Verdict
from pytest_eventlet_debug.upgrade.recorder import Recorder
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError
from pytest_eventlet_debug.upgrade.verdict import format_verdict
from pytest_eventlet_debug.upgrade.verdict import renamed

# Changes that may be nothing but a test's mood.
_DOUBTFUL: tuple[Kind, ...] = ("regression", "flips", "fails", "fixed")


class UpgradeCheck:
    """Save the run and compare it with an earlier one; a plugin object.

    :param recorder: turns what happens into a saved run.
    :param gathering: knows how the tests end.
    :param reruns: runs some of them again.
    :raises SavedRunError: a file that cannot be read or written, or that is of another suite.
    """

    NAME = "eventlet-debug-upgrade"

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        recorder: Recorder,
        gathering: Gathering,
        reruns: Reruns,
    ) -> None:
        self._config = config
        self._settings = settings
        self._recorder = recorder
        self._gathering = gathering
        self._reruns = reruns
        self._checked = False
        self._lines: list[str] = []
        self._saved: str | None = None
        self._bad = False
        self._old: SavedRun | None = None
        if settings.compare is not None:
            self._old = saved_run.read(settings.compare)
            comparison.check_same_suite(self._old, settings.compare, recorder.hubs)
            if not recorder.has_files_of(self._old):
                raise SavedRunError(
                    f"{settings.compare} was saved from a different suite ({self._old.suite}): "
                    f"none of its test files is here, such as "
                    f"{self._old.tests[0].test.partition('::')[0]}"
                )
        if settings.save is not None:
            saved_run.see_writable(settings.save)

    @property
    def lines(self) -> tuple[str, ...]:
        """What the comparison says, once the run is over."""
        return tuple(self._lines)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self._see_common_tests()

    @pytest.hookimpl(optionalhook=True, trylast=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._see_common_tests()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self) -> None:
        if not self._checked:  # the tests of several hubs are known by now
            self._see_common_tests()

    def _see_common_tests(self) -> None:
        self._checked = True
        if self._old is None or self._gathering.uncollected:
            return
        tests = {self._gathering.key(nodeid)[0] for nodeid in self._recorder.collected}
        try:
            comparison.check_common_tests(self._old, self._settings.compare, tests)
        except SavedRunError as error:
            raise pytest.UsageError(str(error)) from None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.exitstatus == pytest.ExitCode.USAGE_ERROR or self._config.option.collectonly:
            return
        # Tests that ran in this process may have patched for good what is called here.
        with Shield(self._lines.append, "the run could not be compared"):
            self._finish(session)

    def _finish(self, session: pytest.Session) -> None:
        new = self._recorder.run(session)
        self._save(new)
        if self._old is None:
            return
        verdict = comparison.compare(self._old, new)
        if self._run_again(verdict, new):
            new = self._recorder.run(session)
            self._save(new)
            verdict = comparison.compare(self._old, new)
        shown = renamed(verdict, self._gathering.shown)
        self._lines += format_verdict(shown, self._old, self._settings.compare)
        self._bad = verdict.worse
        if self._settings.compare_fail:
            self._judge(session, verdict, new)

    def _run_again(self, verdict: Verdict, new: SavedRun) -> bool:
        """Run what changed some more times, unless the run was broken off; say if it ran."""
        changed = {(each.test, each.hub) for kind in _DOUBTFUL for each in verdict.of(kind)}
        changed |= {(each.test, each.hub) for each in verdict.slower}
        times = self._settings.compare_reruns
        if not changed or not times or new.incomplete or not self._reruns.possible:
            return False
        nodeids = [each for each in self._gathering.nodeids if self._gathering.key(each) in changed]
        self._reruns.repeat(nodeids, times, "as asked")
        return True

    def _judge(self, session: pytest.Session, verdict: Verdict, new: SavedRun) -> None:
        """Let the exit status tell of regressions alone."""
        ok, failed = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED
        if verdict.worse and session.exitstatus == ok:
            session.exitstatus = failed
        elif (
            session.exitstatus == failed
            and verdict.compared
            and not verdict.worse
            and not new.incomplete
        ):
            session.exitstatus = ok
            self._lines.append("exit status 0: with --eventlet-compare-fail only regressions count")

    def _save(self, run: SavedRun) -> None:
        if self._settings.save is None:
            return
        try:
            saved_run.write(self._settings.save, run)
        except OSError as error:
            why = error.strerror or error
            self._saved = f"the run could not be saved to {self._settings.save} ({why})"
        else:
            self._saved = f"saved to {self._settings.save}"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._lines:
            terminalreporter.section("eventlet upgrade", "=", red=self._bad)
        for line in (*self._lines, self._saved):
            if line is not None:
                terminalreporter.line(line)
