"""What children report, replayed as hook calls in the controller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.children import benchmarks
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children.hub_run import DEAD_WORKER
from pytest_eventlet_debug.children.hub_run import End
from pytest_eventlet_debug.children.hub_run import HubRun
from pytest_eventlet_debug.children.hub_run import RunningTest
from pytest_eventlet_debug.children.representations import Evidence
from pytest_eventlet_debug.children.representations import Interruption
from pytest_eventlet_debug.hubs.ids import add_hub
from pytest_eventlet_debug.hubs.ids import without_hub
from pytest_eventlet_debug.hubs.marker import is_kept_for_others
from pytest_eventlet_debug.outcomes.categories import category_of
from pytest_eventlet_debug.outcomes.outcomes import Outcomes
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY
from pytest_eventlet_debug.system import unpatched


class _Deselected:
    """Stands for an item that a child deselected."""

    def __init__(self, nodeid: str, config: pytest.Config) -> None:
        self.nodeid = self.name = nodeid
        self.config = config


class _WarningsOutsideOfTests:
    """Tells the warnings outside of tests that another child has given already.

    Those of tests are not held back: pytest lists the tests below each, with their hubs.
    """

    def __init__(self) -> None:
        self._by_child: Counter[tuple[str, int, messages.WarningRecorded]] = Counter()
        self._shown: Counter[messages.WarningRecorded] = Counter()

    def is_new(self, run: HubRun, recorded: messages.WarningRecorded) -> bool:
        """Note a warning; say whether no other child has given it as often."""
        child = (run.name, run.children, recorded)
        self._by_child[child] += 1
        if self._by_child[child] <= self._shown[recorded]:
            return False
        self._shown[recorded] += 1
        return True


class Replay:
    """Turns a child's messages into hook calls, so that every reporter works as ever.

    :param runs: the runs whose messages will come.
    :param find_artifacts: returns where tests that crash or hang may have left recordings, if
        this run records.
    :param whole_tests: hold a test's messages until it is over, for several children at
        once would otherwise mix their lines.
    """

    def __init__(
        self,
        session: pytest.Session,
        runs: Sequence[HubRun],
        find_artifacts: Callable[[], Path | None],
        whole_tests: bool,
    ) -> None:
        self._session = session
        self._find_artifacts = find_artifacts
        self._config = session.config
        self._runs = runs
        self._whole_tests = whole_tests
        self._terminal: Any = self._config.pluginmanager.getplugin("terminalreporter")
        self._warned = _WarningsOutsideOfTests()
        self.outcomes = {run.name: Outcomes() for run in runs}
        self.collect_errors = 0
        self.internal_error = False
        self.exit: tuple[str, int | None] | None = None
        self.interrupted: Interruption | None = None

    @property
    def failures(self) -> int:
        """How many failures count towards ``--maxfail``."""
        return self._session.testsfailed

    @property
    def stopping(self) -> bool:
        """Whether no further test should start."""
        session = self._session
        return bool(session.shouldfail or session.shouldstop or self.exit or self.interrupted)

    def say(self, line: str) -> None:
        """Print a line of ours between the tests'."""
        if self._terminal is not None:
            pytest_internals.end_line(self._config)
            self._terminal.write_line(line)
            self._terminal.flush()

    def interrupt_line(self, text: str) -> None:
        """Print below the line of a test, which goes on afterwards."""
        if self._terminal is not None:
            self._terminal.write(f"\n{text}\n")

    def flush(self) -> None:
        """Let the user see what was printed."""
        if self._terminal is not None:
            self._terminal.flush()

    def receive(self, run: HubRun, message: messages.Message) -> None:
        """Replay a message, or hold it until the test that it is about is over."""
        if isinstance(message, messages.LogStart):
            run.running[message.nodeid] = RunningTest(message.location)
        if isinstance(message, messages.PhaseBegins):
            if message.nodeid in run.running:
                run.running[message.nodeid].begin(message.phase, message.at_ns)
            return
        test = run.running.get(_test_of(run, message))
        if test is None or not self._whole_tests:
            self._replay(run, message)
            return
        test.held.append(message)
        if isinstance(message, messages.LogFinish) or _is_of_dead_worker(message):
            self._replay_held(run, test)

    def _replay_held(self, run: HubRun, test: RunningTest) -> None:
        held, test.held = test.held, []
        for message in held:
            self._replay(run, message)

    def _replay(self, run: HubRun, message: messages.Message) -> None:
        hook = self._config.hook
        match message:
            case messages.SessionStart(captured):
                self._session_start(run, captured)
            case messages.Collected():
                self._collected(run, message)
            case messages.Deselected(nodeids):
                self._deselected(run, nodeids)
            case messages.LogStart(nodeid, location):
                hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
            case messages.LogReport(_, data):
                self._log_report(run, data)
            case messages.LogFinish(nodeid, location):
                self._log_finish(run, nodeid, location)
            case messages.CollectReport(data):
                self._collect_report(run, data)
            case messages.WarningRecorded():
                self._warning_recorded(run, message)
            case messages.Text(text):
                self._text(text)
            case messages.Benchmarks(results):
                benchmarks.receive(self._config, results)
            case messages.Debugger(opens):
                run.debugging = opens
                run.hear()
            case messages.InternalError(text):
                self.internal_error = True
                text = f"in the child of the eventlet hub {run.name}:\n{text}"
                pytest_internals.report_internal_error(self._config, text)
            case messages.Exit(reason, status):
                self.exit = (reason, status)
                run.stopped = True
            case messages.Interrupted(place, text):
                self.interrupted = Interruption(place, text)
                run.interrupted = run.stopped = True
            case messages.SessionFinish(exit_status, shouldstop, shouldfail, lasted, lacked):
                run.seconds += lasted
                run.seconds_without_cpu += lacked
                self._session_finish(run, exit_status, shouldstop, shouldfail)

    def _session_start(self, run: HubRun, captured: list[int] | None) -> None:
        run.begun = True
        if run.process is not None:
            run.process.begin_session(captured or [])

    def _log_report(self, run: HubRun, data: dict[str, Any]) -> None:
        report: pytest.TestReport = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=data
        )
        pytest_internals.keep_subtest_parameters(report, data)
        if report.nodeid in run.running:
            run.running[report.nodeid].note(report)
        self._log(run, report)
        if report.when == DEAD_WORKER:
            # No other report follows: it is not in this test that a child crashes or hangs now.
            run.running.pop(report.nodeid, None)
            if report.failed:  # and not given to another worker, by pytest-rerunfailures
                run.done.append(report.nodeid)

    def _log(self, run: HubRun, report: pytest.TestReport) -> None:
        _set_hub(report, run)
        if not is_kept_for_others(report):
            end: End | None = getattr(report, "eventlet_end", None)
            category = category_of(self._config, report)
            self.outcomes[run.name].note(report.nodeid, category, end, report.when)
        self._config.hook.pytest_runtest_logreport(report=report)

    def _log_finish(self, run: HubRun, nodeid: str, location: messages.Location) -> None:
        run.running.pop(nodeid, None)
        run.done.append(nodeid)
        self._config.hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)

    def _collect_report(self, run: HubRun, data: dict[str, Any]) -> None:
        report: pytest.CollectReport = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=data
        )
        reason: str | None = getattr(report, "eventlet_absent", None)
        if reason is None:
            self._log_collected(report, run)
            if report.failed:
                # For the short summary. All others, such as --lf, have noted the file as it is.
                report.nodeid = add_hub(report.nodeid, run.name)
        else:
            # Whether that is an error is not known before every hub has collected.
            run.absent[without_hub(report.nodeid, run.name)] = reason

    def _log_collected(self, report: pytest.CollectReport, run: HubRun) -> None:
        _set_hub(report, run)
        if report.failed and report.when != "collect":
            if not run.complete:  # after its last test, the hub can be compared like any other
                run.trouble = "its process ended outside of any test"
        elif report.failed:
            self.collect_errors += 1
            # For reporters that show it now, under the same heading for all hubs.
            report.sections.append(("eventlet hub", run.name))
            run.trouble = "errors during collection"
        self._config.hook.pytest_collectreport(report=report)

    def _collected(self, run: HubRun, collected: messages.Collected) -> None:
        nodeids = collected.nodeids
        # A child after one that died collects the same again, and runs the remaining ones.
        first = run.ids is None
        if first:
            run.ids, run.stepwise_count = nodeids, collected.stepwise_count
        self._say_collected(run, len(nodeids), first)
        if first and self._terminal is not None:
            for line in collected.lines:
                self._terminal.write_line(line)
            if collected.listing:
                self._terminal.ensure_newline()
                self._terminal.write(collected.listing)
        self._session.testscollected = self._expected_tests()
        pytest_internals.set_collected(self._config, self._session.testscollected)
        pytest_internals.remember_for_new_first(self._config, nodeids)

    def _expected_tests(self) -> int:
        """Return how many tests there are on all hubs, for the progress in per cent.

        Hubs that have not collected yet are taken to have as many as the largest.
        """
        known = [len(each.ids) for each in self._runs if each.ids is not None]
        missing = sum(1 for each in self._runs if each.ids is None and each.wanted)
        return sum(known) + max(known) * missing

    def _say_collected(self, run: HubRun, count: int, first: bool) -> None:
        if self._terminal is not None and self._config.option.verbose >= 0:
            pytest_internals.end_line(self._config)
            continued = "" if first else ", continued"
            self._terminal.write_sep("-", f"eventlet hub {run.name}{continued}: {tests(count)}")

    def _deselected(self, run: HubRun, nodeids: list[str]) -> None:
        if run.children == 1:  # later ones deselect the same again, and what has run
            run.deselected.update(nodeids)
            items = [_Deselected(nodeid, self._config) for nodeid in nodeids]
            self._config.hook.pytest_deselected(items=items)

    def _warning_recorded(self, run: HubRun, recorded: messages.WarningRecorded) -> None:
        if recorded.when != "runtest" and not self._warned.is_new(run, recorded):
            return
        self._config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": messages.original_warning(recorded),
                "when": recorded.when,
                "nodeid": recorded.nodeid,
                "location": recorded.location,
            }
        )

    def _text(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal.write(text, flush=True)

    def _session_finish(
        self, run: HubRun, exit_status: int, shouldstop: str, shouldfail: str
    ) -> None:
        run.exit_status = exit_status
        self._release(run)
        # A conftest that ends the session does so in each child, and means the run.
        session = self._session
        if not self.stopping:
            session.shouldstop, session.shouldfail = shouldstop or False, shouldfail or False

    def _release(self, run: HubRun) -> None:
        """Replay what is held of tests that do not finish."""
        for nodeid, test in list(run.running.items()):
            self._replay_held(run, test)
            if "teardown" in test.phases:
                run.running.pop(nodeid)
                run.done.append(nodeid)

    def note_end(self, run: HubRun, end: End) -> None:
        """Note in their recordings how the tests that a child is in have ended, and when."""
        directory = self._find_artifacts()
        if directory is not None:
            for nodeid, test in run.running.items():
                test.note_end(directory, nodeid, end)

    def report_end(
        self, run: HubRun, end: End, verdict: str, sections: list[tuple[str, str]]
    ) -> None:
        """Report the tests that a child was in when it crashed or was killed."""
        run.process = None
        if not run.running:
            self._report_end_between_tests(run, verdict, sections)
        for nodeid, test in list(run.running.items()):
            self._replay_held(run, test)
            path, line, _ = test.location
            properties, named = [], []
            if test.directory:
                properties = [(DIRECTORY_PROPERTY, str(test.directory))]
                named = [("eventlet-debug", f"artifacts: {test.directory}")]
            report = pytest.TestReport(
                nodeid=nodeid,
                location=test.location,
                keywords={},
                outcome="failed",
                longrepr=Evidence(path, line, verdict, [*sections, *named]),
                # Reporters take one report on the call and one on the teardown, not two.
                when="teardown" if "call" in test.phases else "call",
                user_properties=properties,
                duration=unpatched.monotonic() - test.started,
                eventlet_end=end,
            )
            self._log(run, report)
            self._log_finish(run, nodeid, test.location)

    def _report_end_between_tests(
        self, run: HubRun, verdict: str, sections: list[tuple[str, str]]
    ) -> None:
        name = f"eventlet hub {run.name}"
        collected = run.ids is not None
        where = "outside of any test" if collected else "while it collected"
        evidence = Evidence(name, None, f"{verdict} {where}", sections)
        # In the report's heading: "ERROR collecting ..." or "ERROR at end of ...".
        when = "end" if collected else "collect"
        report = pytest.CollectReport(
            nodeid=name, outcome="failed", longrepr=evidence, result=[], when=when
        )
        self._log_collected(report, run)


def _test_of(run: HubRun, message: messages.Message) -> str:
    """Return the id of the test that a message is about, or nothing."""
    match message:
        case messages.LogStart(nodeid) | messages.LogReport(nodeid) | messages.LogFinish(nodeid):
            return nodeid
        case messages.Text() if len(run.running) == 1:
            (nodeid,) = run.running
            return nodeid
    return ""


def _is_of_dead_worker(message: messages.Message) -> bool:
    return isinstance(message, messages.LogReport) and message.data.get("when") == DEAD_WORKER


def _set_hub(report: Any, run: HubRun) -> None:
    """Say on a report which hub it is of, for all who read it from now on."""
    if run.hub is not None:
        report.eventlet_hub = run.hub.name
