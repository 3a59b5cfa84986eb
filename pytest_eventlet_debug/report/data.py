"""Read what a run left: the one place where the report meets the files of the artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug import artifact_records
from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug.artifact_names import FINDINGS_FILE
from pytest_eventlet_debug.artifact_names import RESULTS_FILE
from pytest_eventlet_debug.artifact_names import RUN_FILE
from pytest_eventlet_debug.artifact_records import ListedTest
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.hubs.ids import add_hub
from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.outcomes.outcomes import OUTCOMES
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.report import results
from pytest_eventlet_debug.report.results import Result
from pytest_eventlet_debug.report.results import Results
from pytest_eventlet_debug.reruns.verdicts import Verdict
from pytest_eventlet_debug.system import run_lock

if TYPE_CHECKING:
    from pytest_eventlet_debug.upgrade.saved_run import SavedRun


class RunDataError(Exception):
    """There is no run to read. One line: where, and what would do."""


class Cell(msgspec.Struct):
    """A test on one hub in one run.

    :param attempts: those that have artifacts, the first one first.
    :param found: what each of them shows, by its directory.
    """

    result: Result
    attempts: list[ListedTest] = []
    found: dict[str, tuple[Finding, ...]] = {}

    @property
    def findings(self) -> list[Finding]:
        """What all of them show."""
        return [finding for test in self.attempts for finding in self.found[test.directory]]


class Run(msgspec.Struct, frozen=True):
    """A run, read.

    :param directory: of its artifacts, or the file that it was saved to.
    :param cells: by the test's id without its hub, then by the hub.
    :param verdicts: by the test's id without its hub.
    :param upgrade: the comparison with an earlier run, line by line.
    """

    directory: Path
    facts: RunRecord
    hubs: tuple[str, ...]
    cells: dict[str, dict[str, Cell]]
    verdicts: dict[str, Verdict] = {}
    upgrade: tuple[str, ...] = ()


def read_any(path: Path) -> Run:
    """Read a run's directory, or a file that a run was saved to.

    :raises RunDataError: it is neither.
    """
    if not path.is_file():
        return read_run(path)
    from pytest_eventlet_debug.upgrade import saved_run  # slow to import

    try:
        return _of_saved(path, saved_run.read(path))
    except saved_run.SavedRunError as error:
        raise RunDataError(str(error)) from None


def read_run(directory: Path, *, just_ended: bool = False) -> Run:
    """Read a run's directory.

    :param just_ended: whether ``run.json`` lists the tests as they are.
    :raises RunDataError: it has no ``run.json`` of ours.
    """
    record = artifact_records.read_run(directory)
    if record is None:
        if (directory / RUN_FILE).exists():
            raise RunDataError(f"{directory / RUN_FILE} is damaged, or not of a run")
        raise RunDataError(
            f"{directory} holds no {RUN_FILE}; name a run's directory, such as eventlet-debug"
        )
    recorded = results.read(directory / RESULTS_FILE)
    if recorded is None or recorded.run != record.run:
        # There is none, or the run before's: this one has not ended, or was killed.
        recorded = Results(run=record.run, hubs=tuple(record.hubs), tests=())
    hubs = dict.fromkeys(recorded.hubs)
    cells: dict[str, dict[str, Cell]] = {}
    for result in recorded.tests:
        cells.setdefault(result.test, {})[result.hub] = Cell(result)
    for test in _tests(directory, record, just_ended):
        _add(cells, test, tuple(hubs))
    hubs.update(dict.fromkeys(hub for row in cells.values() for hub in row))
    for row in cells.values():
        for cell in row.values():
            cell.attempts.sort(key=lambda test: test.attempt)
            cell.found = {test.directory: _read_findings(directory, test) for test in cell.attempts}
    verdicts = {verdict.test: verdict for verdict in recorded.verdicts}
    return Run(directory, record, tuple(hubs), cells, verdicts, recorded.upgrade)


def _of_saved(path: Path, saved: SavedRun) -> Run:
    facts = RunRecord(
        format=artifact_records.FORMAT,
        run=str(path),
        command=list(saved.command),
        rootdir=saved.suite,
        hubs=list(saved.hubs),
        started_ns=saved.started_ns,
        python=saved.python.rpartition(" ")[2],
        platform=saved.platform,
        versions={
            name: saved.distributions[name].version
            for name in ("pytest-eventlet-debug", "pytest", "eventlet", "greenlet")
            if name in saved.distributions
        },
        ended_ns=saved.started_ns + int(saved.seconds * 1e9),
        exit_status=saved.exit_status,
    )
    cells: dict[str, dict[str, Cell]] = {}
    for test in saved.tests:
        reason = test.failure.message if test.failure is not None else ""
        earlier = _without_one(test.attempts, test.outcome)
        result = Result(
            test.test,
            test.hub,
            add_hub(test.test, test.hub),
            test.outcome,
            test.seconds,
            earlier=earlier,
            reason=reason,
        )
        cells.setdefault(test.test, {})[test.hub] = Cell(result)
    for module in saved.uncollected:
        result = Result(module.node, module.hub, module.node, module.outcome, 0.0)
        result = replace(result, reason=module.failure.message)
        cells.setdefault(module.node, {})[module.hub] = Cell(result)
    return Run(path, facts, saved.hubs, cells)


def _without_one(attempts: Sequence[Outcome], counted: Outcome) -> tuple[Outcome, ...]:
    """Return the attempts but for the last that ended as the one that counts."""
    others = list(reversed(attempts))
    if counted in others:
        others.remove(counted)
    return tuple(reversed(others))


def _add(cells: dict[str, dict[str, Cell]], facts: ListedTest, hubs: tuple[str, ...]) -> None:
    """Give an attempt its cell, a new one if no report told of the test."""
    test, named = split_hub(facts.nodeid, hubs)
    if facts.nodeid in cells:  # a parameter that is called as a hub
        test, named = facts.nodeid, None
    hub = named or facts.hub or (hubs[0] if hubs else "")
    row = cells.setdefault(test, {})
    if hub not in row:
        outcome, reason = _ending(facts)
        result = Result(test, hub, facts.nodeid, outcome, _seconds(facts), reason=reason)
        row[hub] = Cell(result)
    row[hub].attempts.append(facts)


def _tests(directory: Path, record: RunRecord, just_ended: bool) -> list[ListedTest]:
    """Return the tests of a run, but of one that goes on only those that have ended."""
    if just_ended and record.tests is not msgspec.UNSET:
        return record.tests
    tests = artifact_records.tests(directory)
    ended = [test for test in tests if test.outcomes]
    if just_ended or len(ended) == len(tests):
        return tests
    return ended if run_lock.is_held(artifacts.lock_path(directory)) else tests


def _ending(facts: ListedTest) -> tuple[Outcome, str]:
    """Return how a test ended that no report told of, and the reason if it did not pass."""
    for phase, outcome in facts.outcomes.items():
        if outcome == "crashed":
            where = f"its {phase}" if phase in facts.phases else "the test"
            return "crashed", f"the process ended in {where}"
        if outcome == "interrupted":
            return "error", f"the run was interrupted in its {phase}"
    if not facts.outcomes:
        return "crashed", "the test did not end"
    known = [outcome for outcome in OUTCOMES if outcome in facts.outcomes.values()]
    return max(known, key=OUTCOMES.index, default="passed"), ""


def _seconds(facts: ListedTest) -> float:
    return sum(end - start for start, end in facts.phases.values()) / 1e9


def _read_findings(directory: Path, test: ListedTest) -> tuple[Finding, ...]:
    """Return the findings in a test's directory; none if there is no such file."""
    if FINDINGS_FILE not in test.artifacts:
        return ()
    found = findings_file.read(directory / test.directory)
    return () if found is None else found.findings
