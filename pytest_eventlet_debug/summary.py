"""The terminal summary: what differs between hubs, what spins, where the artifacts are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
import itertools
from pathlib import Path

import pytest

from pytest_eventlet_debug.children.controller import Controller
from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.hubs.witness import HUB_PROPERTY
from pytest_eventlet_debug.outcomes.outcomes import compare_outcomes
from pytest_eventlet_debug.outcomes.outcomes import format_differences
from pytest_eventlet_debug.profiling import heaviest as profile
from pytest_eventlet_debug.profiling import view
from pytest_eventlet_debug.recordings.findings.storms import find_storms
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.tracers.registry import CPROFILE_VIEW
from pytest_eventlet_debug.tracers.session import DIRECTORY_PROPERTY
from pytest_eventlet_debug.tracers.session import ERROR_PROPERTY

#: Lines of each kind that are shown; the rest is counted.
SHOWN = 50

#: Seconds that a test takes for its profile to be shown without -v.
LONG_SECONDS = 1.0


class Summary:
    """Gather what the reports carry and show it at the end; a plugin object."""

    def __init__(self, config: pytest.Config, settings: Settings) -> None:
        self._config = config
        self._settings = settings
        self._directories: dict[str, str] = {}
        self._errors: dict[str, list[str]] = {}
        self._other_hubs: dict[str, list[str]] = {}
        self._seconds: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self._seconds.get(report.nodeid, 0.0)
        self._seconds[report.nodeid] = before + getattr(report, "duration", 0.0)
        if report.when != "teardown" and not hasattr(report, "eventlet_end"):
            return
        for name, value in report.user_properties:
            if name == DIRECTORY_PROPERTY:
                self._directories[str(value)] = report.nodeid
            elif name == ERROR_PROPERTY:
                self._errors.setdefault(str(value), []).append(report.nodeid)
            elif name == HUB_PROPERTY:
                self._other_hubs.setdefault(str(value), []).append(report.nodeid)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        lines = [*self._differences(), *self._storms(), *self._profiles()]
        lines += [*self._others(), *self._failures()]
        if self._directories:
            count = len(self._directories)
            tests = "1 test" if count == 1 else f"{count} tests"
            lines.append(f"artifacts of {tests}: {self._settings.artifacts}")
        if lines:
            terminalreporter.section("eventlet hubs", "=")
        for line in lines:
            terminalreporter.line(line)
        if self._settings.value(CPROFILE_VIEW):
            terminalreporter.line(
                f"--cprofile-view: {view.open_only(map(Path, self._directories))}"
            )

    def _differences(self) -> Iterator[str]:
        """Say which tests end differently from hub to hub."""
        controller: Controller | None = self._config.pluginmanager.getplugin(Controller.NAME)
        if controller is None or controller.usage_error or self._config.option.collectonly:
            return
        runs = [run for run in controller.runs if run.wanted and not run.left_out]
        if len(runs) < 2:
            return
        unfinished = {run.name: run.trouble for run in runs if run.trouble or not run.complete}
        deselected = {split_hub(each, [run.name])[0] for run in runs for each in run.deselected}
        outcomes = {
            run.name: {
                test: outcome
                for nodeid, outcome in controller.replay.outcomes[run.name].latest.items()
                if (test := split_hub(nodeid, [run.name])[0]) not in deselected
            }
            for run in runs
        }
        compared = compare_outcomes(outcomes, excluded=unfinished)
        differing = len(compared.differences)
        if len(compared.hubs) > 1:
            verb = "test differs" if differing == 1 else "tests differ"
            yield f"{differing or 'no'} {verb} between {', '.join(compared.hubs)}"
            yield from _first(f"  {line}" for line in format_differences(compared))
        for hub, trouble in unfinished.items():
            why = f" ({trouble})" if trouble else ""
            yield f"the run under {hub} is incomplete{why} and not compared"

    def _storms(self) -> Iterator[str]:
        """Name the system calls that were repeated without progress."""
        found = []
        for directory, nodeid in self._directories.items():
            path = Path(directory, "strace.txt")
            if not path.exists():
                continue
            try:
                with open_log(path) as log:
                    storms = find_storms(parse(log))
            except (StraceLogError, OSError) as error:
                self._errors.setdefault(f"strace.txt: {error}", []).append(nodeid)
            else:
                found += [f"  {nodeid}\n    {storm.describe()}" for storm in storms]
        if found:
            yield "system calls repeated without progress:"
            yield from _first(iter(found))

    def _profiles(self) -> Iterator[str]:
        """Name the functions that tests spent their time in: of long tests, or of all."""
        least = 0.0 if self._config.option.verbose > 0 else LONG_SECONDS
        paths = {
            Path(directory, "profile.cprof"): nodeid
            for directory, nodeid in self._directories.items()
            if self._seconds[nodeid] > least
        }
        found = ((nodeid, path) for path, nodeid in paths.items() if path.exists())
        first = next(found, None)
        if first is not None:
            yield "most time was spent in:"
            yield from _first(
                "\n".join([f"  {nodeid}", *(f"    {line}" for line in profile.describe(path))])
                for nodeid, path in itertools.chain([first], found)
            )

    def _others(self) -> Iterator[str]:
        for hub, nodeids in self._other_hubs.items():
            tests = "1 test" if len(nodeids) == 1 else f"{len(nodeids)} tests"
            yield f"{tests} ran or ended on the hub {hub}, not on the one in the id:"
            yield from _first(f"  {nodeid}" for nodeid in nodeids)

    def _failures(self) -> Iterator[str]:
        for error, nodeids in self._errors.items():
            counts = Counter(nodeids)
            more = f" and {len(counts) - 1} more" if len(counts) > 1 else ""
            yield f"{error} ({nodeids[0]}{more})"


def _first(lines: Iterator[str]) -> Iterator[str]:
    yield from itertools.islice(lines, SHOWN)
    left = sum(1 for _ in lines)
    if left:
        yield f"  and {left} more"
