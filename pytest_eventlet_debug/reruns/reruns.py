"""Run some tests again, in fresh processes and out of the report's sight."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import json
from pathlib import Path
import tempfile
from typing import Any

import pytest

from pytest_eventlet_debug.children import coverage
from pytest_eventlet_debug.children import messages as wire
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.outcomes.categories import category_of
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.outcomes import Outcomes
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import unpatched

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

    def receive(self, message: wire.Message) -> None:
        """Take in what the child reports of its tests."""
        kind, content = message
        if kind == "logstart":
            self._running[content[0]] = None
        elif kind == "logfinish":
            self._running.pop(content[0], None)
        elif kind == "report":
            hook: Any = self._config.hook
            report = hook.pytest_report_from_serializable(config=self._config, data=content)
            self._outcomes.note(report.nodeid, category_of(self._config, report))
            if not hasattr(report, "context"):
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
        with tempfile.TemporaryDirectory(prefix="pytest-eventlet-debug-") as name:
            directory = Path(name)
            rest = directory / "rest.json"
            rest.write_text(json.dumps(list(nodeids)))
            process = self._start(hub, rest, directory)
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

    def _start(self, hub: str | None, rest: Path, directory: Path) -> ChildProcess:
        # Its coverage data goes with the directory: the run has been measured.
        environment = unpatched.environment(**coverage.environment(self._config, rest))
        if hub is not None:
            environment["EVENTLET_HUB"] = hub
        return ChildProcess(
            {
                "hub": hub,
                "hubs": [each.name for each in self._settings.hubs],
                "run": self._run,
                "rest": str(rest),
                "maxfail": 0,
                "stepwise_skip": False,
                "terminal": False,
            },
            [str(argument) for argument in self._config.invocation_params.args],
            environment=environment,
            working_directory=self._config.invocation_params.dir,
            stdout=directory / "out",
            stderr=directory / "err",
            interactive=False,
            own_pids=self._own_pids,
        )

    def _listen(self, process: ChildProcess, rerun: Rerun) -> Outcome:
        """Hear a child out; return what became of a test that it has not ended."""
        heard = unpatched.monotonic()
        while True:
            if unpatched.wait_readable([process.descriptor], _TICK_SECONDS):
                messages = process.read()
                if messages is None:
                    return "crashed"
                heard = unpatched.monotonic()
                for message in messages:
                    rerun.receive(message)
                    if message.kind in wire.AWAITED:
                        process.go_on()
            elif process.ended():
                return "crashed"
            timeout = self._settings.timeout
            if timeout is not None and unpatched.monotonic() - heard >= timeout:
                return "hung"
