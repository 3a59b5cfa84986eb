"""Run some tests again, in fresh processes and out of the report's sight."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
import contextlib
from pathlib import Path
from typing import Any

import pytest

from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.assignment import Tracing
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children import signals
from pytest_eventlet_debug.children.ctrl_c import CtrlC
from pytest_eventlet_debug.children.hub_run import DEAD_WORKER
from pytest_eventlet_debug.children.hub_run import End
from pytest_eventlet_debug.children.hub_run import RunningTest
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.children.silence import Silence
from pytest_eventlet_debug.children.start import start_child
from pytest_eventlet_debug.hubs.ids import without_hub
from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.reruns.stress import stress
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.scratch import ScratchDirectory

_TICK_SECONDS = 0.2


class Rerun:
    """What one child reports of the tests that it runs again.

    The last of them is torn down with all fixtures that it shares with tests that do not run
    here. What goes wrong there is not its own unless it tore them down in the run, too.

    :param in_run: knows how the tests ended in the run.
    """

    def __init__(
        self, config: pytest.Config, hub: str | None, hub_in_ids: bool, in_run: Gathering
    ) -> None:
        self._config = config
        self._in_run = in_run
        self._gathering = Gathering(config, lambda: [hub or "default"], hub_in_ids)
        self._running: dict[str, RunningTest] = {}
        self._torn_down: dict[str, messages.TornDown] = {}

    def receive(self, message: messages.Message) -> None:
        """Take in what the child reports of its tests."""
        match message:
            case messages.LogStart(nodeid, location):
                self._running[nodeid] = RunningTest(location)
            case messages.LogFinish(nodeid):
                self._running.pop(nodeid, None)
            case messages.TornDown(nodeid):
                self._torn_down[nodeid] = message
            case messages.LogReport(_, data):
                report = self._config.hook.pytest_report_from_serializable(
                    config=self._config, data=data
                )
                if report.when == "teardown" and report.failed and not self._is_own(report):
                    report.outcome, report.longrepr = "passed", None
                if report.when == "setup":
                    self._torn_down.pop(report.nodeid, None)  # of an attempt before
                self._gathering.pytest_runtest_logreport(report)
                if report.when == DEAD_WORKER:
                    self._running.pop(report.nodeid, None)
                elif report.nodeid in self._running:
                    self._running[report.nodeid].note(report)

    def _is_own(self, report: pytest.TestReport) -> bool:
        """Say whether what failed in a teardown was torn down with the test in the run, too."""
        kept = self._in_run.kept(report.nodeid)
        if kept is None:  # it crashed or hung
            return True
        # Another plugin may have made the report, and says neither.
        failed: int | None = getattr(report, "eventlet_teardown_failed", None)
        if failed is not None:
            return failed >= kept
        # A hook failed, which may have looked at all that was torn down.
        again: int | None = getattr(report, "eventlet_kept", None)
        return again == kept or self._in_run.outcome(report.nodeid) == "error"

    def _ended_in_own(self, nodeid: str) -> bool:
        """Say the same of a teardown in which the process has ended."""
        kept, last = self._in_run.kept(nodeid), self._torn_down.get(nodeid)
        if kept is None or last is None:
            return True
        if last.failed:
            return last.left >= kept
        return last.left > kept or last.left == last.kept == kept

    def note_end(self, end: End, directory: Path) -> None:
        """Note in its recordings how the test that the child is in has ended.

        :param directory: the run's.
        """
        for nodeid, test in self._running.items():
            test.note_end(directory, nodeid, end)

    def attempts(self, end: End) -> dict[str, Attempt]:
        """Return how each test ended.

        :param end: what became of the test that the child was in when it ended.
        """
        attempts = {nodeid: self._gathering.attempt(nodeid) for nodeid in self._gathering.nodeids}
        for nodeid, test in self._running.items():
            directory = str(test.directory or "")
            in_teardown = "call" in test.phases or test.failed
            if in_teardown and not self._ended_in_own(nodeid):
                attempts[nodeid] = attempts[nodeid]._replace(directory=directory)
            else:
                attempts[nodeid] = Attempt(nodeid, end, directory=directory)
        return attempts


class Reruns:
    """Runs tests again with the command line of this run; the one mechanism for all who need it.

    :param gathering: knows which hub a test ran under, and is given the further attempts.
    :param run: names the run, for its artifacts.
    :param own_pids: whether the processes have process ids of their own.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        gathering: Gathering,
        run: str,
        own_pids: bool,
    ) -> None:
        self._config = config
        self._settings = settings
        self._gathering = gathering
        self._run = run
        self._own_pids = own_pids
        #: Whether Ctrl-C has ended all reruns.
        self.interrupted = False

    @property
    def possible(self) -> bool:
        """Whether tests can be run while nobody looks: not those that open a debugger."""
        option = self._config.option
        return not (self.interrupted or option.usepdb or option.trace or option.collectonly)

    def repeat(self, nodeids: Iterable[str], times: int, tracing: Tracing = "off") -> None:
        """Run tests some more times, each time in fresh processes, and note their attempts."""
        by_hub: dict[str | None, list[str]] = {}
        for nodeid in nodeids:
            by_hub.setdefault(self._hub_of(nodeid), []).append(nodeid)
        if not by_hub or not times:
            return
        of_all = {
            without_hub(nodeid, hub) if hub else nodeid
            for hub, of_hub in by_hub.items()
            for nodeid in of_hub
        }
        where = f" under {len(by_hub)} hubs" if len(by_hub) > 1 else ""
        how = {"off": "", "on": " with the tracers", "as asked": ""}[tracing]
        often = f", {times} times each" if times > 1 else ""
        self.say(f"rerunning {tests(len(of_all))}{where}{how}{often}")
        with stress() if self._settings.stress else contextlib.nullcontext():
            for _ in range(times):
                for of_hub in by_hub.values():
                    for nodeid, attempt in self.run(of_hub, tracing).items():
                        self._gathering.again.setdefault(nodeid, []).append(attempt)
        if tracing != "off":
            artifacts.await_completion(self._settings.artifacts, self._run)

    def _hub_of(self, nodeid: str) -> str | None:
        """Return the hub to run a test under, ``None`` for whatever is set."""
        return self._gathering.key(nodeid)[1] if self._settings.hubs else None

    def run(self, nodeids: Sequence[str], tracing: Tracing = "off") -> dict[str, Attempt]:
        """Run tests of one hub once more, in this order; return how each ended.

        One that ends its process is followed by the others in a fresh one. After Ctrl-C none runs.
        """
        attempts: dict[str, Attempt] = {}
        try:
            self._run_all(nodeids, tracing, attempts)
        except KeyboardInterrupt:
            self._be_interrupted()
        return attempts

    def _be_interrupted(self) -> None:
        """Let the run end with what is known; what is said of its tests is not to be lost."""
        self.interrupted = True
        self.say("Ctrl-C: no more tests are rerun")
        session: Any = self._config.pluginmanager.getplugin("session")
        session.exitstatus = pytest.ExitCode.INTERRUPTED

    def _run_all(
        self, nodeids: Sequence[str], tracing: Tracing, attempts: dict[str, Attempt]
    ) -> None:
        left = list(nodeids)
        tries = 2
        while left and tries and not self.interrupted:
            found = self._run_in_one_process(left, tracing)
            attempts.update((nodeid, found[nodeid]) for nodeid in left if nodeid in found)
            # A process that ended before its first test is tried once more.
            tries = 2 if any(nodeid in found for nodeid in left) else tries - 1
            left = [nodeid for nodeid in left if nodeid not in found]

    def _run_in_one_process(self, nodeids: Sequence[str], tracing: Tracing) -> dict[str, Attempt]:
        hub = self._hub_of(nodeids[0])
        process: ChildProcess | None = None

        def kill() -> None:
            if process is not None:
                process.kill()

        ctrl_c = CtrlC()
        with ScratchDirectory() as directory, signals.minded(kill, ctrl_c.come):
            # Its coverage data goes with the directory: the run has been measured.
            assignment = ChildAssignment(
                hub=hub,
                hubs=tuple(each.name for each in self._settings.hubs),
                run=self._run,
                own_pids=self._own_pids,
                tracing=tracing,
                is_rerun=True,
            )
            rerun = Rerun(self._config, hub, self._settings.hub_in_ids, self._gathering)
            try:
                process = start_child(self._config, assignment, directory, "rerun", nodeids)
                end = self._listen(process, rerun, ctrl_c)
                if tracing != "off":  # while the helper still waits to complete it
                    rerun.note_end(end, self._settings.artifacts)
            finally:
                kill()
                if process is not None:
                    process.close()
        ctrl_c.look()
        return rerun.attempts(end)

    def _listen(self, process: ChildProcess, rerun: Rerun, ctrl_c: CtrlC) -> End:
        """Hear a child out; return what became of a test that it has not ended.

        :raises KeyboardInterrupt: Ctrl-C has come.
        """
        silence, timeout = Silence(), self._settings.timeout
        while True:
            ctrl_c.look()
            ended = process.ended()  # its last words are in the socket then
            if unpatched.wait_readable([process.descriptor], 0 if ended else _TICK_SECONDS):
                heard = process.read()
                if heard is None:
                    return "crashed"
                silence = Silence()
                for message in heard:
                    rerun.receive(message)
                    if isinstance(message, messages.AWAITED):
                        process.go_on()
            elif ended:
                return "crashed"
            elif (
                timeout is not None
                and silence.exceeds(timeout, process.run_delays)
                and not unpatched.wait_readable([process.descriptor], 0)
            ):
                return "hung"

    def say(self, line: str) -> None:
        """Print a line of ours after the tests'."""
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            pytest_internals.end_line(self._config)
            terminal.write_line(line)
