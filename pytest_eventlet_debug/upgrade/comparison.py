"""Compare two saved runs of a suite: what got worse, and which upgrade is likely to blame.

Pure: two :class:`~.saved_run.SavedRun` in, one :class:`Verdict` out.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import math
import statistics
from typing import Literal

from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.outcomes import OutcomeOrAbsent
from pytest_eventlet_debug.upgrade.saved_run import Failure
from pytest_eventlet_debug.upgrade.saved_run import Key
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError
from pytest_eventlet_debug.upgrade.saved_run import SavedTest
from pytest_eventlet_debug.upgrade.saved_run import Uncollected

Kind = Literal[
    "regression",  # passed before, fails now
    "flips",  # fails now or did before, though nothing changed in between
    "flaky",  # its attempts are not all of one kind
    "fails",  # fails now, and was skipped before
    "skipped",  # ran before, is skipped now
    "still failing",
    "fixed",
    "new",
    "gone",  # its module was collected, and does not have it any more
]
# They change with every upgrade, and no test imports them.
_INSTALLERS = frozenset({"pip", "setuptools", "uv", "wheel"})
GOOD = frozenset({"passed", "xfailed", "xpassed"})

#: A test is slower when it takes this many seconds more and this many times as long, both
#: beyond what the run as a whole takes longer; and this many deviations more than is usual.
SLOWER_SECONDS = 0.5
SLOWER_TIMES = 2.0
SLOWER_DEVIATIONS = 5.0
# Shorter tests are mostly noise. With fewer tests than this there is nothing usual.
_MEASURED_SECONDS = 0.05
_MEASURED_TESTS = 10


@dataclasses.dataclass(frozen=True)
class Change:
    """A test that did not end as before, or that fails as before."""

    kind: Kind
    test: str
    hub: str
    before: OutcomeOrAbsent
    now: OutcomeOrAbsent
    failure: Failure | None = None


@dataclasses.dataclass(frozen=True)
class Vanished:
    """Tests that are not there any more, since their module gave none."""

    uncollected: Uncollected
    #: How many tests it had.
    count: int
    #: How many of them passed.
    passed: int
    #: The distribution that the error came from, if any.
    origin: str | None


@dataclasses.dataclass(frozen=True)
class Slower:
    """A test that takes longer than before, beyond noise; in seconds."""

    test: str
    hub: str
    before: float
    now: float


@dataclasses.dataclass(frozen=True)
class Upgrade:
    """A distribution that is not what it was; a version is ``None`` where there is none."""

    name: str
    before: str | None
    now: str | None
    #: In how many of what got worse it is the changed one that is nearest to the error.
    nearest: int
    #: In how many of what got worse it is in the traceback or in the error's text.
    involved: int


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What differs between two runs."""

    changes: tuple[Change, ...]
    vanished: tuple[Vanished, ...]
    slower: tuple[Slower, ...]
    #: How many times as long as before the tests take, at the median.
    pace: float
    #: How many times as long is usual for one test to vary, beyond the pace.
    noise: float
    #: The most likely cause of what got worse first.
    upgrades: tuple[Upgrade, ...]
    #: How many tests both runs have, on hubs that both have.
    compared: int
    #: How many of them ended as before and do not fail.
    same: int
    #: How many tests of the old run the new one did not come to or was not asked for.
    unreached: int
    #: What else limits the comparison, a sentence each.
    notes: tuple[str, ...]

    def of(self, kind: Kind) -> list[Change]:
        """Return the changes of one kind."""
        return [change for change in self.changes if change.kind == kind]

    @property
    def broken(self) -> list[Vanished]:
        """Modules whose tests passed and that cannot be imported now."""
        return [
            each for each in self.vanished if each.passed and each.uncollected.outcome == "error"
        ]

    @property
    def flipped(self) -> list[Change]:
        """Tests that fail now and passed before, though nothing changed."""
        return [change for change in self.of("flips") if change.now in BAD]

    @property
    def worse(self) -> bool:
        """Whether anything regressed: a test, or a module with tests that passed.

        A test that fails now is worse, whatever the cause.
        """
        return bool(self.of("regression") or self.broken or self.flipped)


def check_same_suite(old: SavedRun, path: object, hubs: Collection[str]) -> None:
    """See that runs can be compared, from what is known before any test runs.

    :param path: the file with the old run.
    :param hubs: the names of the hubs to run now.
    :raises SavedRunError: they have no hub in common.
    """
    if not set(old.hubs) & set(hubs):
        raise SavedRunError(
            f"{path} was saved under the hubs {', '.join(old.hubs)} and this run is under "
            f"{', '.join(hubs)}; there is nothing to compare"
        )


