"""``findings.json``: what was found out about a test, in its directory."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import FINDINGS_FILE
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Tally

Format = Literal["pytest-eventlet-debug findings"]
FORMAT: Format = "pytest-eventlet-debug findings"
SCHEMA = 1


class Findings(msgspec.Struct, kw_only=True, frozen=True):
    """What a ``findings.json`` holds.

    :param findings: of a test and its blocks, the most telling of each kind first.
    :param tally: what the test did in its call phase, in figures; ``None`` without a trace.
    :param problems: what could not be read, a line each; findings may be missing then.
    """

    format: Format
    schema: int = SCHEMA
    findings: tuple[Finding, ...] = ()
    tally: Tally | None = None
    problems: tuple[str, ...] = ()


def found(
    findings: Iterable[Finding] = (), problems: Iterable[str] = (), tally: Tally | None = None
) -> Findings:
    """Return what was found out about a test, to be written or shown."""
    return Findings(format=FORMAT, findings=tuple(findings), problems=tuple(problems), tally=tally)


def in_place(findings: Iterable[Finding], directory: Path) -> Iterator[Finding]:
    """Name the files that show findings as they are called now, where they have been packed.

    :param directory: the test's.
    """
    for finding in findings:
        evidence = tuple(_in_place(each, directory) for each in finding.evidence)
        yield replace(finding, evidence=evidence)


def _in_place(evidence: Evidence, directory: Path) -> Evidence:
    if evidence.file is None or (directory / evidence.file).exists():
        return evidence
    packed = packing.packed(directory / evidence.file)
    if not packed.exists():
        return evidence
    return replace(evidence, file=str(packed.relative_to(directory)))


def read(directory: Path) -> Findings | None:
    """Return what was found out about a test; ``None`` where nothing is written of it.

    :param directory: the test's.
    """
    return json_files.read_ours(directory / FINDINGS_FILE, Findings)


def write(directory: Path, findings: Findings) -> None:
    """Write what was found out about a test into its directory.

    :raises OSError: the file cannot be written.
    """
    json_files.write_first(directory / FINDINGS_FILE, findings)
