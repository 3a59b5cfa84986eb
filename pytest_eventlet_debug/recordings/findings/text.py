"""Findings as lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import re

from pytest_eventlet_debug.recordings.findings.model import Finding

# The same trouble of a library's, from many a test.
_OWN_LINE = re.compile(r", from [^\s,:]+:\d+ in \S+")
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
    """Yield lines that differ in their figures alone once, below their tests.

    :param lines: a test and a line about it each.
    """
    alike: dict[str, dict[str, str]] = {}
    for test, text in lines:
        alike.setdefault(_FIGURES.sub("0", _OWN_LINE.sub("", text)), {}).setdefault(test, text)
    groups: dict[tuple[str, ...], list[str]] = {}
    for texts in alike.values():
        groups.setdefault(tuple(texts), []).append(next(iter(texts.values())))
    for found, texts_of_all in groups.items():
        more = f"   and {len(found) - 1} more" if len(found) > 1 else ""
        yield "\n    ".join([f"  {found[0]}{more}", *texts_of_all])
