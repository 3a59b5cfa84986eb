"""What is told of a test that the hubs set apart: how, and the reason as far as it is known."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import Literal

import msgspec

from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.reruns.company import depends_on_company
from pytest_eventlet_debug.reruns.company import failed_in_run_alone
from pytest_eventlet_debug.reruns.judgement import Judgement
from pytest_eventlet_debug.reruns.judgement import ending_of

VerdictKind = Literal["differs", "fails differently", "flaky", "costs more", "by design"]

#: Lines of reasons for each hub.
_MOST_REASONS = 3

#: A skip with such a reason was meant for the hub.
_FOR_A_HUB = lazily(r"\b(?:hubs?|epolls?|polls?|selects?|kqueue|asyncio)\b", re.IGNORECASE)

#: What recordings of an attempt tell, a line each.
Findings = Callable[[Attempt], Sequence[str]]


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """What all runs of a test say of how it depends on the hub.

    :param test: the node id without the hub.
    :param kind: ``by design`` where a skip names a hub, ``costs more`` where it ends alike on
        all hubs.
    :param hubs: for each hub how often it failed there, in words.
    :param reasons: a line each, the most telling first.
    :param parting: where its traces on two hubs part, side by side.
    """

    test: str
    kind: VerdictKind
    hubs: tuple[tuple[str, str], ...] = ()
    reasons: tuple[str, ...] = ()
    parting: tuple[str, ...] = ()


def of_judged(
    test: str,
    judgement: Judgement,
    attempts: Mapping[str, Sequence[Attempt]],
    recordings: Mapping[str, str],
    findings: Findings,
    in_company: Mapping[str, Sequence[Attempt]],
    others_left_out: bool,
) -> Verdict | None:
    """Return what to tell of a test whose attempts differ, if there is anything to tell.

    :param attempts: all of it, by hub.
    :param recordings: the directories of what was recorded of it, by hub.
    :param in_company: how it ended after the earlier tests of its module, by hub; where it failed
        every time, it depends on these.
    :param others_left_out: whether it was rerun without some of the tests that ran before it.
    """
    if judgement.kind == "same":
        return None
    reason = _skip_for_hub(attempts)
    if reason is not None:
        return Verdict(test, "by design", reasons=(reason,))
    ran = {
        hub: directory
        for hub, directory in recordings.items()
        if any(each.outcome != "skipped" for each in attempts.get(hub, ()))
    }
    return Verdict(
        test,
        judgement.kind,
        judgement.hubs,
        (
            *_reasons(attempts, findings, ran),
            *(_only_in_the_run(attempts, in_company) if others_left_out else ()),
        ),
        _parting(_that_ended_otherwise(ran, attempts)),
    )


def _that_ended_otherwise(
    ran: Mapping[str, str], attempts: Mapping[str, Sequence[Attempt]]
) -> dict[str, str]:
    """Return the first hub and the first on which the test ended otherwise, with recordings."""
    endings = {hub: {ending_of(each) for each in attempts[hub]} for hub in ran}
    first = next(iter(ran), None)
    other = next((hub for hub in ran if first and endings[hub] != endings[first]), None)
    return {hub: ran[hub] for hub in (first, other) if hub}


def _parting(ran: Mapping[str, str]) -> tuple[str, ...]:
    if len(ran) < 2:
        return ()
    from pytest_eventlet_debug.reruns.costs import parting  # reads traces

    return tuple(parting(ran))


def of_alike(test: str, recordings: Mapping[str, str]) -> Verdict | None:
    """Return what to tell of a test that ends alike on all hubs: what it costs, if that differs."""
    if len(recordings) < 2:
        return None
    from pytest_eventlet_debug.reruns.costs import costs  # reads traces

    found = tuple(costs(recordings))
    return Verdict(test, "costs more", reasons=found) if found else None


def without_prefix(skip: str) -> str:
    """Return the reason of a skip as it was given."""
    return skip.removeprefix("Skipped: ")


def _reasons(
    attempts: Mapping[str, Sequence[Attempt]], findings: Findings, recordings: Mapping[str, str]
) -> Iterator[str]:
    """Yield why a test failed on each hub where it did, or was skipped."""
    for hub, of_hub in attempts.items():
        failed = next((each for each in of_hub if each.outcome in BAD), None)
        skipped = next((each for each in of_hub if each.outcome == "skipped"), None)
        told = failed or skipped
        if told is None:
            continue
        lines = list(told.cause.lines()) if told.cause is not None else []
        if told is failed:
            lines += [*_left_there(hub, failed, recordings), *findings(failed)]
        for line in lines[:_MOST_REASONS]:
            yield f"{hub}: {line}"


def _left_there(hub: str, failed: Attempt, recordings: Mapping[str, str]) -> Iterator[str]:
    if failed.cause is None or len(recordings) < 2:
        return
    from pytest_eventlet_debug.reruns.costs import left_by_another_hub  # reads traces

    line = left_by_another_hub(failed.cause.error, hub, recordings)
    if line is not None:
        yield line


def _only_in_the_run(
    attempts: Mapping[str, Sequence[Attempt]], in_company: Mapping[str, Sequence[Attempt]]
) -> Iterator[str]:
    """Yield where a test failed among all others, and not once when it ran again without them."""
    for hub, of_hub in attempts.items():
        if not failed_in_run_alone(of_hub):
            continue
        passed = f"passed in {counted(len(of_hub) - 1, 'rerun')}"
        if depends_on_company(in_company.get(hub, ())):
            yield (
                f"{hub}: fails only after earlier tests of its module, {passed} without them; "
                "--eventlet-culprit finds which"
            )
        else:
            yield (
                f"{hub}: failed in the run, {passed} without the tests that do not differ; "
                "--eventlet-culprit looks for an earlier test that makes it fail"
            )


def _skip_for_hub(attempts: Mapping[str, Sequence[Attempt]]) -> str | None:
    """Return the reason of a skip that was meant for a hub, if that is all that differs."""
    every = [each for of_hub in attempts.values() for each in of_hub]
    if any(each.outcome in BAD for each in every):
        return None
    reasons = [
        without_prefix(each.cause.error)
        for each in every
        if each.outcome == "skipped" and each.cause is not None
    ]
    return next((reason for reason in reasons if _FOR_A_HUB.search(reason)), None)
