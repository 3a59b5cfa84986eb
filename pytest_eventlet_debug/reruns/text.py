"""What differs between hubs, as lines of text."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools
import re

from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.outcomes.outcomes import ModuleDifference
from pytest_eventlet_debug.phrasing import first
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.reruns.costs import costs
from pytest_eventlet_debug.reruns.costs import parting
from pytest_eventlet_debug.reruns.differences import HubDifferences
from pytest_eventlet_debug.reruns.judgement import Judgement
from pytest_eventlet_debug.reruns.judgement import Kind

#: A skip with such a reason was meant for the hub.
_FOR_A_HUB = re.compile(r"\b(?:hubs?|epolls?|polls?|selects?|kqueue|asyncio)\b", re.IGNORECASE)

#: What is found in the recordings of an attempt, a line each.
Findings = Callable[[Attempt], Sequence[str]]


def difference_lines(
    differences: HubDifferences, gathering: Gathering, findings: Findings
) -> Iterator[str]:
    """Yield the tests that differ with what is known of the reason, then those that only seem to.

    :param findings: what recordings of a failed attempt tell.
    """
    comparison = differences.comparison
    if comparison is None:
        return
    judged = differences.judgements
    by_design = {test: why for test in judged if (why := _skipped_for_hub(differences, test))}
    groups: dict[Kind, list[str]] = {}
    for test, judgement in judged.items():
        if test not in by_design:
            groups.setdefault(judgement.kind, []).append(test)
    if len(comparison.hubs) > 1:
        yield _headline(len(groups.get("differs", ())), comparison.hubs, comparison.modules)
        yield from _rows(differences, groups.get("differs", []), findings)
    yield from _group(differences, "fails differently", groups, findings)
    yield from _group(differences, "flaky", groups, findings)
    yield from _costs(differences)
    yield from _modules(comparison.modules, gathering)
    yield from _by_design(by_design)
    for hub, trouble in differences.unfinished.items():
        why = f" ({trouble})" if trouble else ""
        yield f"the run under {hub} is incomplete{why} and not compared"


def _headline(differing: int, hubs: Sequence[str], modules: Sequence[ModuleDifference]) -> str:
    verb = "test differs" if differing == 1 else "tests differ"
    line = f"{differing or 'no'} {verb} between {', '.join(hubs)}"
    partial = sum(module.count for module in modules)
    if not partial:
        return line
    return f"{line}; {partial} {'is' if partial == 1 else 'are'} on some of them only"


def _group(
    differences: HubDifferences, kind: Kind, groups: dict[Kind, list[str]], findings: Findings
) -> Iterator[str]:
    found = groups.get(kind, [])
    if not found:
        return
    verb = "is" if len(found) == 1 else "are"
    fail = "fails" if len(found) == 1 else "fail"
    yield {
        "flaky": f"{tests(len(found))} {verb} flaky: the outcome varies on one and the same hub",
        "fails differently": f"{tests(len(found))} {fail} on each hub, in another way:",
    }[kind]
    yield from _rows(differences, found, findings)


def _rows(differences: HubDifferences, found: Sequence[str], findings: Findings) -> Iterator[str]:
    rows = [[test, *_columns(differences.judgements[test])] for test in found]
    # A test that one of the hubs does not have makes a shorter row.
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    yield from first(
        "\n".join(
            [
                f"  {'   '.join(map(str.ljust, row, widths)).rstrip()}",
                *_reasons(differences.attempts(row[0]), findings),
                *(f"    {line}" for line in parting(differences.recordings(row[0]))),
            ]
        )
        for row in rows
    )


def _columns(judgement: Judgement) -> list[str]:
    return [f"{hub} {words}" for hub, words in judgement.hubs]


def _reasons(attempts: dict[str, list[Attempt]], findings: Findings) -> Iterator[str]:
    """Yield why a test failed on each hub where it did: two lines or three a hub."""
    for hub, of_hub in attempts.items():
        failed = next((each for each in of_hub if each.outcome in BAD), None)
        if failed is None:
            continue
        lines = list(failed.cause.lines()) if failed.cause is not None else []
        for line in [*lines, *findings(failed)][:4]:
            yield f"    {hub}: {line}"


def _costs(differences: HubDifferences) -> Iterator[str]:
    """Yield the tests that end alike on all hubs, and cost more on one of them."""
    found = []
    for test in differences.alike:
        lines = list(costs(differences.recordings(test)))
        if lines:
            found.append("\n".join([f"  {test}", *(f"    {line}" for line in lines)]))
    if found:
        yield f"{tests(len(found))} {'costs' if len(found) == 1 else 'cost'} more on one hub:"
        yield from first(found)


def _skipped_for_hub(differences: HubDifferences, test: str) -> str | None:
    """Return the reason of a skip that was meant for a hub, if that is all that differs."""
    attempts = [each for of_hub in differences.attempts(test).values() for each in of_hub]
    if any(each.outcome in BAD for each in attempts):
        return None
    reasons = [
        each.cause.error
        for each in attempts
        if each.outcome == "skipped" and each.cause is not None
    ]
    return next((reason for reason in reasons if _FOR_A_HUB.search(reason)), None)


def _modules(modules: Sequence[ModuleDifference], gathering: Gathering) -> Iterator[str]:
    for module in modules:
        line = (
            f"{module.module}   {tests(module.count)} on {', '.join(module.present)} only, "
            f"not on {', '.join(module.absent)}"
        )
        known = (gathering.uncollected.get((module.module, hub)) for hub in module.absent)
        cause = next((each.cause for each in known if each is not None), None)
        yield f"  {line}" + (f": {_reason(cause.error)}" if cause is not None else "")


def _by_design(skipped: dict[str, str]) -> Iterator[str]:
    """Yield a line for each reason for which tests are skipped on a hub."""
    counts: dict[str, int] = {}
    for reason in skipped.values():
        counts[reason] = counts.get(reason, 0) + 1
    for reason, count in counts.items():
        verb = "is" if count == 1 else "are"
        yield f"by design, {tests(count)} {verb} skipped on a hub: {_reason(reason)}"


def _reason(skip: str) -> str:
    """Return the reason of a skip as it was given."""
    return skip.removeprefix("Skipped: ")
