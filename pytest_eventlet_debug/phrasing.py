"""How numbers, spans of time and long lists are put, wherever text is printed."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import itertools

#: Lines of each kind that are shown; the rest is counted.
SHOWN = 50


def tests(count: int) -> str:
    """Return ``1 test``, ``2 tests``."""
    return counted(count, "test")


def counted(count: int, noun: str) -> str:
    """Return ``1 timer``, ``2 timers``, ``1,000 timers``."""
    return f"1 {noun}" if count == 1 else f"{count:,} {noun}s"


def and_more(left: int) -> str:
    """Return `` and 3 more`` for the end of a list of which so many are not shown, if any."""
    return f" and {left:,} more" if left > 0 else ""


def listed(names: Sequence[str], most: int) -> str:
    """Return the first of some names, and dots where there are more."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def cut(text: str, most: int) -> str:
    """Return a text of so many characters at most, whose end is dots where it is longer."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def span(ns: int) -> str:
    """Return nanoseconds as ``44 us``, ``1.25 ms`` or ``3.41 s``."""
    if ns < 999_500:
        return f"{ns / 1e3:.0f} us"
    return f"{ns / 1e6:.2f} ms" if ns < 999_995_000 else f"{ns / 1e9:.2f} s"


def first(lines: Iterable[str]) -> Iterator[str]:
    """Yield the first lines, and how many more there are."""
    source = iter(lines)
    yield from itertools.islice(source, SHOWN)
    left = sum(1 for _ in source)
    if left:
        yield f"  and {left} more"
