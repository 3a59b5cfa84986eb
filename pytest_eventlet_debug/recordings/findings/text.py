"""Findings as lines of text."""

from __future__ import annotations

from collections.abc import Iterator

from pytest_eventlet_debug.recordings.findings.model import Finding


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
