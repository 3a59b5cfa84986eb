"""What differs between hubs, as lines of text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import itertools

from pytest_eventlet_debug.outcomes.comparison import ModuleDifference
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.phrasing import first
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.recordings.findings.text import shortened
from pytest_eventlet_debug.reruns.differences import MOST
from pytest_eventlet_debug.reruns.differences import HubDifferences
from pytest_eventlet_debug.reruns.verdicts import Verdict
from pytest_eventlet_debug.reruns.verdicts import VerdictKind
from pytest_eventlet_debug.reruns.verdicts import without_prefix

# Where a reason, and what diverges, is in the traces.
_LINE_CITED = lazily(r"(\b(?:strace\.txt(?:\.gz)?|trace) line |\(line )\d+")
_LINE_OF_STEP = lazily(r"\bline \d+")
# How often a rerun test fails under a hub where it never does, or always.
_NEVER = lazily(r"^failed 0 of \d+$")
_ALWAYS = lazily(r" (\d+) of \1\b")
_SKIPPED = lazily(r"^\S+: Skipped\b")
_BARE = lazily(r"^\S+: (?:AssertionError: )?(?:assert (?:False|None|0|''|\[\]|\{\}|\(\)))?$")
_BY_OUTCOME: set[VerdictKind] = {"differs", "fails differently", "flaky"}


def difference_lines(differences: HubDifferences, gathering: Gathering) -> Iterator[str]:
    """Yield the tests that differ with the reason, then those that only seem to."""
    comparison = differences.comparison
    if comparison is None:
        return
    groups: dict[VerdictKind, list[Verdict]] = {}
    for verdict in differences.verdicts:
        groups.setdefault(verdict.kind, []).append(verdict)
    if comparison.common or comparison.modules:
        differing = groups.get("differs", [])
        yield _headline(len(differing), comparison.hubs, comparison.modules)
        once = sum(verdict.test in differences.not_rerun for verdict in differing)
        if once:
            yield f"{once} of them seen once: at most {MOST} are rerun"
        yield from _rows(differing, gathering, differences.not_rerun)
    for kind in ("fails differently", "flaky"):
        yield from _group(kind, groups.get(kind, []), gathering, differences.not_rerun)
    if groups.keys() & _BY_OUTCOME:
        yield from _without_cpu(differences.without_cpu)
    yield from _costs(groups.get("costs more", []), gathering)
    yield from _modules(comparison.modules, gathering)
    yield from _by_design(groups.get("by design", []))
    for hub, trouble in differences.unfinished.items():
        why = f" ({trouble})" if trouble else ""
        yield f"the run under {hub} is incomplete{why} and not compared"


def _without_cpu(shares: Mapping[str, float]) -> Iterator[str]:
    """Say of which hubs the tests had to wait for a CPU for much of their time."""
    if shares:
        told = ", ".join(f"{share:.0%} of the time under {hub}" for hub, share in shares.items())
        yield (
            f"the CPUs were busy with other processes {told}; "
            "tests that depend on timing may fail for that reason alone"
        )


def _headline(differing: int, hubs: Sequence[str], modules: Sequence[ModuleDifference]) -> str:
    verb = "test differs" if differing == 1 else "tests differ"
    line = f"{differing or 'no'} {verb} between {', '.join(hubs)}"
    partial = sum(module.count for module in modules)
    if not partial:
        return line
    return f"{line}; {partial} {'exists' if partial == 1 else 'exist'} on only some of them"


def _group(
    kind: VerdictKind, found: Sequence[Verdict], gathering: Gathering, once: Container[str]
) -> Iterator[str]:
    if not found:
        return
    verb = "is" if len(found) == 1 else "are"
    fail = "fails" if len(found) == 1 else "fail"
    yield {
        "flaky": f"{tests(len(found))} {verb} flaky: the outcome varies on the same hub",
        "fails differently": f"{tests(len(found))} {fail} on every hub, in different ways:",
    }[kind]
    yield from _rows(found, gathering, once)


def _rows(found: Sequence[Verdict], gathering: Gathering, once: Container[str]) -> Iterator[str]:
    """Yield a row for each test, with its reasons, and what has the same reasons below it.

    :param once: the tests that were not rerun.
    """
    groups = _alike(found, once)
    rows = [[gathering.shown(group[0].test), *map(" ".join, group[0].hubs)] for group in groups]
    # A test that one of the hubs does not have makes a shorter row.
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    yield from first(
        "\n".join(
            [
                f"  {'   '.join(map(str.ljust, row, widths)).rstrip()}",
                *(f"    {shortened(line)}" for line in verdict.reasons),
                *(f"    {line}" for line in verdict.parting),
                *_others(verdict, others, gathering, once),
            ]
        )
        for row, (verdict, *others) in zip(rows, groups, strict=True)
    )


def _alike(found: Sequence[Verdict], once: Container[str]) -> list[list[Verdict]]:
    """Put what has the same reasons together, those first that were rerun."""
    groups: dict[object, list[Verdict]] = {}
    for verdict in sorted(found, key=lambda verdict: verdict.test in once):
        # Nothing in common without a reason.
        told = _told(verdict) if not all(map(_says_nothing, verdict.reasons)) else verdict.test
        groups.setdefault(told, []).append(verdict)
    return list(groups.values())


def _says_nothing(reason: str) -> bool:
    """Say whether the reason under a hub is one that any two tests may have in common."""
    return _SKIPPED.match(reason) is not None or _BARE.search(reason) is not None


def _told(verdict: Verdict) -> object:
    """Return all that is told of a test but numbers: of attempts, and of lines of its traces."""
    hubs = [(hub, _ALWAYS.sub("", _NEVER.sub("passed", words))) for hub, words in verdict.hubs]
    reasons = [_LINE_CITED.sub(r"\1", line) for line in verdict.reasons]
    # The first of two columns is padded.
    parting = [" ".join(_LINE_OF_STEP.sub("line", line).split()) for line in verdict.parting]
    return tuple(hubs), tuple(reasons), tuple(parting)


def _others(
    told: Verdict, alike: Sequence[Verdict], gathering: Gathering, once: Container[str]
) -> Iterator[str]:
    if alike:
        same = {(verdict.reasons, verdict.parting) for verdict in (told, *alike)}
        how = "word for word the same" if len(same) == 1 else "the same on other lines of the trace"
        seen = 0 if told.test in once else sum(verdict.test in once for verdict in alike)
        of_them = f", {seen} of them seen once" if seen else ""
        yield f"    {how} for {counted(len(alike), 'other test')}{of_them}:"
        for line in first(
            f"  {gathering.shown(verdict.test)}{_other_counts(told, verdict, once)}"
            for verdict in alike
        ):
            yield f"    {line}"


def _other_counts(told: Verdict, alike: Verdict, once: Container[str]) -> str:
    """Say how often a test failed that was rerun another number of times than the one told."""
    if alike.hubs == told.hubs or alike.test in once:
        return ""
    return "".join(f"   {hub} {words}" for hub, words in alike.hubs)


def _costs(found: Sequence[Verdict], gathering: Gathering) -> Iterator[str]:
    """Yield the tests that end alike on all hubs, and cost more on one of them."""
    if found:
        yield f"{tests(len(found))} cost more on one hub in this run:"
        yield from first(
            "\n".join(
                [
                    f"  {gathering.shown(verdict.test)}",
                    *(f"    {line}" for line in verdict.reasons),
                ]
            )
            for verdict in found
        )


def _modules(modules: Sequence[ModuleDifference], gathering: Gathering) -> Iterator[str]:
    for module in modules:
        shown, present = gathering.shown(module.module), ", ".join(module.present)
        line = (
            f"{shown}   {tests(module.count)} on {present} only, not on {', '.join(module.absent)}"
        )
        known = (gathering.uncollected.get((module.module, hub)) for hub in module.absent)
        cause = next((each.cause for each in known if each is not None), None)
        yield f"  {line}" + (f": {without_prefix(cause.error)}" if cause is not None else "")


def _by_design(skipped: Sequence[Verdict]) -> Iterator[str]:
    """Yield a line for each reason for which tests are skipped on a hub."""
    for (reason,), count in Counter(verdict.reasons for verdict in skipped).items():
        verb = "is" if count == 1 else "are"
        yield f"by design, {tests(count)} {verb} skipped on a hub: {reason}"
