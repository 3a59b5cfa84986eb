"""Several saved runs of one suite as one: those of a CI matrix, or of parts of the tests."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
from pathlib import Path

from pytest_eventlet_debug.upgrade.saved_run import Key
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError
from pytest_eventlet_debug.upgrade.saved_run import SavedTest
from pytest_eventlet_debug.upgrade.saved_run import Uncollected

#: What a comparison says of an upgrade needs one set of versions. A platform may differ: CI
#: jobs run on machines that are not quite alike.
_ONE_OF = ("suite", "python")


def merge(runs: Sequence[tuple[Path, SavedRun]]) -> SavedRun:
    """Join runs: the tests of all, and of a test that several have run, all attempts.

    :param runs: at least one, each with the file that it was read from.
    :raises SavedRunError: they are not runs of one suite in one environment.
    """
    for path, run in runs[1:]:
        _check_fits(*runs[0], path, run)
    ordered = sorted((run for _, run in runs), key=lambda run: run.started_ns)
    first = ordered[0]
    tests = _tests(ordered)
    ran = {test for test, _ in tests}
    ended_ns = max(run.started_ns + run.seconds * 1e9 for run in ordered)
    return dataclasses.replace(
        first,
        seconds=(ended_ns - first.started_ns) / 1e9,
        exit_status=max(run.exit_status for run in ordered),
        incomplete="; ".join(_troubles(runs)) or None,
        hubs=tuple(dict.fromkeys(hub for _, run in runs for hub in run.hubs)),
        selection=tuple(dict.fromkeys(each for run in ordered for each in run.selection)),
        deselected=tuple(sorted({each for run in ordered for each in run.deselected} - ran)),
        tests=tuple(tests.values()),
        uncollected=tuple(_uncollected(ordered)),
    )


def _check_fits(known: Path, first: SavedRun, path: Path, run: SavedRun) -> None:
    for name in _ONE_OF:
        mine, other = getattr(first, name), getattr(run, name)
        if mine != other:
            raise SavedRunError(f"{known} and {path} differ in {name}: {mine} and {other}")
    for name in sorted({*first.distributions, *run.distributions}):
        versions = [
            each.distributions[name].version if name in each.distributions else "none"
            for each in (first, run)
        ]
        if versions[0] != versions[1]:
            raise SavedRunError(
                f"{known} and {path} have different versions of {name}: {' and '.join(versions)}; "
                "use the subcommand compare for runs of different versions"
            )


def _tests(ordered: Sequence[SavedRun]) -> dict[Key, SavedTest]:
    """Return every test once; of one that several runs have, the last says how it ended."""
    found: dict[Key, SavedTest] = {}
    for run in ordered:
        for test in run.tests:
            before = found.get(test.key)
            if before is not None:
                test = dataclasses.replace(test, attempts=before.attempts + test.attempts)
            found[test.key] = test
    return found


def _uncollected(ordered: Sequence[SavedRun]) -> Iterable[Uncollected]:
    """Return what gave no tests in the last run that came to it."""
    last: dict[Key, Uncollected] = {}
    for run in ordered:
        for test in run.tests:
            for node in test.collectors:
                last.pop((node, test.hub), None)
        last.update((each.key, each) for each in run.uncollected)
    return last.values()


def _troubles(runs: Sequence[tuple[Path, SavedRun]]) -> Iterator[str]:
    for path, run in runs:
        if run.incomplete is not None:
            yield f"{path.name}: {run.incomplete}"
