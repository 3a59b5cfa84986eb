"""Stalls that the test process saw itself, and what its trace tells of the same moment."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import STALLS_FILE
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind

KIND: Final[Kind] = "stall"

#: The name in ``Finding.counts`` of when it began, in seconds since the epoch.
BEGAN: Final = "began"

#: What a trace shows is a stall if so much of it, or of the stall, is common to both.
_LEAST_COMMON = 0.5


def write(directory: Path, stalls: Sequence[Finding]) -> None:
    """Keep what was seen during a test, in its directory.

    :raises OSError: the file cannot be written.
    """
    json_files.write(directory / STALLS_FILE, list(stalls))


def read(directory: Path) -> list[Finding]:
    """Return what :func:`write` kept; nothing where there is no such file."""
    return json_files.read_ours(directory / STALLS_FILE, list[Finding]) or []


def complete(directory: Path) -> None:
    """Write ``findings.json`` of a test of which there is nothing else to find out.

    :raises OSError: the file cannot be written.
    """
    stalls = read(directory)
    if stalls:
        findings_file.write(directory, findings_file.found(stalls))


def joined(stalls: Sequence[Finding], found: Iterable[Finding]) -> list[Finding]:
    """Return stalls and what a trace shows, with each moment once.

    A stall knows the line of Python, and the trace the system call, or that there was none: that
    becomes evidence of the stall.
    """
    left = []
    whole = list(stalls)
    for finding in found:
        place = next((i for i, each in enumerate(whole) if _is_same(each, finding)), None)
        if place is None:
            left.append(finding)
            continue
        stall, title = whole[place], whole[place].title
        if len(stall.evidence) == len(stalls[place].evidence):  # the first of several
            calls = finding.kind == "blocked"
            title += f": in {finding.evidence[0].text}" if calls else ", without a system call"
        whole[place] = msgspec.structs.replace(
            stall, title=title, evidence=(*stall.evidence, *finding.evidence)
        )
    return [*whole, *left]


def _is_same(stall: Finding, found: Finding) -> bool:
    if BEGAN not in stall.counts or BEGAN not in found.counts or not found.evidence:
        return False
    begins = [each.counts[BEGAN] for each in (stall, found)]
    lengths = [each.counts["seconds"] for each in (stall, found)]
    ends = [began + seconds for began, seconds in zip(begins, lengths, strict=True)]
    return min(ends) - max(begins) >= _LEAST_COMMON * min(lengths)
