"""The verdict on an upgrade, as lines of text and as JSON."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import dataclasses
import time
from typing import Any

from pytest_eventlet_debug import phrasing
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.upgrade import comparison
from pytest_eventlet_debug.upgrade.comparison import Change
from pytest_eventlet_debug.upgrade.comparison import Kind
from pytest_eventlet_debug.upgrade.comparison import Upgrade
from pytest_eventlet_debug.upgrade.comparison import Vanished
from pytest_eventlet_debug.upgrade.comparison import Verdict
from pytest_eventlet_debug.upgrade.saved_run import SavedRun

# A pace is worth a line from here on.
_PACE = 1.5

_HEADINGS: tuple[tuple[Kind, str], ...] = (
    ("fails", "fail now, were skipped before"),
    ("skipped", "ran before, are skipped now"),
    ("flips", "flip, though nothing changed"),
    ("flaky", "flaky, their attempts end differently"),
    ("gone", "gone"),
    ("fixed", "fixed"),
    ("still failing", "still failing"),
)
_COUNTED: tuple[tuple[Kind, str], ...] = (
    ("regression", "regression"),
    ("flips", "flipped"),
    ("flaky", "flaky"),
    ("still failing", "still failing"),
    ("fixed", "fixed"),
)


def format_verdict(verdict: Verdict, old: SavedRun, path: object) -> list[str]:
    """Return a verdict as lines of text: the answer first, then what it rests on.

    :param path: the file with the old run.
    """
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(old.started_ns / 1e9))
    lines = [headline(verdict), f"compared with {path} of {when}: {_counts(verdict)}"]
    lines += verdict.notes
    if verdict.unreached:
        lines.append(
            f"not run this time, so not judged: {phrasing.tests(verdict.unreached)} of that run"
        )
    lines += _section("regressions, passed before", verdict.of("regression"), _changed)
    lines += _vanished(verdict.vanished)
    for kind, heading in _HEADINGS[:2]:
        lines += _section(heading, verdict.of(kind), _changed)
    lines += _slower(verdict)
    for kind, heading in _HEADINGS[2:]:
        lines += _section(heading, verdict.of(kind), _changed)
    new = verdict.of("new")
    failing = [change for change in new if change.now in BAD]
    lines += _section(f"new: {phrasing.tests(len(new))}, of which these fail", failing, _changed)
    if new and not failing:
        lines.append(f"new: {phrasing.tests(len(new))}, none fails")
    lines += _upgrades(verdict)
    return lines


def renamed(verdict: Verdict, name: Callable[[str], str]) -> Verdict:
    """Return a verdict in which tests and modules have other names."""
    return dataclasses.replace(
        verdict,
        changes=tuple(dataclasses.replace(each, test=name(each.test)) for each in verdict.changes),
        vanished=tuple(
            dataclasses.replace(
                each,
                uncollected=dataclasses.replace(each.uncollected, node=name(each.uncollected.node)),
            )
            for each in verdict.vanished
        ),
        slower=tuple(dataclasses.replace(each, test=name(each.test)) for each in verdict.slower),
    )


def headline(verdict: Verdict) -> str:
    """Return the answer in one line."""
    regressions = len(verdict.of("regression"))
    broken = len({each.uncollected.node for each in verdict.broken})
    parts = []
    if regressions:
        parts.append("1 regression" if regressions == 1 else f"{regressions} regressions")
    if flips := len(verdict.flipped):
        verb = "fails" if flips == 1 else "fail"
        parts.append(f"{phrasing.tests(flips)} {verb} now, though nothing changed")
    if broken:
        passed = sum(each.passed for each in verdict.broken)
        modules = phrasing.counted(broken, "module")
        parts.append(f"{modules} can no longer be imported ({phrasing.tests(passed)} that passed)")
    if parts:
        return f"got worse: {', '.join(parts)}"
    doubts = [
        f"{count} {words}"
        for count, words in (
            (len(verdict.of("fails")), "failing that were skipped"),
            (len(verdict.of("skipped")), "skipped that ran"),
            (sum(each.count for each in verdict.vanished), "gone with their modules"),
            (len(verdict.slower), "slower"),
            (verdict.unreached, "not run"),
        )
        if count
    ]
    if not verdict.compared:
        return "nothing to compare: no test ran both times"
    if doubts:
        return f"no regression, but {', '.join(doubts)}"
    flaky = len(verdict.of("flaky"))
    return "nothing got worse in these tests" + (f" ({flaky} flaky)" if flaky else "")


def as_json(verdict: Verdict) -> dict[str, Any]:
    """Return a verdict as plain data: its fields, the headline, and whether it is worse."""
    return {
        "headline": headline(verdict),
        "worse": verdict.worse,
        **dataclasses.asdict(verdict),
    }


def _counts(verdict: Verdict) -> str:
    counts = [f"{phrasing.tests(verdict.compared)} compared", f"{verdict.same} as before"]
    for kind, word in _COUNTED:
        number = len(verdict.of(kind))
        if number:
            plural = "s" if kind == "regression" and number > 1 else ""
            counts.append(f"{number} {word}{plural}")
    return ", ".join(counts)


def _section(
    heading: str, changes: Sequence[Change], show: Callable[[list[Change]], Iterable[str]]
) -> Iterator[str]:
    """Yield a heading and a change a line; the same change on several hubs is one."""
    if not changes:
        return
    yield f"{heading}:"
    groups: dict[object, list[Change]] = {}
    for change in changes:
        key = (change.test, change.before, change.now, change.failure)
        groups.setdefault(key, []).append(change)
    shown = ("\n".join(show(group)) for group in groups.values())
    for each in phrasing.first(shown):
        yield from each.splitlines()


def _changed(group: list[Change]) -> Iterator[str]:
    first = group[0]
    hubs = ", ".join(change.hub for change in group)
    words = first.now if first.kind == "new" else f"{first.before} -> {first.now}"
    if first.kind == "still failing":
        words = first.now
    yield f"  {first.test} ({hubs})   {words}"
    if first.failure is not None and first.kind != "still failing":
        yield f"    {first.failure.message}"


def _vanished(vanished: Sequence[Vanished]) -> Iterator[str]:
    groups: dict[object, list[Vanished]] = {}
    for each in vanished:
        key = (each.uncollected.node, each.uncollected.outcome, each.uncollected.failure)
        groups.setdefault(key, []).append(each)
    for group in groups.values():
        first = group[0].uncollected
        hubs = ", ".join(each.uncollected.hub for each in group)
        why = "can no longer be imported" if first.outcome == "error" else "is skipped as a whole"
        tests = phrasing.tests(sum(each.count for each in group))
        passed = sum(each.passed for each in group)
        yield f"{first.node} ({hubs}) {why}: {tests} gone, {passed} passed before"
        origin = f"   (from {group[0].origin})" if group[0].origin else ""
        yield f"  {first.failure.message}{origin}"


def _slower(verdict: Verdict) -> Iterator[str]:
    if verdict.pace >= _PACE:
        yield f"all tests take {verdict.pace:.1f} times as long as before (median)"
    if not verdict.slower:
        return
    times = max(comparison.SLOWER_TIMES, verdict.noise)
    yield (
        f"slower, by {comparison.SLOWER_SECONDS:g} s and {times:.1f} times or more "
        f"beyond the median test:"
    )
    yield from phrasing.first(
        f"  {each.test} ({each.hub})   {each.before:.2f} s -> {each.now:.2f} s"
        for each in verdict.slower
    )


def _upgrades(verdict: Verdict) -> Iterator[str]:
    if not verdict.upgrades:
        yield "no distribution changed"
        return
    likely = any(upgrade.involved for upgrade in verdict.upgrades)
    yield f"changed distributions{', most likely cause first' if likely else ''}:"
    versions = [(upgrade.name, _versions(upgrade)) for upgrade in verdict.upgrades]
    width = max(len(name) for name, _ in versions)
    for upgrade, (name, words) in zip(verdict.upgrades, versions, strict=True):
        failures = phrasing.counted(upgrade.involved, "failure")
        told = f"   appears in {failures}" if upgrade.involved else ""
        yield f"  {name.ljust(width)}  {words}{told}"


def _versions(upgrade: Upgrade) -> str:
    if upgrade.before is None:
        return f"{upgrade.now} added"
    if upgrade.now is None:
        return f"{upgrade.before} removed"
    return f"{upgrade.before} -> {upgrade.now}"
