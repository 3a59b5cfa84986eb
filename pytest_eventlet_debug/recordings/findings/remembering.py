"""Dictionaries that do not grow with a trace."""

from __future__ import annotations

from typing import TypeVar

MOST = 4096

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def remember(known: dict[_Key, _Value], key: _Key, value: _Value, most: int = MOST) -> None:
    """Keep a value; the oldest goes when there are too many."""
    known.pop(key, None)
    if len(known) == most:
        del known[next(iter(known))]
    known[key] = value
