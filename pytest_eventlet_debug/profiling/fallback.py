"""The engine in Python, where there was no compiler: as right as the one in C, and slow.

All that it needs is documented: ``sys.setprofile`` and ``greenlet.settrace``.
"""

from __future__ import annotations

from collections import Counter
import dataclasses
import sys
from typing import Any

from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.engine import TAKEN
from pytest_eventlet_debug.profiling.engine import require_free_thread
from pytest_eventlet_debug.profiling.greenlet_engine import GreenletEngine
from pytest_eventlet_debug.profiling.greenlet_engine import root
from pytest_eventlet_debug.profiling.stats import NOBODY
from pytest_eventlet_debug.profiling.stats import Function
from pytest_eventlet_debug.profiling.stats import is_ours
from pytest_eventlet_debug.profiling.stats import label
from pytest_eventlet_debug.profiling.stats import passes_on


class FallbackEngine(GreenletEngine):
    """Have each call told by the thread's profile function."""

    name = "python"

    def _listen(self) -> CallStacks:
        require_free_thread()
        return CallStacks(self._clock)

    def _let_go(self, stacks: CallStacks) -> str:
        gone = f"{TAKEN}, or a signal handler raised an exception in our callback"
        return gone if stacks.taken else ""


@dataclasses.dataclass(eq=False, slots=True)
class _Counts:
    """What is counted of a function, or of a function as called by one other."""

    function: Any
    calls: int = 0
    recursive: int = 0
    total: float = 0.0
    own: float = 0.0
    called: dict[object, _Counts] = dataclasses.field(default_factory=dict)

    def figures(self) -> tuple[Any, ...]:
        return label(self.function), self.calls, self.recursive, self.total, self.own


@dataclasses.dataclass(slots=True)
class _Table:
    """The counts of all greenlets that are shown under the same root."""

    greenlets: int = 0
    counts: dict[object, _Counts] = dataclasses.field(default_factory=dict)
    uncalled: dict[object, _Counts] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(slots=True)
class _Call:
    key: object
    function: Function
    counts: list[_Counts]  # of the function, and of it by its caller, or by nobody; none if hidden
    since: float = 0.0
    below: float = 0.0  # seconds in what it called
    hidden: float = 0.0  # seconds in hidden calls below it: the plugin's, which do not count


@dataclasses.dataclass(eq=False, slots=True)
class _Stack:
    """The open calls of one greenlet, and its clock when it was switched out, in seconds."""

    table: _Table
    at: float = 0.0
    behind: float = 0.0
    calls: list[_Call] = dataclasses.field(default_factory=list)
    open: Counter[_Counts] = dataclasses.field(default_factory=Counter)

    def push(self, key: object, function: object) -> _Call:
        named = label(function)
        above = self.calls[-1] if self.calls else None
        is_hidden = above is not None and not above.counts
        if is_hidden and above is not None and is_ours(above.function):
            is_hidden = not passes_on(above.function, named)
        counts = []
        if not is_hidden and not is_ours(named):
            callers = (call.counts[0].called for call in reversed(self.calls) if call.counts)
            tables = (self.table.counts, next(callers, self.table.uncalled))
            counts = [_counts_in(each, key, function) for each in tables]
        call = _Call(key, named, counts)
        self.open.update(counts)
        self.calls.append(call)
        return call

    def pop(self, at: float) -> None:
        call = self.calls.pop()
        total = at - call.since - call.hidden
        if not call.counts:
            call.hidden += total - call.below
            total = call.below
        if self.calls:
            self.calls[-1].below += total
            self.calls[-1].hidden += call.hidden
        for counts in call.counts:
            counts.calls += 1
            counts.own += total - call.below
            self.open[counts] -= 1
            if self.open[counts]:
                counts.recursive += 1
            else:
                counts.total += total


