"""A call stack for each live greenlet, kept by a ``_lsprof.Profiler`` of its own.

A Profiler has one stack. Fed with the calls of several greenlets it takes whatever ran
before a switch for the caller of what runs after it. With one Profiler for each greenlet,
and only ever fed with that greenlet's calls, every stack is what it was.
"""

from __future__ import annotations

import _lsprof
from collections.abc import Iterable
import itertools
from typing import Any

from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.clock import less
from pytest_eventlet_debug.profiling.greenlet_engine import root
from pytest_eventlet_debug.profiling.stats import Function
from pytest_eventlet_debug.profiling.stats import Part


class Stack:
    """One call stack; it serves one greenlet until that ends, then another.

    :ivar feeds: what the engine needs to have the Profiler told of calls.
    :ivar at: what the greenlet's clock showed when it was last switched out, in seconds.
    :ivar root: the function that all the greenlets were spawned with, if it is known.
    :ivar greenlets: how many greenlets it has served.
    """

    __slots__ = ("at", "feeds", "greenlets", "profiler", "root")

    def __init__(self, profiler: _lsprof.Profiler, feeds: Any, root: Function | None) -> None:
        self.profiler = profiler
        self.feeds = feeds
        self.root = root
        self.at = 0.0
        self.greenlets = 0


class Stacks:
    """The stacks of one stretch of a profile.

    :ivar read: the clock that the Profilers read: *now* less what is in *cell*, or by a
        clock that does not stand still *now* itself.
    :ivar live: the stacks of started greenlets, by the ``id()`` of the greenlet. A
        reference would keep the greenlet alive, which its program may not want. No id is
        reused unnoticed: a greenlet that has run ends with a switch.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        less_away, self.cell = less(clock.now)
        self.read = less_away if clock.stands_still else clock.now
        self.live: dict[int, Stack] = {}
        self._idle: dict[Function | None, list[Stack]] = {}
        self._all: list[Stack] = []

    def enter(self, greenlet: object, origin: object = None) -> Stack:
        """Return a stack for a greenlet that begins to run."""
        shown_under = root(greenlet, origin)
        idle = self._idle.get(shown_under)
        if idle:
            stack = idle.pop()
        else:
            profiler = _lsprof.Profiler(self.read)
            stack = Stack(profiler, self.feeds(profiler), shown_under)
            self._all.append(stack)
        stack.greenlets += 1
        self.live[id(greenlet)] = stack
        return stack

    def feeds(self, profiler: _lsprof.Profiler) -> Any:
        """Return the value of :attr:`Stack.feeds`; the engines override this."""
        raise NotImplementedError

    def leave(self, greenlet: object) -> None:
        """Take back the stack of a greenlet that has ended. Such a stack is empty."""
        stack = self.live.pop(id(greenlet), None)
        if stack is not None:
            self._idle.setdefault(stack.root, []).append(stack)

    def freeze(self, running: Stack, now: float) -> Iterable[Stack]:
        """Stop all clocks; yield the stacks that have open calls, to have them closed."""
        running.at = now - self.cell[0]
        for stack in self.live.values():
            at = stack.at if self._clock.stands_still else now
            stack.profiler.__init__(itertools.repeat(at).__next__)  # type: ignore[misc]
            yield stack

    @property
    def profilers(self) -> list[_lsprof.Profiler]:
        """All there are."""
        return [stack.profiler for stack in self._all]

    def parts(self) -> list[Part]:
        """Return what the Profilers have counted."""
        return [Part(s.profiler.getstats(), s.root, s.greenlets) for s in self._all]
