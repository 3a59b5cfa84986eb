"""Findings as lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator

from pytest_eventlet_debug import phrasing
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.model import Finding

# The same trouble of a library's, from many a test.
_OWN_LINE = lazily(r", from [^\s,:]+:\d+ in \S+")
_FIGURES = lazily(r"\d+(?:[.,]\d+)*")
# As strace names it, behind a descriptor.
_FILE = lazily(r"<(/[^<>]*)>(?:\(deleted\))?")
#: A library's line, and the nearest one of the user's own code.
_BOTH_LINES = lazily(r" at [^\s,:]+:\d+ in [^\s,:]+, from (?=[^\s,:]+:\d+ in )")

#: A test around a function.
_OUTER = lazily(r"\b(?:\w+\.)*test\w*\.<locals>\.")

#: Lines of one test that a summary has.
MOST_LINES = 3


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


def shortened(text: str) -> str:
    """Return a line for a summary: of several places in it the user's own lines alone.

    And of functions in a test their own names only: that of the test is above the line.
    """
    text = _OUTER.sub("", text)
    return _BOTH_LINES.sub(" at ", text) if len(_BOTH_LINES.findall(text)) > 1 else text


def grouped(lines: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield lines that are alike once, below their tests.

    The first ones of each test are told, and how many more there are.

    :param lines: a test and a line about it each.
    """
    alike: dict[str, dict[str, str]] = {}
    for test, text in lines:
        alike.setdefault(_gist(text), {}).setdefault(test, text)
    groups: dict[tuple[str, ...], list[str]] = {}
    for texts in alike.values():
        groups.setdefault(tuple(texts), []).append(next(iter(texts.values())))
    for found, texts_of_all in groups.items():
        more = f"   and {len(found) - 1} more" if len(found) > 1 else ""
        told = [shortened(text) for text in texts_of_all[:MOST_LINES]]
        left = len(texts_of_all) - MOST_LINES
        if left > 0:
            told.append(f"... and {phrasing.counted(left, 'more finding')}")
        yield "\n    ".join([f"  {found[0]}{more}", *told])


def _gist(text: str) -> str:
    """Return what lines have in common that are alike.

    Their figures may differ, and the user's own line below a library's. Where there are names of
    files, these may differ instead, as those of temporary files do: it takes the user's own line
    to tell why one of them was opened.
    """
    unnamed = _FILE.sub("", text)
    return _FIGURES.sub("0", _OWN_LINE.sub("", text) if unnamed == text else unnamed)
