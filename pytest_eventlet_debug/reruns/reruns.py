"""Run some tests again, in fresh processes and out of the report's sight."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import pytest

from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.children.start import start_child
from pytest_eventlet_debug.outcomes.categories import category_of
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.outcomes import Outcomes
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.scratch import ScratchDirectory

_TICK_SECONDS = 0.2


class Rerun:
    """What one child says of the tests that it runs again.

    ``seconds`` has the time that each took, setup and teardown included.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._outcomes = Outcomes()
        self._running: dict[str, None] = {}
        self.seconds: dict[str, float] = {}

    def receive(self, message: messages.Message) -> None:
        """Take in what the child reports of its tests."""
        match message:
            case messages.LogStart(nodeid):
                self._running[nodeid] = None
            case messages.LogFinish(nodeid):
                self._running.pop(nodeid, None)
            case messages.LogReport(_, data):
                self._report(data)

    def _report(self, data: dict[str, Any]) -> None:
        hook: Any = self._config.hook
        report = hook.pytest_report_from_serializable(config=self._config, data=data)
        self._outcomes.note(report.nodeid, category_of(self._config, report))
        if not hasattr(report, "context"):  # a subtest's time is in its test's call
            before = self.seconds.get(report.nodeid, 0.0)
            self.seconds[report.nodeid] = before + report.duration

    def outcomes(self, end: Outcome) -> Mapping[str, Outcome]:
        """Return how each test ended.

        :param end: what became of the test that the child was in when it ended.
        """
        return {**self._outcomes.latest, **dict.fromkeys(self._running, end)}


class Reruns:
    """Runs tests again with the command line of this run.

    :param run: names the run, for its artifacts.
    :param own_pids: whether the processes have process ids of their own.
    """

    def __init__(self, config: pytest.Config, settings: Settings, run: str, own_pids: bool) -> None:
        self._config = config
        self._settings = settings
        self._run = run
        self._own_pids = own_pids

    @property
    def possible(self) -> bool:
        """Whether tests can be run while nobody looks: not those that open a debugger."""
        return not (self._config.option.usepdb or self._config.option.trace)

    def run(self, hub: str | None, nodeids: Sequence[str]) -> dict[str, tuple[Outcome, float]]:
        """Run tests of one hub once more; return the outcome and the seconds of each."""
        with ScratchDirectory() as directory:
            # Its coverage data goes with the directory: the run has been measured.
            assignment = ChildAssignment(
                hub=hub,
                hubs=tuple(each.name for each in self._settings.hubs),
                run=self._run,
                own_pids=self._own_pids,
            )
            process = start_child(self._config, assignment, directory, "rerun", nodeids)
            rerun = Rerun(self._config)
            try:
                end = self._listen(process, rerun)
            finally:
                process.kill()
                process.close()
        outcomes = rerun.outcomes(end)
        return {
            nodeid: (outcomes[nodeid], rerun.seconds.get(nodeid, 0.0))
            for nodeid in nodeids
            if nodeid in outcomes
        }

    def _listen(self, process: ChildProcess, rerun: Rerun) -> Outcome:
        """Hear a child out; return what became of a test that it has not ended."""
        last_heard = unpatched.monotonic()
        while True:
            if unpatched.wait_readable([process.descriptor], _TICK_SECONDS):
                heard = process.read()
                if heard is None:
                    return "crashed"
                last_heard = unpatched.monotonic()
                for message in heard:
                    rerun.receive(message)
                    if isinstance(message, messages.AWAITED):
                        process.go_on()
            elif process.ended():
                return "crashed"
            timeout = self._settings.timeout
            if timeout is not None and unpatched.monotonic() - last_heard >= timeout:
                return "hung"
