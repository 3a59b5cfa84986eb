"""The terminal summary: what differs between hubs, what was found, where the artifacts are.

Each part is imported where there is something to show of it: most runs have few.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
import time
from typing import TYPE_CHECKING

import pytest

from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.hubs.witness import HUB_PROPERTY
from pytest_eventlet_debug.node_ids import relative_id
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.phrasing import SHOWN
from pytest_eventlet_debug.phrasing import and_more
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.phrasing import first
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.report_properties import CUT_PROPERTY
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY
from pytest_eventlet_debug.report_properties import ERROR_PROPERTY
from pytest_eventlet_debug.report_properties import Cut
from pytest_eventlet_debug.report_properties import no_room
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.warning_types import EventletDebugWarning

if TYPE_CHECKING:
    from warnings import WarningMessage

    from pytest_eventlet_debug.outcomes.gathering import Attempt
    from pytest_eventlet_debug.outcomes.gathering import Gathering
    from pytest_eventlet_debug.reruns.retrace import Retrace

#: Seconds that a test takes for its profile to be shown without -v.
LONG_SECONDS = 1.0
#: How many of these are shown then.
LONGEST_TESTS = 10


class Summary:
    """Gather what the reports carry and show it at the end; a plugin object."""

    def __init__(self, config: pytest.Config, settings: Settings, gathering: Gathering) -> None:
        self._config = config
        self._settings = settings
        self._gathering = gathering
        self._directories: dict[str, str] = {}
        self._shown: set[str] = set()
        self._errors: dict[str, list[str]] = {}
        self._cuts: dict[str, list[Cut]] = {}
        self._no_room: set[str] = set()
        self._other_hubs: dict[str, list[str]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # All is in the last report, which is none on teardown where a process or a worker has died.
        if report.when in ("setup", "call") and not hasattr(report, "eventlet_end"):
            return
        for name, value in report.user_properties:
            if name == DIRECTORY_PROPERTY:
                self._directories[str(value)] = report.nodeid
            elif name == ERROR_PROPERTY:
                self._errors.setdefault(str(value), []).append(report.nodeid)
            elif name == CUT_PROPERTY:
                self._cuts.setdefault(report.nodeid, []).append(Cut.parse(str(value)))
            elif name == HUB_PROPERTY:
                self._other_hubs.setdefault(str(value), []).append(report.nodeid)

    def pytest_warning_recorded(self, warning_message: WarningMessage) -> None:
        """Take why some recordings were not completed, if that is for want of room."""
        if issubclass(warning_message.category, EventletDebugWarning):
            why = no_room(str(warning_message.message))
            if why is not None:
                self._no_room.add(why)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        # Tests that ran in this process may have patched for good what the summary calls.
        with Shield(terminalreporter.line, "the summary of the recordings ends here"):
            self._show(terminalreporter)

    def _show(self, terminalreporter: pytest.TerminalReporter) -> None:
        sections = {
            "retraced": list(self._changed_by_tracing()),
            "hub differences": [*self._differences(), *self._absent(), *self._others()],
            "findings": list(self._findings()),
            "recordings": [
                *(*self._profiles(), *self._failures(), *self._cut(), *self._artifacts())
            ],
        }
        for title, lines in sections.items():
            if lines:
                terminalreporter.section(title, "=")
            for line in lines:
                terminalreporter.line(line)

    def _differences(self) -> Iterator[str]:
        """Say which tests end differently from hub to hub, and why."""
        if not self._settings.needs_children:
            return
        from pytest_eventlet_debug.reruns.differences import HubDifferences
        from pytest_eventlet_debug.reruns.text import difference_lines

        differences = HubDifferences.of(self._config)
        if differences is not None:
            yield from difference_lines(differences, self._gathering)
            self._shown = {verdict.test for verdict in differences.verdicts if verdict.hubs}

    def _absent(self) -> Iterator[str]:
        """Name the tests that were asked for by name and are not there on one of the hubs."""
        if not self._settings.needs_children:
            return
        from pytest_eventlet_debug.children.controller import Controller

        controller: Controller | None = self._config.pluginmanager.getplugin(Controller.NAME)
        if controller is not None and not controller.usage_error:
            for run in controller.runs:
                for test, reason in run.absent.items():
                    why = f": {reason}" if reason else ""
                    shown = self._gathering.shown(relative_id(test, self._config))
                    yield f"{shown} does not exist on {run.name}{why}"

    def _findings(self) -> Iterator[str]:
        """Show what was found in the recordings of all other tests, the same only once."""
        lines = list(self._printed())
        lines += [
            (nodeid, line)
            for directory, nodeid in self._directories.items()
            for line in self._read_findings(directory, nodeid)
        ]
        if lines:
            from pytest_eventlet_debug.recordings.findings.text import grouped

            shown = self._gathering.shown
            yield from first(grouped((shown(nodeid), line) for nodeid, line in lines))

    def _printed(self) -> Iterator[tuple[str, str]]:
        """Yield the tests that failed with what they printed, and what was seen in them."""
        for nodeid in self._gathering.nodeids:
            cause = self._gathering.attempt(nodeid).cause
            if cause is not None and self._is_to_tell(nodeid):
                yield from ((nodeid, line) for line in cause.more)

    def _is_to_tell(self, nodeid: str) -> bool:
        """Say whether a test failed, and the reasons of a difference do not hold why."""
        gathering = self._gathering
        return gathering.outcome(nodeid) in BAD and gathering.key(nodeid)[0] not in self._shown

    def _read_findings(self, directory: str, nodeid: str) -> Iterator[str]:
        """Yield a line for each finding that is still to tell; what cannot be read is a failure."""
        from pytest_eventlet_debug.recordings.findings import text
        from pytest_eventlet_debug.recordings.findings.model import TELLING_ALONE
        from pytest_eventlet_debug.recordings.found import findings_of

        read = findings_of(Path(directory))
        if read is None:
            return
        for problem in read.problems:
            self._errors.setdefault(problem, []).append(nodeid)
        failed, to_tell = self._gathering.outcome(nodeid) in BAD, self._is_to_tell(nodeid)
        for finding in read.findings:
            if to_tell or (not failed and finding.kind in TELLING_ALONE):
                yield text.line(finding)

    @property
    def _traced(self) -> dict[str, Attempt]:
        """How tests ended that ran once more under the tracers."""
        retrace = self._retrace
        return retrace.traced if retrace is not None else {}

    @property
    def _retrace(self) -> Retrace | None:
        if not self._settings.retrace:
            return None
        from pytest_eventlet_debug.reruns.retrace import Retrace

        retrace: Retrace | None = self._config.pluginmanager.getplugin(Retrace.NAME)
        return retrace

    def _changed_by_tracing(self) -> Iterator[str]:
        """Say where the tracers changed how a test ended."""
        for nodeid, attempt in self._traced.items():
            if attempt.directory:
                self._directories[attempt.directory] = nodeid
            changed = self._retrace.describe(nodeid) if self._retrace is not None else None
            if changed is not None:
                yield f"{self._gathering.shown(nodeid)}: {changed}"

    def _profiles(self) -> Iterator[str]:
        """Name the functions that the longest tests spent their time in, the longest first."""
        least, most = (
            (0.0, SHOWN) if self._config.option.verbose > 0 else (LONG_SECONDS, LONGEST_TESTS)
        )
        long = {
            Path(directory): nodeid
            for directory, nodeid in self._directories.items()
            if self._gathering.seconds(nodeid) > least
        }
        found = [path for path in long if (path / PROFILE_FILE).is_file()]
        if not found:
            return
        from pytest_eventlet_debug.recordings import heaviest

        # What is profiled is less than the test: its call phase, as a rule.
        seconds = {path: heaviest.seconds(path) for path in found}
        found = sorted(
            (path for path in found if seconds[path] > least), key=lambda path: -seconds[path]
        )
        if found:
            traced = "strace" in self._settings.tracer_names
            slower = " (under strace, each system call takes longer)" if traced else ""
            yield f"most time was spent in{slower}:"
        for path in found[:most]:
            yield f"  {self._gathering.shown(long[path])}"
            yield from (f"    {line}" for line in heaviest.describe(path / PROFILE_FILE))
        if found[most:]:
            yield f"  and {counted(len(found) - most, 'shorter test')}"

    def _others(self) -> Iterator[str]:
        for hub, nodeids in self._other_hubs.items():
            yield f"{tests(len(nodeids))} ran or ended on the hub {hub}, not on the one in the id:"
            yield from first(f"  {self._gathering.shown(nodeid)}" for nodeid in nodeids)

    def _failures(self) -> Iterator[str]:
        for error, nodeids in self._errors.items():
            more = and_more(len({*nodeids}) - 1)
            yield f"{error} ({self._gathering.shown(nodeids[0])}{more})"

    def _cut(self) -> Iterator[str]:
        """Say in one line what there was no room for."""
        cuts = sorted((cut, nodeid) for nodeid, cuts in self._cuts.items() for cut in cuts)
        lacking = self._lacking() if cuts or self._no_room else {}
        if not cuts and not lacking:
            return
        since = ""
        if cuts:
            clock = time.strftime("%H:%M:%S", time.localtime(cuts[0][0].since_ns / 1e9))
            since = f" since {clock}"
        nodeids = [*(nodeid for _, nodeid in cuts), *lacking]
        what = {cut.what for cut, _ in cuts}.union(*lacking.values())
        why = {cut.why for cut, _ in cuts} | self._no_room
        yield (
            f"recordings of {tests(len({*nodeids}))} are cut or missing{since} "
            f"({', '.join(sorted(why))}): {', '.join(sorted(what))} "
            f"(first {self._gathering.shown(nodeids[0])})"
        )

    def _lacking(self) -> dict[str, set[str]]:
        """Return the tracers for whose recordings there was no room when a test was over."""
        told = {
            (nodeid, error.partition(":")[0])
            for error, nodeids in self._errors.items()
            for nodeid in nodeids
        }
        found: dict[str, set[str]] = {}
        for directory, nodeid in self._directories.items():
            lacking = set(self._settings.tracer_names)
            if Path(directory).is_dir():
                lacking.intersection_update(_lacking_in(Path(directory)))
            if self._gathering.outcome(nodeid) not in ("passed", "failed"):
                lacking.discard("cprofile")  # it may have ended before its call
            if untold := {name for name in lacking if (nodeid, name) not in told}:
                found.setdefault(nodeid, set()).update(untold)
        return found

    def _artifacts(self) -> Iterator[str]:
        # A test that ran more than once has several directories, and on a full disk perhaps none.
        found = {
            nodeid
            for directory, nodeid in self._directories.items()
            if not (self._cuts or self._no_room) or Path(directory).is_dir()
        }
        if found:
            yield f"artifacts of {tests(len(found))}: {self._settings.place}"


def _lacking_in(directory: Path) -> Iterator[str]:
    """Yield the tracers that may have had no room for their recording of a test."""
    from pytest_eventlet_debug.recordings.cuts import is_cut

    if is_cut(directory):
        yield "strace"
    if not (directory / PROFILE_FILE).is_file():
        yield "cprofile"
