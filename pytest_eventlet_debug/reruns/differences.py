"""Tests whose outcome depends on the hub: seen once, and then again before it is believed."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import pytest

from pytest_eventlet_debug.children.controller import Controller
from pytest_eventlet_debug.children.hub_run import HubRun
from pytest_eventlet_debug.children.selection import chosen_hubs
from pytest_eventlet_debug.hubs.ids import without_hub
from pytest_eventlet_debug.outcomes.comparison import Comparison
from pytest_eventlet_debug.outcomes.comparison import compare_outcomes
from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.reruns.company import depends_on_company
from pytest_eventlet_debug.reruns.company import failed_in_run_alone
from pytest_eventlet_debug.reruns.company import run_in_company
from pytest_eventlet_debug.reruns.judgement import Ending
from pytest_eventlet_debug.reruns.judgement import Judgement
from pytest_eventlet_debug.reruns.judgement import ending_of
from pytest_eventlet_debug.reruns.judgement import judge
from pytest_eventlet_debug.reruns.reruns import Reruns
from pytest_eventlet_debug.reruns.verdicts import Verdict
from pytest_eventlet_debug.reruns.verdicts import of_alike
from pytest_eventlet_debug.reruns.verdicts import of_judged
from pytest_eventlet_debug.settings import Settings

#: Tests that run again at most. Where more differ, it is not the machine's mood.
MOST = 50

#: For how long, and in which share of their time, tests must have been without a CPU for that to
#: be mentioned. One hub after the other, on a machine that does nothing else, it is a hundredth.
_LONG_WITHOUT_CPU = 2.0
_MUCH_WITHOUT_CPU = 1 / 3


class HubDifferences:
    """Compare the hubs when all of them have run; a plugin object of the controller's process.

    :param gathering: knows how the tests end.
    :param reruns: runs some of them again.
    """

    NAME = "eventlet-debug-differences"

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        controller: Controller,
        gathering: Gathering,
        reruns: Reruns,
    ) -> None:
        self._config = config
        self._settings = settings
        self._controller = controller
        self._gathering = gathering
        self._reruns = reruns
        #: What differs, or ``None`` where there are no two hubs to compare.
        self.comparison: Comparison | None = None
        #: What became of the tests that differed at first, by their ids without a hub.
        self.judgements: dict[str, Judgement] = {}
        self._nodeids: dict[str, dict[str, str]] = {}
        self._in_company: dict[str, list[Attempt]] = {}
        #: Why hubs are not compared: they did not run to their end.
        self.unfinished: dict[str, str] = {}
        #: The tests that differ and were not rerun, as too many others do.
        self.not_rerun: frozenset[str] = frozenset()
        #: Which hubs' tests had to wait for a CPU for much of their time, and in which share of it.
        self.without_cpu: dict[str, float] = {}

    @classmethod
    def of(cls, config: pytest.Config) -> HubDifferences | None:
        """Return the one of a run, or ``None`` where no hubs are compared."""
        found: HubDifferences | None = config.pluginmanager.getplugin(cls.NAME)
        return found

    @pytest.hookimpl
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if self._controller.usage_error or self._config.option.collectonly:
            return
        self.comparison = self._compare()
        if self.comparison is None:
            return
        nodeids = self._nodeids = self._by_test(self.comparison.hubs)
        doubtful = [test for test, of_hubs in nodeids.items() if self._is_doubtful(of_hubs)]
        if self._reruns.possible and exitstatus in (
            pytest.ExitCode.OK,
            pytest.ExitCode.TESTS_FAILED,
        ):
            tests = self._gathering.unlike_first(
                {test: nodeids[test].values() for test in doubtful}
            )
            chosen = [each for test in tests[:MOST] for each in nodeids[test].values()]
            self._reruns.repeat(chosen, self._settings.reruns)
            if self._settings.reruns:
                self.not_rerun = frozenset(tests[MOST:])
            alone = [each for each in chosen if failed_in_run_alone(self._gathering.attempts(each))]
            self._in_company = run_in_company(
                self._reruns, self._gathering, alone, self._settings.reruns
            )
        differing = {each.test for each in self.comparison.differences}
        for test, of_hubs in nodeids.items():
            if test in differing or test in doubtful:
                self.judgements[test] = judge(self._endings(of_hubs))

    @cached_property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What to tell of each test that depends on its hub, once all of them have run."""
        found: list[Verdict | None] = []
        for test, of_hubs in self._nodeids.items():
            recordings = {
                hub: directory
                for hub, nodeid in of_hubs.items()
                if (directory := self._gathering.recording(nodeid))
            }
            judgement = self.judgements.get(test)
            if judgement is not None:
                attempts = {hub: self._gathering.attempts(each) for hub, each in of_hubs.items()}
                in_company = {hub: self._in_company.get(each, ()) for hub, each in of_hubs.items()}
                left_out = len(self._nodeids) > len(self.judgements)
                found.append(
                    of_judged(
                        test, judgement, attempts, recordings, self._findings, in_company, left_out
                    )
                )
            elif len(of_hubs) > 1:
                found.append(of_alike(test, recordings))
        return tuple(filter(None, found))

    def _findings(self, attempt: Attempt) -> Sequence[str]:
        """Return what the recordings of an attempt tell, a line each."""
        directory = self._gathering.traced.get(attempt.nodeid) or attempt.directory
        if not directory:
            return ()
        from pytest_eventlet_debug.recordings.findings import (
            text,  # only where something is recorded
        )
        from pytest_eventlet_debug.recordings.found import findings_of

        read = findings_of(Path(directory))
        return [text.line(finding) for finding in read.findings] if read is not None else ()

    def _compare(self) -> Comparison | None:
        runs = [run for run in self._controller.runs if run.wanted and not run.left_out]
        if len(runs) < 2:
            return None
        self.unfinished = {run.name: run.trouble for run in runs if run.trouble or not run.complete}
        self.without_cpu = {
            run.name: run.seconds_without_cpu / run.seconds
            for run in runs
            if run.seconds_without_cpu >= max(_LONG_WITHOUT_CPU, run.seconds * _MUCH_WITHOUT_CPU)
        }
        deselected = {without_hub(each, run.name) for run in runs for each in run.deselected}
        outcomes = {
            run.name: {
                test: outcome
                for nodeid, outcome in self._controller.replay.outcomes[run.name].latest.items()
                if (test := without_hub(nodeid, run.name)) not in deselected
            }
            for run in runs
        }
        chosen = chosen_hubs(self._config, tuple(outcomes))
        if self._choice_is_unknown(runs):
            for hub, tests in outcomes.items():
                for test in tests:
                    chosen.setdefault(test, set()).add(hub)
        return compare_outcomes(outcomes, excluded=self.unfinished, chosen=chosen)

    def _choice_is_unknown(self, runs: Sequence[HubRun]) -> bool:
        """Say whether tests may be missing on a hub by the user's choice, which nobody reports.

        ``--lf`` leaves out whole files, and pytest-xdist does not say what its workers deselect.
        """
        option = self._config.option
        if getattr(option, "lf", False):
            return True
        deselects = option.keyword or option.markexpr or option.deselect
        return bool(deselects) and any(run.has_workers for run in runs)

    def _by_test(self, hubs: tuple[str, ...]) -> dict[str, dict[str, str]]:
        """Return the node ids of each test that ran, by hub, in the order of the hubs."""
        found: dict[str, dict[str, str]] = {}
        for nodeid in self._gathering.nodeids:
            test, hub = self._gathering.key(nodeid)
            if hub in hubs:
                found.setdefault(test, {})[hub] = nodeid
        # Of hubs that run at once, any may have come first.
        return {
            test: {hub: nodeids[hub] for hub in hubs if hub in nodeids}
            for test, nodeids in found.items()
        }

    def _is_doubtful(self, of_hubs: Mapping[str, str]) -> bool:
        """Say whether a failure of the test looks like one hub's own, but was seen once."""
        endings = self._endings(of_hubs)
        if len(endings) < 2 or judge(endings).kind == "same":
            return False
        return any(each.bad for attempts in endings.values() for each in attempts)

    def _endings(self, of_hubs: Mapping[str, str]) -> dict[str, list[Ending]]:
        return {hub: [*map(ending_of, self._alike(nodeid))] for hub, nodeid in of_hubs.items()}

    def _alike(self, nodeid: str) -> list[Attempt]:
        """Return the attempts of a test that are to be compared, made in the same way."""
        in_company = self._in_company.get(nodeid, [])
        if depends_on_company(in_company):
            return [self._gathering.attempt(nodeid), *in_company]
        return self._gathering.attempts(nodeid)