def check_common_tests(old: SavedRun, path: object, tests: Collection[str]) -> None:
    """See that runs have tests in common.

    :param path: the file with the old run.
    :param tests: the tests of the new run, without the hub's suffix.
    :raises SavedRunError: none of them is in the old run.
    """
    known = {each.test for each in old.tests} | set(old.deselected)
    if tests and known and not known.intersection(tests):
        raise SavedRunError(
            f"{path} was saved from a different suite ({old.suite}): none of the tests here is in "
            f"it, such as {min(tests)}; there, for one, is {min(known)}"
        )


def compare(old: SavedRun, new: SavedRun) -> Verdict:
    """Compare a run with an earlier one of the same suite; tests are paired by id and hub."""
    old, new, notes = _on_common_hubs(old, new)
    before = {each.key: each for each in old.tests}
    now = {each.key: each for each in new.tests}
    changes: list[Change] = []
    unchanged = _nothing_changed(old, new)
    for key, test in now.items():
        change = _change(before.get(key), test, old)
        if change is not None and unchanged and change.kind in ("regression", "fixed"):
            change = dataclasses.replace(change, kind="flips")
        if change is not None:
            changes.append(change)
    absent = [test for key, test in before.items() if key not in now]
    vanished, absent = _vanished(absent, new, old)
    reached = [test for test in absent if _was_asked_for(test, new)]
    changes += [Change("gone", each.test, each.hub, each.outcome, "absent") for each in reached]
    common = [(before[key], test) for key, test in now.items() if key in before]
    slower, pace, noise = _slower(common)
    changed = {(change.test, change.hub) for change in changes}
    return Verdict(
        changes=tuple(changes),
        vanished=tuple(vanished),
        slower=tuple(slower),
        pace=pace,
        noise=noise,
        upgrades=_upgrades(old, new, changes, vanished),
        compared=len(common),
        same=sum(1 for _, test in common if test.key not in changed),
        unreached=len(absent) - len(reached),
        notes=(*notes, *_notes(old, new)),
    )


def _on_common_hubs(old: SavedRun, new: SavedRun) -> tuple[SavedRun, SavedRun, list[str]]:
    """Leave out the hubs that one of the runs has not, and say so."""
    common = set(old.hubs) & set(new.hubs)
    notes = []
    for run, words in ((old, "before"), (new, "now")):
        only = [hub for hub in run.hubs if hub not in common]
        if only:
            notes.append(f"ran {words} only, and not compared: {', '.join(only)}")
    return _with_hubs(old, common), _with_hubs(new, common), notes


def _with_hubs(run: SavedRun, hubs: Collection[str]) -> SavedRun:
    return dataclasses.replace(
        run,
        tests=tuple(each for each in run.tests if each.hub in hubs),
        uncollected=tuple(each for each in run.uncollected if each.hub in hubs),
    )


def _change(old: SavedTest | None, new: SavedTest, run: SavedRun) -> Change | None:
    if old is None and (run.incomplete or new.test in run.deselected):
        return None  # it may well have been there
    before: OutcomeOrAbsent = "absent" if old is None else old.outcome
    kind = _kind(old, new)
    if kind is None:
        return None
    return Change(kind, new.test, new.hub, before, new.outcome, new.failure)


def _nothing_changed(old: SavedRun, new: SavedRun) -> bool:
    """Say whether two runs had the same of everything that a saved run knows."""
    return bool(new.distributions) and (old.distributions, old.python, old.platform) == (
        new.distributions,
        new.python,
        new.platform,
    )


def _kind(old: SavedTest | None, new: SavedTest) -> Kind | None:
    """Classify a test of the new run; ``None`` if there is nothing to say of it."""
    if old is None:
        return "new"
    if _mixed(new):
        return None if _mixed(old) and new.outcome in GOOD else "flaky"
    if new.outcome in BAD:
        if _mixed(old):
            return "flaky"
        if old.outcome in BAD:
            return "still failing"
        return "regression" if old.outcome in GOOD else "fails"
    if new.outcome == "skipped":
        return None if old.outcome == "skipped" else "skipped"
    return "fixed" if old.outcome in BAD else None


def _mixed(test: SavedTest) -> bool:
    """Say whether some attempts of a test were good and some were bad."""
    attempts: set[Outcome] = {*test.attempts, test.outcome}
    return bool(attempts & GOOD) and bool(attempts & BAD)


