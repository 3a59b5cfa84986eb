"""Find the smallest part of a list that still does what the whole does.

The algorithm is ``ddmin``: Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing
Input", IEEE Transactions on Software Engineering 28 (2002).
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import TypeVar

_T = TypeVar("_T")


def smallest(items: Sequence[_T], holds: Callable[[Sequence[_T]], bool]) -> list[_T]:
    """Return a part of *items*, in their order, of which no single item can be left out.

    :param items: a list for which *holds* is true.
    :param holds: asked of parts of the list, of no part twice; about 2 log2(n) times where one
        item is to blame, and up to n**2 times at worst.
    """
    known: dict[tuple[int, ...], bool] = {}

    def ask(places: list[int]) -> bool:
        key = tuple(places)
        if key not in known:
            known[key] = holds([items[place] for place in places])
        return known[key]

    left = list(range(len(items)))
    pieces = 2
    while len(left) > 1:
        parts = _split(left, pieces)
        part = next((part for part in parts if ask(part)), None)
        if part is not None:
            left, pieces = part, 2
            continue
        rest = next((rest for rest in _without_each(parts) if ask(rest)), None)
        if rest is not None and pieces > 2:
            left, pieces = rest, pieces - 1
        elif pieces < len(left):
            pieces = min(pieces * 2, len(left))
        else:
            break
    return [items[place] for place in left]


def _split(places: list[int], pieces: int) -> list[list[int]]:
    size, more = divmod(len(places), pieces)
    parts, start = [], 0
    for number in range(pieces):
        end = start + size + (number < more)
        parts.append(places[start:end])
        start = end
    return parts


def _without_each(parts: list[list[int]]) -> list[list[int]]:
    return [
        [place for part in parts if part is not left_out for place in part] for left_out in parts
    ]
