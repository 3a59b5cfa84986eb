"""``--eventlet-redact``: keep what matches a regular expression out of texts that are kept."""

from __future__ import annotations

import re

PLACEHOLDER = "[redacted]"


class Redaction:
    """Replaces what matches by :data:`PLACEHOLDER`.

    :param pattern: a regular expression; ``None`` to leave every text as it is.
    :raises ValueError: it is none.
    """

    def __init__(self, pattern: str | None) -> None:
        self.pattern = pattern
        try:
            self._expression = None if pattern is None else re.compile(pattern, re.MULTILINE)
        except re.error as error:
            raise ValueError(f"is not a regular expression ({error})") from None

    def __call__(self, text: str) -> str:
        return text if self._expression is None else self._expression.sub(PLACEHOLDER, text)


def parse(pattern: str) -> Redaction:
    """Return what a value of the option stands for.

    :raises ValueError: it is no regular expression, or matches where there is nothing.
    """
    redaction = Redaction(pattern)
    if redaction(""):
        raise ValueError("matches the empty string, and so everywhere")
    return redaction
