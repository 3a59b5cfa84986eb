"""What a finding is: one thing that a recording tells, with the place that shows it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug.artifact_names import CAPTURE_FILE

Certainty = Literal["certain", "likely", "seen once", "cut trace"]

#: Each has a page in ``docs/findings/``.
Kind = Literal[
    "blocked",
    "busy",
    "child",
    "closed",
    "hub busy",
    "hub cost",
    "hub idle",
    "left open",
    "long trace",
    "no turn",
    "not accepted",
    "reused descriptor",
    "spin",
    "stale answer",
    "stall",
    "storm",
    "wire",
]

#: Kinds that say something is wrong even where the test passes. Others tell why one failed:
#: a reset connection is what many a test is about.
TELLING_ALONE: frozenset[Kind] = frozenset(
    ("blocked", "hub busy", "left open", "long trace", "spin", "stall", "storm")
)


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of an artifact that shows what a finding says.

    :param text: the line as it stands there, or what it says in short.
    :param file: the artifact, relative to the test's directory; ``None`` for what no file holds.
    :param line: the line in it, from 1; of a capture the number that Wireshark shows.
    """

    text: str
    file: str | None = None
    line: int | None = None


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was found out about a test.

    :param kind: one of :data:`Kind`, but for what another version has found.
    :param title: what happened, in one line, with its figures.
    :param evidence: what shows it, the most telling first.
    :param certainty: how sure it is. ``cut trace``: figures are of what is left of a trace.
    :param counts: the figures of the title by name, for programs; seconds are ``seconds``.
    :param nodeid: the test, with its hub.
    :param hub: the hub's name.
    :param block: of a recorded block the directory's name, else ``None``.
    """

    kind: str
    title: str
    evidence: tuple[Evidence, ...] = ()
    certainty: Certainty = "certain"
    counts: dict[str, float] = {}
    nodeid: str = ""
    hub: str | None = None
    block: str | None = None

    @property
    def place(self) -> str:
        """Where to look: ``strace.txt line 17``, ``capture.pcapng packet 9``, or nothing."""
        for each in self.evidence:
            if each.file is not None:
                part = "packet" if CAPTURE_FILE in each.file else "line"
                return each.file if each.line is None else f"{each.file} {part} {each.line}"
        return ""


def redacted(finding: Finding, redact: Callable[[str], str]) -> Finding:
    """Return a finding without what *redact* takes out of its texts."""
    evidence = tuple(replace(each, text=redact(each.text)) for each in finding.evidence)
    return replace(finding, title=redact(finding.title), evidence=evidence)


class Tally(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a test did in its call phase, in figures.

    :param calls: how often each system call was made, children included.
    :param objects: of the calls on the test's own sockets, by the part that each plays, such as
        ``client 1``.
    :param seconds: from the first to the last call.
    :param slept: seconds of these that the hub slept until a timer was due.
    :param line: of the longest such sleep in the trace; ``None`` without any.
    :param cpu: seconds of CPU that its thread used; ``None`` where that is not known.
    :param long_sleeps: how many such sleeps took 0.1 s or more.
    """

    calls: dict[str, int] = {}
    objects: dict[str, dict[str, int]] = {}
    seconds: float = 0.0
    slept: float = 0.0
    line: int | None = None
    cpu: float | None = None
    long_sleeps: int = 0