class CallStacks:
    """The twin of ``_native.CallStacks``; see :class:`greenlet_engine.CallStacks`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tables: dict[Function | None, _Table] = {}
        # By id(): a reference would keep the greenlet alive, which its program may not want.
        # No id is reused unnoticed: a greenlet that has run ends with a switch.
        self._live: dict[int, _Stack] = {}
        self._names: dict[tuple[int, str, object], tuple[type, str]] = {}
        self._installed = self._take  # one object, to be known again
        self._began = self.seconds = self.switching = 0.0
        self.taken = False

    def begin(self, greenlet: object, /) -> None:
        self._running = self._enter(greenlet, None)
        self._began = self._clock.now()
        sys.setprofile(self._installed)

    def end(self) -> None:
        at = self._clock.now()
        if self._in_place():
            sys.setprofile(None)
        self.seconds = at - self._began
        self._running.at = at - self._running.behind
        for stack in self._live.values():
            while stack.calls:
                stack.pop(stack.at if self._clock.stands_still else at)

    def switched(self, event: str, arguments: tuple[Any, Any], /) -> None:
        if not self._in_place():
            return  # what was called meanwhile is unknown
        before = self._clock.now()
        origin, target = arguments
        self._running.at = before - self._running.behind
        self._running = self._live.get(id(target)) or self._enter(target, origin)
        if not origin and origin is not target:
            self._leave(origin)
        after = self._clock.now()
        self.switching += after - before
        if self._clock.stands_still:
            self._running.behind = after - self._running.at

    def parts(self) -> list[tuple[list[tuple[Any, ...]], Function | None, int]]:
        return [
            ([*map(_entry, table.counts.values()), _nobody(table)], shown_under, table.greenlets)
            for shown_under, table in self._tables.items()
        ]

    def _enter(self, greenlet: object, origin: object) -> _Stack:
        table = self._tables.setdefault(root(greenlet, origin), _Table())
        table.greenlets += 1
        stack = self._live[id(greenlet)] = _Stack(table)
        return stack

    def _leave(self, greenlet: object) -> None:
        stack = self._live.pop(id(greenlet), None)
        while stack is not None and stack.calls:
            stack.pop(stack.at)

    def _in_place(self) -> bool:
        self.taken = self.taken or sys.getprofile() is not self._installed
        return not self.taken

    def _take(self, frame: Any, event: str, argument: Any) -> None:
        """Take an event of ``sys.setprofile``; those of our own functions are left out."""
        if frame.f_globals is _OURS:
            return
        function = frame.f_code if event in ("call", "return") else self._name(argument)
        key = function if isinstance(function, str) else id(function)  # its hash takes long
        stack = self._running
        if event in ("call", "c_call"):
            call = stack.push(key, function)
            call.since = self._clock.now() - stack.behind
        # Calls from before the beginning return, too, and end above of those that were lost.
        elif any(call.key == key for call in reversed(stack.calls)):
            at = self._clock.now() - stack.behind
            while stack.calls[-1].key != key:
                stack.pop(at)
            stack.pop(at)

    def _name(self, function: Any) -> str:
        """Return cProfile's name for a function in C: see normalizeUserObj in _lsprof.c."""
        owner, name, module = type(function.__self__), function.__name__, function.__module__
        key = id(owner), name, module
        if key not in self._names:
            found = [vars(each)[name] for each in owner.__mro__ if name in vars(each)]
            qualified = f"{module}.{name}" if isinstance(module, str) else name
            text = repr(found[0]) if found else f"<built-in method {qualified}>"
            self._names[key] = owner, text  # the owner too, or its id() could be another's
        return self._names[key][1]


_OURS = globals()


def _counts_in(table: dict[object, _Counts], key: object, function: object) -> _Counts:
    counts = table.get(key)
    if counts is None:
        counts = table[key] = _Counts(function)
    return counts


def _entry(counts: _Counts) -> tuple[Any, ...]:
    return *counts.figures(), [called.figures() for called in counts.called.values()]


def _nobody(table: _Table) -> tuple[Any, ...]:
    return NOBODY, 0, 0, 0.0, 0.0, [called.figures() for called in table.uncalled.values()]
