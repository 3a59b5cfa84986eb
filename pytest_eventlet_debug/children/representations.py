"""What is shown of tests that never reported themselves, and of Ctrl-C, as pytest wants it."""

from __future__ import annotations

import re

from pytest_eventlet_debug.pytest_internals import ReprFileLocation
from pytest_eventlet_debug.pytest_internals import TerminalRepr
from pytest_eventlet_debug.pytest_internals import TerminalWriter

_FRAMES_OF_THE_RUNNER = re.compile(r'^  File ".*/(_pytest|pluggy|pytest_eventlet_debug)/')


class Evidence(TerminalRepr):
    """The text of a report on a test that never reported itself.

    :param path: the test's file, and *line* its line from 0.
    :param verdict: what happened, in one line.
    :param sections: titles and texts of what is known.
    """

    def __init__(
        self, path: str, line: int | None, verdict: str, sections: list[tuple[str, str]]
    ) -> None:
        self.reprcrash = ReprFileLocation(path, (line or 0) + 1, verdict)
        self.sections = [(title, text) for title, text in sections if text.strip()]

    def toterminal(self, tw: TerminalWriter) -> None:
        tw.line(self.reprcrash.message, red=True, bold=True)
        for title, text in self.sections:
            tw.line()
            tw.line(f"{title}:")
            for line in text.strip().splitlines():
                if not _FRAMES_OF_THE_RUNNER.search(line):
                    tw.line(f"  {line}")


class _Place:
    """Where an exception was raised, in the words of a child."""

    def __init__(self, place: str, message: str) -> None:
        self.message = message
        self._place = place

    def toterminal(self, tw: TerminalWriter) -> None:
        tw.line(f"{self._place}: {self.message}")


class Interruption(TerminalRepr):
    """Ctrl-C, as it met a child.

    :param place: where it was.
    :param text: the whole traceback, for ``--full-trace``.
    """

    def __init__(self, place: str, text: str = "") -> None:
        self.reprcrash = _Place(place, "KeyboardInterrupt")
        self._text = text

    def toterminal(self, tw: TerminalWriter) -> None:
        tw.line(self._text)
