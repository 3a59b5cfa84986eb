"""Counts of several Profilers become one set of statistics, as ``pstats`` knows it."""

from __future__ import annotations

from collections.abc import Iterable
import cProfile
import dataclasses
import os
from typing import Any

#: File, line and name; see ``pstats.func_std_string``.
Function = tuple[str, int, str]

#: Calls, primitive calls, self seconds, cumulative seconds: of one caller.
Edge = tuple[int, int, float, float]

#: Primitive calls, calls, self seconds, cumulative seconds, callers: of one function.
Entry = tuple[int, int, float, float, dict[Function, Edge]]

Stats = dict[Function, Entry]

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


@dataclasses.dataclass(frozen=True)
class Part:
    """The counts of one Profiler.

    :param entries: what ``_lsprof.Profiler.getstats()`` returns: a function, its calls, those of
        them that are recursive, cumulative seconds, self seconds, and the same of what it
        called.
    :param root: what its greenlets are shown under, see :func:`root_of`, or ``None``.
    :param greenlets: how many there were.
    """

    entries: Iterable[tuple[Any, ...]]
    root: Function | None = None
    greenlets: int = 0


def root_of(function: Any) -> Function:
    """Return what stands in a profile for all greenthreads spawned with *function*."""
    function = getattr(function, "func", function)  # functools.partial
    function = getattr(function, "__func__", function)
    name = getattr(function, "__qualname__", None) or type(function).__qualname__
    code = getattr(function, "__code__", None)
    label = f"<greenthread {name}>"
    return ("~", 0, label) if code is None else (code.co_filename, code.co_firstlineno, label)


def merge(parts: Iterable[Part]) -> Stats:
    """Add up the counts of several Profilers.

    Where a part has a root, that becomes the caller of whatever no one called: it has no
    time of its own, and all of the part's time is below it. What this plugin's own
    functions did is left out.
    """
    total = _Total()
    for part in parts:
        total.add(part)
    return total.stats()


class _Total:
    def __init__(self) -> None:
        # Primitive calls, calls, self and cumulative seconds; then the same of callers,
        # in the order that pstats has there: calls first.
        self._entries: dict[Function, list[float]] = {}
        self._callers: dict[Function, dict[Function, list[float]]] = {}

    def add(self, part: Part) -> None:
        called: dict[Function, list[float]] = {}
        labels: dict[int, Function] = {}
        entries = list(part.entries)
        for code, *_, calls in entries:
            caller = _label(code, labels)
            for callee_code, count, recursive, total, own in calls or ():
                callee = _label(callee_code, labels)
                edge = [count, count - recursive, own, total]
                _add(called.setdefault(callee, [0, 0, 0.0, 0.0]), edge)
                self._add_edge(caller, callee, edge)
        inside = 0.0
        for code, count, recursive, total, own, _ in entries:
            function = _label(code, labels)
            counts = [count - recursive, count, own, total]
            _add(self._entries.setdefault(function, [0, 0, 0.0, 0.0]), counts)
            inside += own
            if part.root is not None:
                calls, _, called_own, called_total = called.get(function, (0, 0, 0.0, 0.0))
                left = count - calls
                if left > 0:
                    own, total = own - called_own, total - called_total
                    self._add_edge(
                        part.root, function, [left, left, max(own, 0.0), max(total, 0.0)]
                    )
        if part.root is not None and entries:
            counts = [part.greenlets, part.greenlets, 0.0, inside]
            _add(self._entries.setdefault(part.root, [0, 0, 0.0, 0.0]), counts)

    def _add_edge(self, caller: Function, callee: Function, edge: list[float]) -> None:
        _add(self._callers.setdefault(callee, {}).setdefault(caller, [0, 0, 0.0, 0.0]), edge)

    def stats(self) -> Stats:
        kept = {name: counts for name, counts in self._entries.items() if not _ours(name)}
        stats: Stats = {}
        for function, (primitive, calls, own, total) in kept.items():
            callers = {
                caller: (int(edge[0]), int(edge[1]), edge[2], edge[3])
                for caller, edge in self._callers.get(function, {}).items()
                if caller in kept
            }
            stats[function] = (int(primitive), int(calls), own, total, callers)
        return stats


def _add(to: list[float], counts: list[float]) -> None:
    for index, count in enumerate(counts):
        to[index] += count


def _label(code: Any, known: dict[int, Function]) -> Function:
    label = known.get(id(code))
    if label is None:
        label = known[id(code)] = cProfile.label(code)
    return label


def _ours(function: Function) -> bool:
    return function[0].startswith(_OURS) and not function[2].startswith("<greenthread ")
