"""Counts of several stacks become one set of statistics, as ``pstats`` knows it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import types
from typing import Any
from typing import NamedTuple

from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import OURS

#: File, line and name; see ``pstats.func_std_string``.
Function = tuple[str, int, str]

#: Calls, primitive calls, self seconds, cumulative seconds: of one caller.
Edge = tuple[int, int, float, float]

#: Primitive calls, calls, self seconds, cumulative seconds, callers: of one function.
Entry = tuple[int, int, float, float, dict[Function, Edge]]

Stats = dict[Function, Entry]

#: Is in the name of a method that the plugin has in C.
OURS_IN_C = f" '{__name__.partition('.')[0]}."

#: What stands above all greenlets, so that viewers open on the whole.
ALL: Function = ("~", 0, "<all greenlets>")


#: Stands among entries for who called what no one is known to have called: frames that were open
#: when the profile began, and greenlet itself. ``_native.c`` has the same name.
NOBODY: Function = ("~", 0, "<nobody>")


class Part(NamedTuple):
    """The counts of stacks that have one root.

    :param entries: as ``_lsprof.Profiler.getstats()`` returns them: a function, its calls, those
        of them that are recursive, cumulative seconds, self seconds, and the same of what it
        called. But see :func:`labelled`. What :data:`NOBODY` called need not be there; it is an
        estimate then.
    :param root: what its greenlets are shown under, see :func:`root_of`, or ``None``.
    :param greenlets: how many there were.
    """

    entries: Sequence[tuple[Any, ...]]
    root: Function | None = None
    greenlets: int = 0


def root_of(function: Any) -> Function:
    """Return what stands in a profile for all greenthreads spawned with *function*.

    File and line are in the name alone. As those of the root they would have annotated
    source show eventlet's trampoline as called in *function*, which it calls.
    """
    function = switches.underlying(function)
    name = switches.attribute(function, "__qualname__")
    if not isinstance(name, str):
        name = type(function).__qualname__
    code = switches.attribute(function, "__code__")
    place = ""
    if isinstance(code, types.CodeType):
        place = f" ({shortened(code.co_filename)}:{code.co_firstlineno})"
    return ("~", 0, f"<greenthread {name}{place}>")


def shortened(filename: str) -> str:
    """Return the end of a path: a file and the folder that it is in."""
    return "/".join(filename.lstrip("/").rsplit("/", 2)[-2:])


def labelled(entries: Iterable[Any]) -> list[tuple[Any, ...]]:
    """Return what ``_lsprof.Profiler.getstats()`` returned with labels in the place of code."""
    return [
        (
            label(code),
            *counts,
            [(label(callee), *below) for callee, *below in called or ()],
        )
        for code, *counts, called in entries
    ]


def label(code: Any) -> Function:
    """Return what ``cProfile.label()`` does, of code or the name of what is written in C."""
    if isinstance(code, str):
        return ("~", 0, code)
    return (code.co_filename, code.co_firstlineno, code.co_name)


def merge(parts: Iterable[Part]) -> Stats:
    """Add up counts. What this plugin's own functions did is left out.

    Where a part has a root, that becomes the caller of whatever no one called: it has no
    time of its own, and all of the part's time is below it.
    """
    total: Stats = {}
    for part in parts:
        stats = _stats_of(part)
        if part.root is not None and stats:
            stats = under(part.root, part.greenlets, _apart(stats, part.root))
        if not total:
            total = stats
            continue
        for function, entry in stats.items():
            _add_entry(total, function, entry)
    return total


def add_up(parts: Iterable[Part], *, has_greenlets: bool) -> Stats:
    """Return what is written down of all counts.

    :param has_greenlets: whether :data:`ALL` is to stand above them.
    """
    stats = merge(parts)
    return under(ALL, 1, stats) if has_greenlets and stats else stats


def under(root: Function, calls: int, stats: Stats) -> Stats:
    """Return *stats* with one more function, the caller of whatever no one called.

    :param calls: how often *root* was called itself.
    """
    inside = sum(own for _, _, own, _, _ in stats.values())
    result: Stats = {root: (calls, calls, 0.0, inside, {})}
    for function, entry in stats.items():
        known, other = entry[4].get(NOBODY), _uncalled(function, entry)
        if known is None and other is None:
            result[function] = entry
            continue
        callers = dict(entry[4])
        callers.pop(NOBODY, None)
        for edge in filter(None, (known, other)):
            _add_edge(callers, root, edge)
        result[function] = (*entry[:4], callers)
    return result


def _uncalled(function: Function, entry: Entry) -> Edge | None:
    """Estimate the counts of the calls that are missing among those of a function's callers."""
    primitive, calls, own, total, callers = entry
    for edge in callers.values():
        calls -= edge[0]
    if calls <= 0:
        return None
    own -= sum(edge[2] for edge in callers.values())
    # What no one called is never recursive; if that is all that is not, the time is theirs.
    if calls < primitive:
        total -= sum(edge[3] for caller, edge in callers.items() if caller != function)
    return calls, calls, max(own, 0.0), max(total, own, 0.0)


