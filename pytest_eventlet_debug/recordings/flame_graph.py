"""A profile as flame graphs, one for each greenthread root.

A profile knows of each function who called it for how long, not in which stack. So a callee's
time under a caller is shared among the caller's own places in proportion to their time, as gprof
and SnakeViz do. https://docs.python.org/3/library/profile.html
"""

from __future__ import annotations

import functools
import operator
import os
from pathlib import Path
from typing import Any

import msgspec

from pytest_eventlet_debug.profiling.stats import ALL
from pytest_eventlet_debug.profiling.stats import Function
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.recordings import profile_file

#: Frames narrower than this share of their graph cannot be seen.
MIN_SHARE = 0.001

#: Seconds of the shortest frame. Of less, no microsecond is left to be drawn.
MIN_SECONDS = 0.5e-6
MAX_DEPTH = 80
MAX_FRAMES = 5_000

#: The graph of what no greenthread root is above: the test's own greenlet and the hub's.
OTHERS = "test and hub"


def read(path: Path) -> list[dict[str, Any]]:
    """Return the graphs of a file of pstats, the one with the most time first.

    A frame has a ``name``, its ``value`` in microseconds and its ``children``.

    :return: empty where there is no profile, or none that can be read.
    """
    try:
        return build(profile_file.read(path))
    except (OSError, ValueError, EOFError, TypeError, AttributeError):
        return []


def build(stats: Stats) -> list[dict[str, Any]]:
    """Return the graphs of a profile: one for each greenthread root, and one for all else."""
    # Functions by number: to look one up by its name takes longer than all else here.
    numbers = {function: number for number, function in enumerate(stats)}
    whole = numbers.get(ALL)
    calls: list[list[tuple[int, float]]] = [[] for _ in stats]
    roots = []
    for number, entry in enumerate(stats.values()):
        is_root = number != whole
        for name, edge in entry[4].items():
            caller = numbers.get(name)
            if caller not in (number, whole):
                is_root = False
                if caller is not None:
                    calls[caller].append((number, edge[3]))
        if is_root:
            roots.append(number)
    for callees in calls:
        if len(callees) > 1:
            callees.sort(key=_time, reverse=True)
    graph = _Graph(list(stats), [entry[3] for entry in stats.values()], calls)
    # A root may have called functions that are left out of profiles, and these called other
    # roots. So only the time counts that it spent itself or in what is known to be below it.
    own = [entry[2] for entry in stats.values()]
    times = {root: own[root] + sum(map(_time, calls[root])) for root in roots}
    greenthreads = [root for root in roots if graph.names[root][2].startswith("<greenthread ")]
    graphs = [graph.frame(root, times[root]) for root in greenthreads]
    graphs.append(
        graph.together(OTHERS, [(root, times[root]) for root in roots if root not in greenthreads])
    )
    return sorted((each for each in graphs if each["value"]), key=lambda each: -each["value"])


#: The seconds of a function together with its number.
_time = operator.itemgetter(1)


class _Graph(msgspec.Struct):
    """Who calls whom, and how many frames may still be drawn. Functions are numbers.

    :param names: of the functions.
    :param seconds: the cumulative time of each function.
    :param calls: the functions that each one called, with the time they took for it, by that.
    :param path: the frames below the one that is drawn.
    """

    names: list[Function]
    seconds: list[float]
    calls: list[list[tuple[int, float]]]
    left: int = MAX_FRAMES
    path: set[int] = set()

    def together(self, name: str, roots: list[tuple[int, float]]) -> dict[str, Any]:
        """Return one frame with several roots above it."""
        whole = sum(seconds for _, seconds in roots)
        roots = sorted(roots, key=lambda root: -root[1])
        least = max(MIN_SHARE * whole, MIN_SECONDS)
        children = [self.frame(root, seconds) for root, seconds in roots if seconds >= least]
        return {"name": name, "value": round(whole * 1e6), "children": children}

    def frame(self, function: int, seconds: float, least: float | None = None) -> dict[str, Any]:
        """Return a frame with all that is wide enough above it.

        :param least: the seconds of the narrowest frame, by default a share of this one's.
        """
        self.left -= 1
        found: dict[str, Any] = {
            "name": label(self.names[function]),
            "value": round(seconds * 1e6),
        }
        if self.calls[function]:
            least = max(MIN_SHARE * seconds, MIN_SECONDS) if least is None else least
            children = self._above(function, seconds, least)
            if children:
                found["children"] = children
        return found

    def _above(self, function: int, seconds: float, least: float) -> list[dict[str, Any]]:
        path = self.path
        # Of a root all that it called is below it, of another function this caller's share.
        share = seconds / self.seconds[function] if path and self.seconds[function] else 1.0
        path.add(function)
        callees = [callee for callee in self.calls[function] if callee[0] not in path]
        # What generators and recursions do counts for several callers; no frame is that wide.
        share = min(share, seconds / (sum(map(_time, callees)) or 1.0))
        children = []
        for callee, spent in callees:
            if spent * share < least or len(path) >= MAX_DEPTH or self.left <= 0:
                break  # the others are no wider
            children.append(self.frame(callee, spent * share, least))
        path.remove(function)
        return children


@functools.lru_cache(maxsize=1 << 14)  # tests of a suite have most of them in common
def label(function: Function) -> str:
    """Return a function as a reader knows it: ``recv (eventlet/greenio/base.py:352)``."""
    file, line, name = function
    if file == "~":
        return name
    return f"{name} ({os.sep.join(file.split(os.sep)[-3:])}:{line})"
