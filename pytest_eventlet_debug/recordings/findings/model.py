"""What a finding is: one thing that a recording tells, with the place that shows it."""

from __future__ import annotations

from typing import Literal

import msgspec

Certainty = Literal["certain", "likely", "seen once", "cut trace"]


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line of an artifact that shows what a finding says.

    :param text: the line as it stands there, or what it says in short.
    :param file: the artifact, relative to the test's directory; ``None`` for what no file holds.
    :param line: the line in it, from 1; of a capture the packet's number.
    """

    text: str
    file: str | None = None
    line: int | None = None


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that was found out about a test.

    :param kind: a name from the registry, such as ``storm``.
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
        """Where to look: ``strace.txt line 17``, or nothing."""
        for each in self.evidence:
            if each.file is not None:
                return each.file if each.line is None else f"{each.file} line {each.line}"
        return ""
