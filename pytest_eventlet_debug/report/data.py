"""Read what a run left: the one place where the report meets the files of the artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from pytest_eventlet_debug.artifacts import RUN_FILE
from pytest_eventlet_debug.artifacts import read_json
from pytest_eventlet_debug.artifacts import tests
from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.outcomes.outcomes import OUTCOMES
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.report import results
from pytest_eventlet_debug.report.results import RESULTS_FILE
from pytest_eventlet_debug.report.results import Result

FINDINGS_FILE = "findings.json"


class RunDataError(Exception):
    """A directory has no run in it. One line: which one, and what would do."""


class RunFacts(msgspec.Struct, frozen=True):
    """What ``run.json`` says of a run; times are nanoseconds since the epoch."""

    run: str
    command: tuple[str, ...] = ()
    rootdir: str = ""
    hubs: tuple[str, ...] = ()
    started_ns: int = 0
    ended_ns: int | None = None
    exit_status: int | None = None
    python: str = ""
    platform: str = ""
    versions: dict[str, str] = {}
    tools: tuple[str, ...] = ()


class TestFacts(msgspec.Struct, frozen=True):
    """What ``test.json`` says of an attempt of a test, with the name of its directory."""

    __test__ = False

    nodeid: str
    directory: str
    hub: str | None = None
    attempt: int = 1
    outcomes: dict[str, str] = {}
    phases: dict[str, tuple[int, int]] = {}
    artifacts: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


class Cell(msgspec.Struct):
    """A test on one hub in one run.

    :param attempts: those that have artifacts, the first one first.
    """

    result: Result
    attempts: list[TestFacts] = []
    findings: list[Finding] = []


class Run(msgspec.Struct, frozen=True):
    """A run, read.

    :param cells: by the test's id without its hub, then by the hub.
    """

    directory: Path
    facts: RunFacts
    hubs: tuple[str, ...]
    cells: dict[str, dict[str, Cell]]


def read_run(directory: Path) -> Run:
    """Read a run's directory.

    :raises RunDataError: it has no ``run.json`` of ours.
    """
    facts = read_json(directory / RUN_FILE)
    if facts is None:
        raise RunDataError(
            f"{directory} holds no {RUN_FILE}; name a run's directory, such as eventlet-debug"
        )
    run = msgspec.convert(facts, RunFacts)
    recorded = results.read(directory / RESULTS_FILE)
    hubs = dict.fromkeys(recorded.hubs if recorded else run.hubs)
    cells: dict[str, dict[str, Cell]] = {}
    for result in recorded.tests if recorded else ():
        cells.setdefault(result.test, {})[result.hub] = Cell(result)
    for facts_of_test in _tests(directory):
        _add(cells, facts_of_test, tuple(hubs))
    hubs.update(dict.fromkeys(hub for row in cells.values() for hub in row))
    for row in cells.values():
        for cell in row.values():
            cell.attempts.sort(key=lambda test: test.attempt)
            cell.findings = [
                finding
                for test in cell.attempts
                for finding in read_findings(directory / test.directory)
            ]
    return Run(directory, run, tuple(hubs), cells)


def _tests(directory: Path) -> Iterator[TestFacts]:
    for facts in tests(directory):
        yield msgspec.convert(facts, TestFacts)


def _add(cells: dict[str, dict[str, Cell]], facts: TestFacts, hubs: tuple[str, ...]) -> None:
    """Give an attempt its cell, a new one if no report told of the test."""
    test, named = split_hub(facts.nodeid, hubs)
    hub = named or facts.hub or (hubs[0] if hubs else "")
    if facts.nodeid in cells and named is None:
        test = facts.nodeid
    row = cells.setdefault(test, {})
    if hub not in row:
        row[hub] = Cell(Result(test, hub, facts.nodeid, _outcome(facts), _seconds(facts)))
    row[hub].attempts.append(facts)


def _outcome(facts: TestFacts) -> Outcome:
    known = [outcome for outcome in OUTCOMES if outcome in facts.outcomes.values()]
    return max(known, key=OUTCOMES.index, default="passed")


def _seconds(facts: TestFacts) -> float:
    return sum(end - start for start, end in facts.phases.values()) / 1e9


def read_findings(directory: Path) -> list[Finding]:
    """Return the findings in a test's directory; none if there is no such file."""
    try:
        return msgspec.json.decode((directory / FINDINGS_FILE).read_bytes(), type=list[Finding])
    except (OSError, msgspec.DecodeError):
        return []