def _apart(stats: Stats, root: Function) -> Stats:
    """Give what a root calls, a trampoline of eventlet's, a name for this root alone.

    Under one name every root would seem to call, through it, what any greenthread calls.
    """
    spawned = root[2].removeprefix("<greenthread ").removesuffix(">")
    names = {
        function: (*function[:2], f"{function[2]} [{spawned}]")
        for function, entry in stats.items()
        if entry[4].keys() <= {NOBODY}
    }
    return {
        names.get(function, function): (
            *entry[:4],
            {names.get(caller, caller): edge for caller, edge in entry[4].items()},
        )
        for function, entry in stats.items()
    }


def _stats_of(part: Part) -> Stats:
    """Return the counts of one part, with callers in the place of what was called."""
    stats: Stats = {}
    ours = set()
    for function, calls, recursive, total, own, _ in part.entries:
        if function == NOBODY:
            continue
        _add_entry(stats, function, (calls - recursive, calls, own, total, {}))
        if is_ours(function):
            ours.add(function)
    for caller, _, _, _, _, called in part.entries:
        by_us = caller in ours
        for function, count, again, below, self_time in called:
            edge = (count, count - again, self_time, below)
            if not by_us:
                _add_edge(stats[function][4], caller, edge)
            elif passes_on(caller, function):
                for other, share in _shared(edge, caller, part):
                    if other not in ours:
                        _add_edge(stats[function][4], other, share)
            elif function in stats:
                # Such as the calls that mark a trace where greenlets switch.
                stats[function] = _less(stats[function], edge)
    for function in ours:
        del stats[function]
    return _called(stats)


def is_ours(function: Function) -> bool:
    """Say whether a function is the plugin's own, in Python or in C."""
    return function[0].startswith(OURS) or OURS_IN_C in function[2]


def passes_on(ours: Function, function: Function) -> bool:
    """Say whether a function of ours stands in for one that it calls: it has its name then."""
    name = ours[2]
    return function[2] == name or function[2].startswith(f"<method '{name}' of ")


def _shared(edge: Edge, ours: Function, part: Part) -> Iterator[tuple[Function, Edge]]:
    """Yield what called a function through one of ours, which calls it once each time.

    Where several did, the seconds of each are in proportion to those in ours.
    """
    callers: dict[Function, Edge] = {}
    for caller, _, _, _, _, called in part.entries:
        for function, count, again, below, own in called:
            if function == ours:
                _add_edge(callers, caller, (count, count - again, own, below))
    whole = sum(total for _, _, _, total in callers.values())
    for caller, (calls, primitive, _, total) in callers.items():
        share = total / whole if whole else 1 / len(callers)
        yield caller, (calls, primitive, edge[2] * share, edge[3] * share)


def _called(stats: Stats) -> Stats:
    """Leave out what is never called by others than ours, and all that only that calls."""
    gone = [function for function, entry in stats.items() if entry[1] <= 0]
    while gone:
        for function in gone:
            del stats[function]
        apart = frozenset(gone).isdisjoint
        below = [function for function, entry in stats.items() if not apart(entry[4])]
        for function in below:
            stats[function] = _not_called_by(gone, stats[function])
        gone = [function for function in below if stats[function][1] <= 0]
    return stats


# A function's hash takes as long as all else here: most are asked for once.
def _add_entry(stats: Stats, function: Function, entry: Entry) -> None:
    earlier = stats.setdefault(function, entry)
    if earlier is not entry:
        stats[function] = _sum(earlier, entry)


def _add_edge(callers: dict[Function, Edge], caller: Function, edge: Edge) -> None:
    earlier = callers.setdefault(caller, edge)
    if earlier is not edge:
        callers[caller] = _sum_edges(earlier, edge)


def _not_called_by(gone: Iterable[Function], entry: Entry) -> Entry:
    callers = dict(entry[4])
    for caller in gone:
        if caller in callers:
            entry = _less(entry, callers.pop(caller))
    return (*entry[:4], callers)


def _less(entry: Entry, edge: Edge) -> Entry:
    """Take the calls of one caller out of a function's counts."""
    primitive, count, own, total, callers = entry
    calls, outermost, self_time, below = edge
    return (
        max(primitive - outermost, 0),
        count - calls,
        max(own - self_time, 0.0),
        max(total - below, 0.0),
        callers,
    )


def _sum(one: Entry, other: Entry) -> Entry:
    callers = dict(one[4])
    for caller, edge in other[4].items():
        _add_edge(callers, caller, edge)
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3], callers


def _sum_edges(one: Edge, other: Edge) -> Edge:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]
