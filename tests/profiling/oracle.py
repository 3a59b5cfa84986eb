"""Random greenlet programs that know what a right profile of themselves says.

A program keeps a log of its own: who enters and leaves which function in which greenlet,
and how much time passes there. Time is a counter that nothing but the program advances.
From the log follows one right value for each number in a profile.
"""

from __future__ import annotations

from collections.abc import Iterator
import functools
import itertools
import operator
import random
from typing import Any

import greenlet

from pytest_eventlet_debug.profiling.stats import Stats

SORTED = "<built-in method builtins.sorted>"
CLOSE = "<method 'close' of 'generator' objects>"
SWITCH = "<method 'switch' of 'greenlet.greenlet' objects>"
THROW = "<method 'throw' of 'greenlet.greenlet' objects>"

FUNCTIONS = 6

#: Everything is inline: a helper would be one more function in the profile.
_TEMPLATE = """
def f{i}(p, me, depth):
    log, clock, plan = p.log, p.clock, p.plan
    log.append((me, "enter", "f{i}"))
    try:
        for _ in range(next(plan) % 5):
            step = next(plan) % 3
            clock[0] += step
            log.append((me, "pass", step))
            action = next(plan) % 12
            if depth > 7:
                continue
            try:
                if action < 3:
                    p.functions[next(plan) % {n}](p, me, depth + 1)
                elif action == 3:
                    call = p.partial(p.functions[next(plan) % {n}], p, me)
                    log.append((me, "enter", p.SORTED))
                    try:
                        sorted((depth + 1,), key=call)
                    finally:
                        log.append((me, "leave", p.SORTED))
                elif action < 6:
                    own = p.generators[me]
                    if next(plan) % 3 == 0 or not own:
                        own.append(p.makers[next(plan) % {n}](p, me, depth + 1))
                    generator = own.pop()
                    try:
                        for _ in generator:
                            break
                    finally:
                        own.insert(0, generator)
                elif action == 6:
                    own = p.generators[me]
                    if own:
                        generator = own.pop()
                        log.append((me, "enter", p.CLOSE))
                        try:
                            generator.close()
                        finally:
                            log.append((me, "leave", p.CLOSE))
                elif action == 7:
                    raise p.Oops
                elif action < 11:
                    target = p.pick(me, next(plan))
                    log.append((me, "enter", p.SWITCH))
                    try:
                        target.switch(depth + 1)
                    finally:
                        log.append((me, "leave", p.SWITCH))
                else:
                    target = p.pick_victim(me, next(plan))
                    if target is not None:
                        kind = (p.Oops, p.Exit)[next(plan) % 2]
                        log.append((me, "enter", p.THROW))
                        try:
                            target.throw(kind)
                        finally:
                            log.append((me, "leave", p.THROW))
            except p.Oops:
                if next(plan) % 3 == 0:
                    raise
            clock[0] += 1
            log.append((me, "pass", 1))
    finally:
        log.append((me, "leave", "f{i}"))

def g{i}(p, me, depth):
    log, clock, plan = p.log, p.clock, p.plan
    log.append((me, "enter", "g{i}"))
    try:
        for _ in range(next(plan) % 4):
            clock[0] += 2
            log.append((me, "pass", 2))
            if next(plan) % 3 == 0:
                p.functions[next(plan) % {n}](p, me, depth + 1)
            log.append((me, "leave", "g{i}"))
            try:
                yield
            finally:
                log.append((me, "enter", "g{i}"))
    finally:
        log.append((me, "leave", "g{i}"))
"""


class Oops(Exception):
    """Raised by programs, and thrown into their greenlets."""


