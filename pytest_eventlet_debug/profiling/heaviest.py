"""What a profile says in a few lines; made of its file alone."""

from __future__ import annotations

from collections.abc import Iterator
import os
from pathlib import Path
import pstats
from typing import Any

#: How many functions are named.
HEAVIEST = 3

#: In these C functions a thread waits for something from outside the process.
IDLE = (
    "<method 'poll' of 'select.epoll' objects>",
    "<method 'poll' of 'select.poll' objects>",
    "<method 'control' of 'select.kqueue' objects>",
    "<built-in method select.select>",
    "<built-in method time.sleep>",
)

#: In these a greenlet waits for others: by the clock ``wall``, all the time until it is back.
AWAY = (
    "<method 'switch' of 'greenlet.greenlet' objects>",
    "<method 'throw' of 'greenlet.greenlet' objects>",
)


def describe(path: Path) -> Iterator[str]:
    """Name the functions of a profile that took most time themselves, and the idle share.

    :param path: a file of pstats.
    """
    try:
        stats: dict[Any, Any] = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    except Exception as error:  # a file that was cut short, in marshal's many words for it
        yield f"{path.name} cannot be read: {error}"
        return
    yield from lines(stats)


def lines(stats: dict[Any, Any]) -> Iterator[str]:
    """Do the same for ``pstats.Stats.stats``.

    The shares are of all the time in it. Waiting, for the outside or for other greenlets,
    is left out of the functions named.
    """
    own = {function: entry[2] for function, entry in stats.items()}
    total = sum(own.values()) or 1.0
    idle = sum(seconds for (_, _, name), seconds in own.items() if name in IDLE)
    busy = [
        (seconds, function)
        for function, seconds in own.items()
        if function[2] not in IDLE and function[2] not in AWAY
    ]
    for seconds, function in sorted(busy, key=lambda each: (-each[0], each[1]))[:HEAVIEST]:
        calls = stats[function][1]
        times = "1 call" if calls == 1 else f"{calls:,} calls"
        yield f"{seconds / total:4.0%} {seconds:7.3f} s  {_name(function)}, {times}"
    yield f"{idle / total:4.0%} {idle:7.3f} s  idle"


def _name(function: tuple[str, int, str]) -> str:
    filename, line, name = function
    if filename == "~":
        return name.strip("<>")
    return f"{name} ({os.path.join(*Path(filename).parts[-2:])}:{line})"
