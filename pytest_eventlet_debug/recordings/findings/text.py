"""Findings as lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import re

from pytest_eventlet_debug.recordings.findings.model import Finding

_FIGURES = re.compile(r"\d+(?:[.,]\d+)*")


def line(finding: Finding) -> str:
    """Say in one line what was found, how sure it is, and where to look."""
    doubt = "" if finding.certainty == "certain" else f" ({finding.certainty})"
    where = f", {finding.place}" if finding.place else ""
    return f"{finding.kind}: {finding.title}{doubt}{where}"


def with_evidence(finding: Finding) -> Iterator[str]:
    """Yield the line of a finding, and below it what shows it."""
    yield line(finding)
    for each in finding.evidence:
        place = "" if each.file is None else f"{each.file}:{each.line or 1}: "
        yield f"  {place}{each.text}"


def grouped(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield lines that differ in their figures alone once, with their tests.

    :param lines: a test and a line about it each.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for test, text in lines:
        groups.setdefault(_FIGURES.sub("0", text), []).append((test, text))
    for group in groups.values():
        test, text = group[0]
        others = len({each for each, _ in group}) - 1
        more = f"   and {others} more" if others else ""
        yield f"  {test}{more}\n    {text}"
