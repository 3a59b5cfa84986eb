"""Processes that run tests again, one after the other, and what they report."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import itertools
from pathlib import Path

import pytest

from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children import signals
from pytest_eventlet_debug.children.ctrl_c import CtrlC
from pytest_eventlet_debug.children.hub_run import DEAD_WORKER
from pytest_eventlet_debug.children.hub_run import End
from pytest_eventlet_debug.children.hub_run import RunningTest
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.children.silence import Silence
from pytest_eventlet_debug.children.start import Spare
from pytest_eventlet_debug.children.start import start_child
from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.scratch import ScratchDirectory

_TICK_SECONDS = 0.2


class StartError(Exception):
    """No process can be started, as there is no room for its files, for instance."""


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """Raise a :exc:`StartError` where a process cannot be started, or has no room."""
    try:
        yield
    except OSError as error:
        raise StartError(f"no process can be started: {error}") from None


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
            case messages.PhaseBegins(nodeid, phase, at_ns) if nodeid in self._running:
                self._running[nodeid].begin(phase, at_ns)
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


class Series:
    """Runs one part of the tests after the other, each in processes of its own.

    A context manager. The process for the next part starts ahead.

    :param in_run: knows how the tests ended in the run.
    :param assignments: what the processes of each part are told.
    :raises StartError: there is no room for their directory.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        in_run: Gathering,
        assignments: Sequence[ChildAssignment],
    ) -> None:
        self._config = config
        self._settings = settings
        self._in_run = in_run
        self._assignments = assignments
        # Coverage data goes with the directory: the run has been measured.
        with starting():
            self._directory = ScratchDirectory()
        self._spare = Spare(config, settings, self._directory.path)
        self._labels = (f"rerun-{number}" for number in itertools.count(1))
        self._label = next(self._labels)
        self._process: ChildProcess | None = None

    def __enter__(self) -> Series:
        return self

    def __exit__(self, *exception: object) -> None:
        self._clean_up()

    def run(self, number: int, nodeids: Sequence[str]) -> Iterator[dict[str, Attempt]]:
        """Run tests in this order; yield how those of each process ended.

        One that ends its process is followed by the others in a fresh one.

        :param number: the part's.
        :raises KeyboardInterrupt: Ctrl-C has come.
        :raises StartError: none can be started.
        """
        left = list(nodeids)
        tries = 2
        while left and tries:
            attempts = self._run_in_one_process(number, left)
            found = {nodeid: attempts[nodeid] for nodeid in left if nodeid in attempts}
            yield found
            # A process that ended before its first test is tried once more.
            tries = 2 if found else tries - 1
            left = [nodeid for nodeid in left if nodeid not in found]

    def _run_in_one_process(self, number: int, nodeids: Sequence[str]) -> dict[str, Attempt]:
        assignment = self._assignments[number]
        rerun = Rerun(self._config, assignment.hub, self._settings.hub_in_ids, self._in_run)
        ctrl_c = CtrlC()
        with signals.minded(self._clean_up, ctrl_c.come):
            try:
                process = self._start(assignment, nodeids)
                # While the one before it starts, and does not run its tests yet.
                for following in self._assignments[number + 1 : number + 2]:
                    self._spare.prepare(following, self._label)
                end = self._listen(process, rerun, ctrl_c)
                if assignment.tracing != "off":  # while the helper still waits to complete it
                    rerun.note_end(end, self._settings.artifacts)
            finally:
                self._end()
        ctrl_c.look()
        return rerun.attempts(end)

    def _start(self, assignment: ChildAssignment, nodeids: Sequence[str]) -> ChildProcess:
        label, self._label = self._label, next(self._labels)
        directory = self._directory.path
        with starting():
            self._process = start_child(
                self._config, assignment, directory, label, nodeids, self._spare
            )
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            process, self._process = self._process, None
            process.close()

    def _clean_up(self) -> None:
        """End all processes, perhaps in a signal's handler, and remove what they wrote."""
        self._spare.close()
        if self._process is not None:
            self._process.kill()
        self._directory.remove()

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
