"""How the outcomes of tests differ between hubs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from collections.abc import Iterable
from collections.abc import Mapping
import dataclasses

from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.outcomes import OutcomeOrAbsent


@dataclasses.dataclass(frozen=True)
class Difference:
    """A test that did not end alike on all hubs that have it."""

    #: Node id without the hub's suffix.
    test: str
    #: Hub and outcome, in the order of the hubs.
    outcomes: tuple[tuple[str, OutcomeOrAbsent], ...]


@dataclasses.dataclass(frozen=True)
class ModuleDifference:
    """Tests of one module that exist on some of the hubs only."""

    module: str
    count: int
    present: tuple[str, ...]
    absent: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What differs between hubs; falsy if nothing does."""

    #: The hubs that were compared, in order.
    hubs: tuple[str, ...]
    differences: tuple[Difference, ...]
    modules: tuple[ModuleDifference, ...]
    #: How many tests ran on two or more of the hubs.
    common: int = 0

    def __bool__(self) -> bool:
        return bool(self.differences or self.modules)


def compare_outcomes(
    outcomes: Mapping[str, Mapping[str, Outcome]],
    excluded: Iterable[str] = (),
    chosen: Mapping[str, Container[str]] | None = None,
) -> Comparison:
    """Compare how tests ended on each hub.

    :param outcomes: for each hub, in the order to show, the outcome of each test by
        its node id without the hub's suffix.
    :param excluded: hubs that did not run to the end. Nothing is said of them: a test
        that is missing there may only not have been reached.
    :param chosen: tests that the user asked for on some hubs only, and those hubs. That they
        did not run on the others is no difference.
    """
    left_out = frozenset(excluded)
    hubs = tuple(hub for hub in outcomes if hub not in left_out)
    tests = dict.fromkeys(test for hub in hubs for test in outcomes[hub])
    differences: list[Difference] = []
    modules: Counter[tuple[str, tuple[str, ...], tuple[str, ...]]] = Counter()
    common = 0
    for test in tests:
        asked = (chosen or {}).get(test, hubs)
        present = tuple(hub for hub in hubs if test in outcomes[hub])
        absent = tuple(hub for hub in hubs if hub in asked and hub not in present)
        common += len(present) > 1
        if absent:
            modules[test.partition("::")[0], present, absent] += 1
        if len({outcomes[hub][test] for hub in present}) > 1:
            ended = tuple((hub, _outcome(outcomes[hub], test)) for hub in hubs)
            differences.append(Difference(test, ended))
    return Comparison(
        hubs,
        tuple(differences),
        tuple(
            ModuleDifference(module, count, present, absent)
            for (module, present, absent), count in modules.items()
        ),
        common,
    )


def _outcome(outcomes: Mapping[str, Outcome], test: str) -> OutcomeOrAbsent:
    return outcomes.get(test, "absent")