def _vanished(
    absent: Sequence[SavedTest], new: SavedRun, old: SavedRun
) -> tuple[list[Vanished], list[SavedTest]]:
    """Group the tests that are absent by the collector that failed; return the rest too."""
    places: dict[Key, int] = {}
    for place, each in enumerate(new.uncollected):
        places.setdefault(each.key, place)
    gone: list[list[SavedTest]] = [[] for _ in new.uncollected]
    left: list[SavedTest] = []
    for test in absent:
        above = ((node, test.hub) for node in test.collectors)
        place = min((places[key] for key in above if key in places), default=-1)
        (left if place < 0 else gone[place]).append(test)
    found = []
    for each, own in zip(new.uncollected, gone, strict=True):
        if own or each.outcome == "error":
            passed = sum(1 for test in own if test.outcome in GOOD)
            found.append(Vanished(each, len(own), passed, _origin(each.failure, old, new)))
    # A module that could not be imported before is as broken as it was.
    known = {each.key for each in old.uncollected if each.outcome == "error"}
    return [each for each in found if each.count or each.uncollected.key not in known], left


def _was_asked_for(test: SavedTest, run: SavedRun) -> bool:
    """Say whether a run would have had a test if there still was one."""
    if run.incomplete or test.test in run.deselected:
        return False
    return not {"", ".", *test.collectors}.isdisjoint(run.selection)


def _origin(failure: Failure, old: SavedRun, new: SavedRun) -> str | None:
    """Return the distribution that an error came from: the named module's, else the frame's."""
    return next(iter(_involved(failure, old, new)), None)


def _involved(failure: Failure, old: SavedRun, new: SavedRun) -> list[str]:
    """Return the distributions that a failure has to do with, the nearest first."""
    named = [
        name
        for module in failure.modules
        for run in (new, old)  # what was removed is only in the old one
        for name, each in run.distributions.items()
        if module.partition(".")[0] in each.packages
    ]
    return list(dict.fromkeys([*named, *failure.distributions]))


def _upgrades(
    old: SavedRun, new: SavedRun, changes: Sequence[Change], vanished: Sequence[Vanished]
) -> tuple[Upgrade, ...]:
    changed = {
        name: (before, now)
        for name in sorted({*old.distributions, *new.distributions})
        if (before := _version(old, name)) != (now := _version(new, name))
    }
    nearest = dict.fromkeys(changed, 0)
    involved = dict.fromkeys(changed, 0)
    for failure in _worse(changes, vanished):
        suspects = [name for name in _involved(failure, old, new) if name in changed]
        for place, name in enumerate(suspects):
            involved[name] += 1
            nearest[name] += place == 0
    upgrades = [
        Upgrade(name, before, now, nearest[name], involved[name])
        for name, (before, now) in changed.items()
    ]
    return tuple(
        sorted(
            upgrades,
            key=lambda each: (
                -each.nearest,
                -each.involved,
                each.name in _INSTALLERS,
                each.name,
            ),
        )
    )


def _worse(changes: Sequence[Change], vanished: Sequence[Vanished]) -> Iterator[Failure]:
    """Yield the failures of all that got worse."""
    for change in changes:
        if (
            change.kind in ("regression", "flips", "fails", "skipped")
            and change.failure is not None
        ):
            yield change.failure
    for each in vanished:
        yield each.uncollected.failure


def _version(run: SavedRun, name: str) -> str | None:
    distribution = run.distributions.get(name)
    return distribution.version if distribution else None


def _slower(
    common: Sequence[tuple[SavedTest, SavedTest]],
) -> tuple[list[Slower], float, float]:
    """Return the tests that are slower beyond noise, the pace, and the noise as a factor.

    The noise is what these runs show: the spread (five median absolute deviations, scaled to
    standard ones) of how much longer each test takes, among tests of at least 50 ms.
    """
    passed = [(a, b) for a, b in common if a.outcome in GOOD and b.outcome in GOOD]
    ratios = [
        math.log(b.seconds / a.seconds)
        for a, b in passed
        if a.seconds >= _MEASURED_SECONDS and b.seconds > 0
    ]
    pace, noise = 1.0, 1.0
    if len(ratios) >= _MEASURED_TESTS:
        median = statistics.median(ratios)
        deviation = statistics.median(abs(each - median) for each in ratios) * 1.4826
        pace, noise = math.exp(median), math.exp(SLOWER_DEVIATIONS * deviation)
    slower = []
    for a, b in passed:
        expected = a.seconds * max(pace, 1.0)
        times = max(SLOWER_TIMES, noise)
        if b.seconds - expected >= SLOWER_SECONDS and b.seconds >= times * expected:
            slower.append(Slower(b.test, b.hub, a.seconds, b.seconds))
    slower.sort(key=lambda each: each.before - each.now)
    return slower, pace, noise


def _notes(old: SavedRun, new: SavedRun) -> Iterator[str]:
    if old.incomplete:
        yield f"the run before is incomplete ({old.incomplete})"
    if new.incomplete:
        yield f"this run is incomplete ({new.incomplete})"
    if old.python != new.python:
        yield f"Python changed: {old.python} -> {new.python}"
    if old.platform != new.platform:
        yield f"the platform changed: {old.platform} -> {new.platform}"