class Program:
    """One random program.

    :ivar clock: a list of one number, the time.
    :ivar greenlets: those made so far; the first runs the program.
    """

    partial = functools.partial
    Oops = Oops
    Exit = greenlet.GreenletExit
    SORTED, CLOSE, SWITCH, THROW = SORTED, CLOSE, SWITCH, THROW

    def __init__(self, seed: int) -> None:
        chance = random.Random(seed)
        self.clock = [0]
        self.now = functools.partial(operator.getitem, self.clock, 0)
        self.log: list[tuple[int, str, Any]] = []
        choices = [chance.randrange(1 << 20) for _ in range(chance.randrange(50, 1500))]
        # Zeroes at the end: nothing new begins.
        self.plan: Iterator[int] = itertools.chain(choices, itertools.repeat(0))
        names: dict[str, Any] = {}
        for i in range(FUNCTIONS):
            source = _TEMPLATE.format(i=i, n=FUNCTIONS)
            exec(compile(source, f"<program {seed}>", "exec"), names)
        self.functions = [names[f"f{i}"] for i in range(FUNCTIONS)]
        self.makers = [names[f"g{i}"] for i in range(FUNCTIONS)]
        self.greenlets: list[Any] = [greenlet.getcurrent()]
        self.generators: dict[int, list[Any]] = {0: []}

    def pick(self, me: int, number: int) -> Any:
        """Return a greenlet to switch to: another that lives, or a new one."""
        others = [g for i, g in enumerate(self.greenlets) if i != me and g]
        if number % 4 == 0 or not others:
            new = len(self.greenlets)
            self.generators[new] = []
            run = functools.partial(self.functions[number % FUNCTIONS], self, new)
            parent = self.greenlets[me] if number % 3 else self.greenlets[0]
            self.greenlets.append(greenlet.greenlet(run, parent))
            return self.greenlets[new]
        return others[number % len(others)]

    def pick_victim(self, me: int, number: int) -> Any:
        """Return a greenlet to throw an exception into, or ``None``."""
        others = [g for i, g in enumerate(self.greenlets) if i not in (0, me) and g]
        return others[number % len(others)] if others else None

    def run(self) -> None:
        """Call functions in the first greenlet; others may be left where they are."""
        for function in self.functions * 3:
            try:
                function(self, 0, 0)
            except (Oops, greenlet.GreenletExit):
                pass

    def clean_up(self) -> None:
        """End what is left, when nobody looks any more."""
        for each in self.greenlets[1:]:
            while each:
                try:
                    each.throw(greenlet.GreenletExit)
                except Oops:
                    pass
        self.generators.clear()

    def truth(self) -> dict[Any, tuple[float, ...]]:
        """Return what a profile has to say.

        Functions by their name, with primitive calls, calls, self time and cumulative time;
        edges by the names of caller and callee, with calls and the same again.
        """
        entries: dict[Any, list[float]] = {}
        stacks: dict[int, list[list[Any]]] = {}
        levels: dict[tuple[int, Any], int] = {}
        times: dict[int, float] = {}

        def leave(me: int) -> None:
            stack = stacks[me]
            name, began, below = stack.pop()
            spent = times[me] - began
            keys = [name]
            if stack:
                stack[-1][2] += spent
                keys.append((stack[-1][0], name))
            for key in keys:
                entry = entries.setdefault(key, [0, 0, 0, 0])
                levels[me, key] -= 1
                entry[1] += 1
                entry[2] += spent - below
                if levels[me, key] == 0:
                    entry[0] += 1
                    entry[3] += spent

        for me, kind, what in self.log:
            stack = stacks.setdefault(me, [])
            times.setdefault(me, 0)
            if kind == "pass":
                times[me] += what
            elif kind == "enter":
                for key in [what, *([(stack[-1][0], what)] if stack else ())]:
                    levels[me, key] = levels.get((me, key), 0) + 1
                stack.append([what, times[me], 0])
            else:
                assert stack[-1][0] == what, "the oracle lost count"
                leave(me)
        for me, stack in stacks.items():
            while stack:
                leave(me)
        return {key: tuple(value) for key, value in entries.items()}


def found(stats: Stats, *, times: bool = True) -> dict[Any, tuple[float, ...]]:
    """Return a profile in the form of :meth:`Program.truth`."""
    known = {*(f"{kind}{i}" for kind in "fg" for i in range(FUNCTIONS))}
    known |= {SORTED, CLOSE, SWITCH, THROW}
    result: dict[Any, tuple[float, ...]] = {}
    for (_, _, name), (primitive, calls, own, total, callers) in stats.items():
        if name in known:
            result[name] = (primitive, calls, round(own, 6), round(total, 6))
            for (_, _, caller), edge in callers.items():
                if caller in known:
                    result[caller, name] = (edge[1], edge[0], round(edge[2], 6), round(edge[3], 6))
    return result


def differences(
    right: dict[Any, tuple[float, ...]], given: dict[Any, tuple[float, ...]], columns: int = 4
) -> list[Any]:
    """Return the keys whose values differ, or are missing, or invented."""
    keys = {*right, *given}
    return [k for k in keys if right.get(k, ())[:columns] != given.get(k, ())[:columns]]
