"""What pytest says of a test that did not pass, and what the test printed."""

from __future__ import annotations

import pytest

#: Characters of a failure or of a section that are kept; what is longer loses its middle.
MAX_CHARACTERS = 100_000


class Texts:
    """The texts of one attempt's reports, bounded in size.

    ``failures`` are as pytest shows them, of all phases that failed; ``sections`` what the test
    printed and what plugins added, by title.
    """

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.sections: dict[str, str] = {}

    def take(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        """Take in a report that does not say "passed"."""
        if isinstance(report.longrepr, tuple):  # a skip: path, line, reason
            return
        self.failures.append(shortened(report.longreprtext))
        # Each report of a test has the sections of those before it.
        self.sections.update((title, shortened(text)) for title, text in report.sections)

    @property
    def failure(self) -> str:
        """All failures, one after the other."""
        return shortened("\n".join(self.failures))


def shortened(text: str) -> str:
    """Return a text without its middle if it is too long."""
    if len(text) <= MAX_CHARACTERS:
        return text
    half = MAX_CHARACTERS // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n[... {left_out:,} characters are left out ...]\n{text[-half:]}"
