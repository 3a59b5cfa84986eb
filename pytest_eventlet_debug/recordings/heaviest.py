"""What a profile says in a few lines; made of its file alone."""

from __future__ import annotations

from collections.abc import Iterator
import math
import os
from pathlib import Path
import re

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import PROFILE_FACTS_FILE
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.profiling.stats import Function
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.profiling.stats import shortened
from pytest_eventlet_debug.recordings import profile_file
from pytest_eventlet_debug.recordings.profile_file import ProfileFacts
from pytest_eventlet_debug.system.code_places import HUBS

#: How many functions are named at most.
HEAVIEST = 3

#: The share of all time that makes a function worth naming.
LEAST = 0.05

#: Seconds. Where waits are shorter on average, many are none: a greenthread that gives way all the
#: time has the hub poll, which takes much longer under strace.
SHORT = 0.001

#: In these C functions a thread waits for something from outside the process.
WAITING = (
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

#: A subclass that overrides a method of C's has the profiler write it so.
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")

#: What these do is no test's.
_RUNNERS = tuple(f"{os.sep}{name}{os.sep}" for name in ("_pytest", "pluggy"))


_OF_HUBS = ("switch", "run", "fire_timers", "wait", "do_poll")

#: The loops that wait for work when there is none: what they call straight may wait.
_LOOPS = (
    (os.path.join("hubs", "hub.py"), "run"),
    (os.path.join("asyncio", "base_events.py"), "_run_once"),
)


def seconds(directory: Path) -> float:
    """Return how long was profiled; for a profile of which that cannot be read, for ever."""
    facts = json_files.read_ours(directory / PROFILE_FACTS_FILE, ProfileFacts)
    return facts.seconds if facts is not None else math.inf


def describe(path: Path) -> Iterator[str]:
    """Name the functions of a profile that took most time themselves, and the idle share.

    :param path: a file of pstats.
    """
    try:
        stats = profile_file.read(path)
    except Exception as error:  # a file that was cut short, in marshal's many words for it
        yield f"{path.name} cannot be read: {error}"
        return
    yield from lines(stats)


def lines(stats: Stats) -> Iterator[str]:
    """Do the same for ``pstats.Stats.stats``.

    The shares are of all the time in it. The waiting of the hub, or of another loop, is one
    line; any other waiting for the outside is named with who called it, and has blocked the
    hub if there is one. Waiting for other greenlets is left out, and what pytest did to run
    the test.
    """
    has_hub = any(map(_is_hubs, stats))
    total = sum(entry[2] for entry in stats.values()) or 1.0
    busy, idle, waits = [], 0.0, 0
    for function, (_, calls, own, _, _) in stats.items():
        if function[2] in WAITING:
            blocked = list(_blocked(function, stats))
            seconds = own - sum(each for each, _ in blocked)
            idle += seconds
            waits += calls if seconds else 0
            busy += [
                (each, f"{text}: blocked the hub" if has_hub else text) for each, text in blocked
            ]
        elif function[2] not in AWAY and not _is_runners(function, stats):
            busy.append((own, f"{_name(function)}, {counted(calls, 'call')}"))
    worth = sorted((each for each in busy if each[0] >= LEAST * total), reverse=True)
    for seconds, text in worth[:HEAVIEST]:
        yield f"{seconds / total:4.0%} {seconds:7.3f} s  {text}"
    if idle >= LEAST * total:
        how = "waited" if idle >= waits * SHORT else "waited or polled"
        who = "the hub" if has_hub else "an event loop" if any(map(_is_loop, stats)) else None
        yield f"{idle / total:4.0%} {idle:7.3f} s  idle" + (f": {who} {how}" if who else "")
    elif not worth:
        yield f"no function but pytest's took {LEAST:.0%} of the time"


def _is_runners(function: Function, stats: Stats) -> bool:
    """Say whether a function is pytest's, or one in C that nobody else called."""
    if function[0] != "~":
        return any(each in function[0] for each in _RUNNERS)
    callers = stats[function][4]
    return bool(callers) and all(any(each in file for each in _RUNNERS) for file, _, _ in callers)


def _blocked(function: Function, stats: Stats) -> Iterator[tuple[float, str]]:
    """Yield the seconds that a function waited for others than the hub, and a text for each."""
    for caller, (calls, _, own, _) in stats[function][4].items():
        seconds = own * (1.0 - _share_of_hub(caller, stats))
        if seconds > 0.0:
            where = f"{_name(function)} called by {_name(caller)}"
            yield seconds, f"{where}, {counted(calls, 'call')}"


def _share_of_hub(function: Function, stats: Stats) -> float:
    """Return the share of a function's time in which it waited for the hub, of 1."""
    filename, _, name = function
    if HUBS in filename and name in ("wait", "do_poll"):
        return 1.0
    callers = stats[function][4] if function in stats else {}
    whole = sum(edge[3] for edge in callers.values())
    by_loop = sum(edge[3] for caller, edge in callers.items() if _is_loop(caller))
    return by_loop / whole if whole else 0.0


def _is_hubs(function: Function) -> bool:
    """Say whether a function is called as a hub runs, or a greenthread waits for it."""
    return HUBS in function[0] and function[2] in _OF_HUBS


def _is_loop(function: Function) -> bool:
    return any(function[0].endswith(file) and function[2] == name for file, name in _LOOPS)


def _name(function: Function) -> str:
    filename, line, name = function
    if filename == "~":
        return _ADDRESS.sub("", name.strip("<>"))
    return f"{name} ({shortened(filename)}:{line})"
