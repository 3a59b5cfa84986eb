"""What children report, replayed as hook calls in the controller."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _pytest.junitxml import xml_key
import pytest

from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug.children import messages as wire
from pytest_eventlet_debug.children.evidence import Evidence
from pytest_eventlet_debug.children.evidence import Interruption
from pytest_eventlet_debug.children.hub_run import End
from pytest_eventlet_debug.children.hub_run import HubRun
from pytest_eventlet_debug.children.hub_run import RunningTest
from pytest_eventlet_debug.hubs.ids import MARKER_REASON
from pytest_eventlet_debug.outcomes.categories import category_of
from pytest_eventlet_debug.outcomes.outcomes import Outcomes
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracers.report_properties import DIRECTORY_PROPERTY


class _Deselected:
    """Stands for an item that a child deselected."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = self.name = nodeid


class Replay:
    """Turns a child's messages into hook calls, so that every reporter works as ever.

    :param runs: the runs whose messages will come.
    :param artifacts_directory: where tests that crash or hang may have left recordings.
    :param whole_tests: hold a test's messages until it is over, for several children at
        once would otherwise mix their lines.
    """

    def __init__(
        self,
        session: pytest.Session,
        runs: Sequence[HubRun],
        artifacts_directory: Path,
        whole_tests: bool,
    ) -> None:
        self._session = session
        self._artifacts = artifacts_directory
        self._config = session.config
        self._runs = runs
        self._whole_tests = whole_tests
        self._terminal: Any = self._config.pluginmanager.getplugin("terminalreporter")
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
            self._terminal.write_line(line)
            self._terminal.flush()

    def flush(self) -> None:
        """Let the user see what was printed."""
        if self._terminal is not None:
            self._terminal.flush()

    def receive(self, run: HubRun, message: wire.Message) -> None:
        """Replay a message, or hold it until the test that it is about is over."""
        kind, content = message
        if kind == "logstart":
            run.running[content[0]] = RunningTest(tuple(content[1]))
        nodeid = ""
        if kind == "report":
            nodeid = content["nodeid"]
        elif kind in ("logstart", "logfinish"):
            nodeid = content[0]
        elif kind == "text" and len(run.running) == 1:
            (nodeid,) = run.running
        test = run.running.get(nodeid)
        if test is not None and self._whole_tests:
            test.held.append(message)
            if kind != "logfinish":
                return
            for held in test.held:
                self._replay(run, held)
        else:
            self._replay(run, message)

    def _replay(self, run: HubRun, message: wire.Message) -> None:
        getattr(self, f"_on_{message.kind}")(run, message.content)

    def _on_start(self, run: HubRun, content: Any) -> None:
        run.begun = True
        if content is not None and run.process is not None:
            run.process.hold_captured(content)

    def _on_logstart(self, run: HubRun, content: Any) -> None:
        nodeid, location = content
        self._config.hook.pytest_runtest_logstart(nodeid=nodeid, location=tuple(location))

    def _on_report(self, run: HubRun, content: Any) -> None:
        report = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=content
        )
        _keep_subtest_parameters(report, content)
        if report.nodeid in run.running:
            run.running[report.nodeid].phases.add(report.when)
        self._log(run, report)

    def _log(self, run: HubRun, report: pytest.TestReport) -> None:
        if not _kept_for_others(report):
            end: End | None = getattr(report, "eventlet_end", None)
            self.outcomes[run.name].note(report.nodeid, category_of(self._config, report), end)
        self._config.hook.pytest_runtest_logreport(report=report)

    def _on_logfinish(self, run: HubRun, content: Any) -> None:
        nodeid, location = content
        run.running.pop(nodeid, None)
        run.done.append(nodeid)
        self._config.hook.pytest_runtest_logfinish(nodeid=nodeid, location=tuple(location))

    def _on_collectreport(self, run: HubRun, content: Any) -> None:
        report = self._config.hook.pytest_report_from_serializable(
            config=self._config, data=content
        )
        self._log_collected(report, run)

    def _log_collected(self, report: pytest.CollectReport, run: HubRun) -> None:
        if report.failed:
            self.collect_errors += 1
            report.sections.append(("eventlet hub", run.name))
            run.trouble = "errors during collection"
        self._config.hook.pytest_collectreport(report=report)

    def _on_collected(self, run: HubRun, content: Any) -> None:
        ids = content["ids"]
        first = run.ids is None
        if first:
            run.ids, run.stepwise_count = ids, content["count"]
        self._tell_collected(run, len(ids), first)
        if first and self._terminal is not None:
            for line in content["lines"]:
                self._terminal.write_line(line)
            if content["listing"]:
                self._terminal.ensure_newline()
                self._terminal.write(content["listing"])
        known = [len(each.ids) for each in self._runs if each.ids is not None]
        # Hubs that have not collected yet are taken to have as many tests as the largest.
        missing = sum(1 for each in self._runs if each.ids is None and each.wanted)
        self._session.testscollected = sum(known) + max(known) * missing
        if hasattr(self._terminal, "_numcollected"):
            deselected = len(self._terminal.stats.get("deselected", ()))
            self._terminal._numcollected = self._session.testscollected + deselected
        newfirst = self._config.pluginmanager.getplugin("nfplugin")
        if newfirst is not None and hasattr(newfirst, "cached_nodeids"):
            newfirst.cached_nodeids.update(ids)

    def _tell_collected(self, run: HubRun, count: int, first: bool) -> None:
        if self._terminal is not None and self._config.option.verbose >= 0:
            rest = "" if first else "the rest, "
            tests = "1 test" if count == 1 else f"{count} tests"
            self._terminal.write_sep("-", f"eventlet hub {run.name}: {rest}{tests}")

    def _on_deselected(self, run: HubRun, content: Any) -> None:
        if run.children == 1:
            run.deselected.update(content)
            items = [_Deselected(nodeid) for nodeid in content]
            self._config.hook.pytest_deselected(items=items)

    def _on_warning(self, run: HubRun, content: Any) -> None:
        warning, when, nodeid, location = content
        self._config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": wire.decode_warning(warning),
                "when": when,
                "nodeid": nodeid,
                "location": tuple(location) if location else None,
            }
        )

    def _on_text(self, run: HubRun, content: Any) -> None:
        if self._terminal is not None:
            self._terminal.write(content, flush=True)

    def _on_debugger(self, run: HubRun, content: Any) -> None:
        run.debugging = content
        run.hear()

    def _on_internalerror(self, run: HubRun, content: Any) -> None:
        self.internal_error = True
        text = f"in the child of the eventlet hub {run.name}:\n{content}"
        # Not through the hook: its other implementations want the exception itself.
        reporters: tuple[Any, ...] = (self._terminal, self._config.stash.get(xml_key, None))
        for reporter in reporters:
            if reporter is not None:
                reporter.pytest_internalerror(excrepr=text)

    def _on_exit(self, run: HubRun, content: Any) -> None:
        message, status = content
        self.exit = (message, status)

    def _on_interrupted(self, run: HubRun, content: Any) -> None:
        self.interrupted = Interruption(*content)

    def _on_finish(self, run: HubRun, content: Any) -> None:
        run.exit_status, stop, fail = content
        self._release(run)
        # A conftest that ends the session does so in each child, and means the run.
        session = self._session
        if not self.stopping:
            session.shouldstop, session.shouldfail = stop or False, fail or False

    def _release(self, run: HubRun) -> None:
        """Replay what is held of tests that do not finish, as where a worker of xdist died."""
        for nodeid, test in list(run.running.items()):
            for message in test.held:
                self._replay(run, message)
            # "???" is the phase that xdist gives the report on a worker's death.
            if test.phases & {"teardown", "???"}:
                run.running.pop(nodeid)
                run.done.append(nodeid)

    def report_end(
        self, run: HubRun, end: End, verdict: str, sections: list[tuple[str, str]]
    ) -> None:
        """Report the tests that a child was in when it crashed or was killed."""
        run.process = None
        if not run.running:
            self._report_end_between_tests(run, verdict, sections)
        for nodeid, test in list(run.running.items()):
            for message in test.held:
                self._replay(run, message)
            path, line, _ = test.location
            directory = artifacts.note_end(self._artifacts, nodeid, end)
            properties = [(DIRECTORY_PROPERTY, str(directory))] if directory else []
            report = pytest.TestReport(
                nodeid=nodeid,
                location=test.location,
                keywords={},
                outcome="failed",
                longrepr=Evidence(path, line, verdict, sections),
                when="teardown" if "call" in test.phases else "call",
                user_properties=properties,
                duration=unpatched.monotonic() - test.started,
                eventlet_end=end,
            )
            self._log(run, report)
            self._on_logfinish(run, [nodeid, test.location])

    def _report_end_between_tests(
        self, run: HubRun, verdict: str, sections: list[tuple[str, str]]
    ) -> None:
        name = f"eventlet hub {run.name}"
        where = "while it collected" if run.ids is None else "outside of any test"
        evidence = Evidence(name, None, f"{verdict} {where}", sections)
        report = pytest.CollectReport(nodeid=name, outcome="failed", longrepr=evidence, result=[])
        self._log_collected(report, run)


def _keep_subtest_parameters(report: pytest.TestReport, content: Any) -> None:
    """Show a subtest's parameters as the child did: a report that is read quotes them again."""
    sent = content.get("_subtest.context")
    if sent is not None:
        object.__setattr__(report.context, "kwargs", sent["kwargs"])


def _kept_for_others(report: pytest.TestReport) -> bool:
    """Say whether the test was skipped for it is marked for other hubs."""
    return report.skipped and MARKER_REASON in report.longreprtext
