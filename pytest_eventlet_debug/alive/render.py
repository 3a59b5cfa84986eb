"""Write what is alive as text for a terminal: grouped, capped, with source lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Hashable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import re
from typing import TypeVar

from pytest_eventlet_debug.alive import source
from pytest_eventlet_debug.alive.cancelled_tasks import Cancelled
from pytest_eventlet_debug.alive.endings import Ending
from pytest_eventlet_debug.alive.greenthreads import AliveGreenthreads
from pytest_eventlet_debug.alive.greenthreads import Greenthread
from pytest_eventlet_debug.alive.greenthreads import Thread
from pytest_eventlet_debug.alive.hub import LATE
from pytest_eventlet_debug.alive.hub import HubState
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import is_of_asyncio
from pytest_eventlet_debug.alive.task_waits import LET_GO
from pytest_eventlet_debug.alive.tasks import AliveTasks
from pytest_eventlet_debug.alive.tasks import Loop
from pytest_eventlet_debug.alive.tasks import Task
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.phrasing import listed

#: Stacks that are shown; of the others only the number.
MAX_GROUPS = 50
#: Frames of one stack that are shown: half of them outermost, half innermost.
MAX_FRAMES = 12
MAX_NAMES = 3
#: How deep tasks that await tasks are followed.
MAX_DEPTH = 10

_ORDER = {"running": 0, "current": 0, "cancelling": 1, "ready": 2, "waiting": 3}
_STEP = "   "

_T = TypeVar("_T")


def render_tasks(
    alive: AliveTasks,
    max_groups: int = MAX_GROUPS,
    cancelled: Iterable[Cancelled] = (),
) -> str:
    """Return the tasks as text that ends in a newline.

    Tasks with the same state and stack are shown once, with their number. Below a task
    stand those that it waits for.

    :param max_groups: how many different stacks to show at most.
    :param cancelled: tasks that are gone, shown after those that live.
    """
    cancelled = tuple(cancelled)
    lines: list[str] = []
    if alive.tasks:
        lines.append(f"asyncio tasks: {len(alive.tasks):,} on {counted(len(alive.loops), 'loop')}")
    elif not cancelled:
        lines.append("no asyncio tasks")
    else:
        lines.append("no asyncio tasks are left")
    if alive.done:
        done = "1 finished task is" if alive.done == 1 else f"{alive.done:,} finished tasks are"
        lines.append(f"  ({done} still in memory)")
    if alive.frozen:
        lines.append("  (gc.freeze() was called: loops made before it may be missing)")
    lines += _TaskTree(alive).lines(max_groups)
    lines += [f"  {line}" for line in alive.failed[:max_groups]]
    for each in cancelled:
        count = len(each.tasks.tasks)
        tasks = "1 task was" if count == 1 else f"{count:,} tasks were"
        lines.append(f"{tasks} cancelled when {each.reason}; until then:")
        lines += _TaskTree(each.tasks).lines(max_groups)
    return "\n".join(lines) + "\n"


class _TaskTree:
    """The forest of tasks that wait for tasks, with equal trees drawn once."""

    def __init__(self, alive: AliveTasks) -> None:
        self._alive = alive
        self._tasks = {task.id: task for task in alive.tasks}
        self._numbers: dict[Hashable, int] = {}
        self._group_of: dict[int, int] = {}
        self._shown: set[int] = set()
        self._left = 0

    def lines(self, max_groups: int) -> list[str]:
        lines = self._cycles()
        for task in self._alive.tasks:
            self._number(task.id)
        awaited = {other for task in self._alive.tasks for other in task.awaits}
        roots = [task for task in self._alive.tasks if task.id not in awaited]
        roots += [self._tasks[cycle[0]] for cycle in self._alive.cycles]
        groups = self._grouped(dict.fromkeys(roots))
        several = len(self._alive.loops) > 1
        described = {loop.id: _loop(loop) for loop in self._alive.loops}
        shown_loop: int | None = None
        self._left = max_groups
        cut = 0
        for group in groups:
            if self._left <= 0:
                cut += 1
                continue
            if several and group[0].loop != shown_loop:
                shown_loop = group[0].loop
                lines.append(f"  on {described.get(shown_loop, 'an unknown loop')}")
            lines += self._block(group, 0)
        if cut:
            number = sum(map(len, groups[len(groups) - cut :]))
            lines.append(f"  ... {number:,} more tasks with {_other_stacks(cut)} are not shown")
        return lines

    def _cycles(self) -> list[str]:
        lines = []
        cycles = self._alive.cycles
        for cycle in cycles[:MAX_NAMES]:
            members = [self._tasks[task] for task in cycle]
            shown = " -> ".join(each.name for each in (*members, members[0]))
            if any(each.waits is not None and each.waits.kind.endswith(LET_GO) for each in members):
                lines.append(f"  DEADLOCK, unless another one lets them go on: {shown}")
            else:
                lines.append(f"  DEADLOCK: await cycle {shown}")
        if len(cycles) > MAX_NAMES:
            lines.append(f"  DEADLOCK: {len(cycles) - MAX_NAMES} more await cycles")
        return lines

    def _number(self, start: int) -> None:
        """Give each task the number of its kind: its own looks and those of its children."""
        ahead = [start]
        entered: set[int] = set()
        while ahead:
            number = ahead[-1]
            if number in self._group_of:
                ahead.pop()
                continue
            task = self._tasks[number]
            children = [each for each in task.awaits if each in self._tasks]
            if children and number not in entered:
                entered.add(number)
                missing = [
                    each for each in children if each not in self._group_of and each not in entered
                ]
                if missing:
                    ahead += missing
                    continue
            ahead.pop()
            # -1 stands for a child that is above it, in a circle.
            below = (
                frozenset(Counter(self._group_of.get(each, -1) for each in children).items())
                if children
                else None
            )
            waits = task.waits.kind if task.waits is not None else None
            own = (
                task.loop,
                task.state,
                task.coroutine,
                task.stack,
                waits,
                task.created,
                task.cancelled,
            )
            kind = (own, below)
            group = self._numbers.setdefault(kind, len(self._numbers))
            self._group_of[number] = group

    def _grouped(self, tasks: Iterable[Task]) -> list[list[Task]]:
        groups: dict[int, list[Task]] = {}
        for task in tasks:
            groups.setdefault(self._group_of[task.id], []).append(task)
        found = list(groups.values())
        for group in found:
            # What the whole order does for a few names is too slow for 100,000.
            group.sort(key=lambda task: (len(task.name), task.name))
        found.sort(key=lambda group: (_ORDER.get(group[0].state, 9), _natural(group[0].name)))
        # Loops in the order of their most telling group, each loop's groups together.
        rank: dict[int, int] = {}
        for group in found:
            rank.setdefault(group[0].loop, len(rank))
        found.sort(key=lambda group: rank[group[0].loop])
        return found

    def _block(self, group: list[Task], depth: int) -> list[str]:
        first = group[0]
        indent = "  " + _STEP * depth
        arrow = "-> " if depth else ""
        # The arrow takes the place of one step.
        head = indent[: len(indent) - len(_STEP)] + arrow if depth else indent
        lines = [f"{head}{first.name}  {first.state}  {first.coroutine}"]
        if first.id in self._shown:
            lines[0] += "  (shown above)"
            return lines
        self._left -= 1
        self._shown.update(task.id for task in group)
        if len(group) > 1:
            lines.append(f"{indent}  {_more_like_it([task.name for task in group[1:]])}")
        for verb, frame in (("created", first.created), ("cancelled", first.cancelled)):
            if frame is not None:
                lines.append(f"{indent}  {verb} at {frame.where}")
        frames = _frames(_without_asyncio(first) if first.waits is not None else first.stack)
        lines += [f"{indent}  {line}" for line in frames]
        waits = _waits([task.waits for task in group])
        if waits:
            lines.append(f"{indent}  waits on {waits}")
        children = [self._tasks[each] for each in first.awaits if each in self._tasks]
        if children and depth >= MAX_DEPTH:
            lines.append(f"{indent}  ... and so on")
            return lines
        below = self._grouped(dict.fromkeys(children))
        for number, each in enumerate(below):
            if self._left <= 0:
                rest = sum(map(len, below[number:]))
                lines.append(f"{indent}  ... {rest:,} more tasks that it waits for are not shown")
                break
            lines += self._block(each, depth + 1)
        return lines


def render_greenthreads(
    alive: AliveGreenthreads,
    max_groups: int = MAX_GROUPS,
    numbers: Mapping[int, int] | None = None,
) -> str:
    """Return greenthreads and threads as text that ends in a newline.

    :param numbers: by id, what greenlets are called in the debugger; none elsewhere.
    """
    lines: list[str] = []
    count = len(alive.greenthreads)
    lines.append(f"greenthreads: {count:,}" if count else "no greenthreads")
    if alive.frozen:
        lines.append("  (gc.freeze() was called: greenthreads made before it may be missing)")
    lines += _deadlocks(alive)
    groups = _by_kind(
        alive.greenthreads,
        lambda each: (
            *(each.name, each.state, each.thread, each.stack, each.spawned, each.killed),
            each.waits.kind if each.waits else None,
            each.timeout is None,
        ),
    )
    groups.sort(
        key=lambda group: (
            not group[0].of_test,
            _ORDER.get(group[0].state, 9),
            -len(group),
        )
    )
    for group in groups[:max_groups]:
        lines += _greenthread(group, numbers or {})
    cut = groups[max_groups:]
    if cut:
        number = sum(map(len, cut))
        lines.append(f"  ... {number:,} more with {_other_stacks(len(cut))} are not shown")
    lines += _threads(alive.threads, max_groups)
    return "\n".join(lines) + "\n"


def render_endings(endings: Sequence[Ending]) -> str:
    """Return who cancelled and killed whom as text; nothing where there was nobody."""
    return "".join(
        f"{each.what} was {each.verb} at {each.place.where}, by {each.by}\n" for each in endings
    )


def _deadlocks(alive: AliveGreenthreads) -> list[str]:
    known = {each.id: each for each in alive.greenthreads}
    lines = []
    for cycle in alive.cycles[:MAX_NAMES]:
        members = [known[each] for each in cycle]
        shown = " -> ".join(each.name for each in (*members, members[0]))
        ends = all(each.waits is not None and each.waits.kind == "end" for each in members)
        if ends:
            lines.append(f"  DEADLOCK: each waits for the end of the next: {shown}")
        else:
            # A semaphore may be released by others than those who hold it.
            lines.append(f"  DEADLOCK, unless another one releases a lock: {shown}")
    if len(alive.cycles) > MAX_NAMES:
        lines.append(f"  DEADLOCK: {len(alive.cycles) - MAX_NAMES} more cycles")
    return lines


def _numbered(group: list[Greenthread], numbers: Mapping[int, int]) -> str:
    known = sorted(numbers[each.id] for each in group if each.id in numbers)
    return f"  (greenlet {listed([*map(str, known)], MAX_NAMES)})" if known else ""


def _greenthread(group: list[Greenthread], numbers: Mapping[int, int]) -> list[str]:
    first = group[0]
    thread = f", in thread {first.thread}" if first.thread else ""
    lines = [f"  {first.name}  {first.state}{thread}"]
    if len(group) > 1:
        lines[0] += f"  x {len(group):,}"
    lines[0] += _numbered(group, numbers)
    for verb, frame in (("spawned", first.spawned), ("killed", first.killed)):
        if frame is not None:
            lines.append(f"    {verb} at {frame.where}")
    lines += [f"    {line}" for line in _frames(first.stack)]
    waits = _waits([each.waits for each in group])
    if waits:
        lines.append(f"    waits on {waits}")
    elif first.state == "suspended":
        lines.append("    waits on nothing that a hub knows")
    timeouts = [each.timeout for each in group if each.timeout is not None]
    if timeouts:
        lines.append(f"    a Timeout is raised in it in {_seconds(timeouts)}")
    return lines


def _threads(threads: Sequence[Thread], max_groups: int) -> list[str]:
    lines: list[str] = []
    idle = [each for each in threads if each.of_tpool and each.calls is None]
    others = [each for each in threads if each not in idle]
    if threads:
        lines.append(f"other threads: {len(threads)}")
    groups = _by_kind(others, lambda each: (each.stack, each.calls))
    for group in groups[:max_groups]:
        first = group[0]
        calls = f"  executes {first.calls}" if first.calls else ""
        lines.append(f"  {first.name}{calls}")
        if len(group) > 1:
            lines.append(f"    {_more_like_it([each.name for each in group[1:]])}")
        lines += [f"    {line}" for line in _frames(first.stack)]
    if len(groups) > max_groups:
        lines.append(f"  ... more with {_other_stacks(len(groups) - max_groups)} are not shown")
    if idle:
        lines.append(f"  {len(idle)} of tpool, idle")
    return lines


def render_hubs(hubs: Sequence[HubState], max_entries: int = MAX_GROUPS) -> str:
    """Return hubs with their listeners and timers as text that ends in a newline."""
    if not hubs:
        return "no hub\n"
    lines: list[str] = []
    for hub in hubs:
        state = "running" if hub.running else "not running"
        if hub.stuck:
            state = "ended by an exception for good"
        where = "" if hub.current else ", of another thread or replaced"
        counts = f"{_none_or(hub.listeners, 'listener')}, {_none_or(hub.timers, 'timer')}"
        lines.append(f"hub {hub.kind}, {state}{where}: {counts}")
        for listener in hub.listeners[:max_entries]:
            lines.append(
                f"  {listener.event} on fd {listener.fd}, {listener.target}: "
                f"wakes {listener.greenthread}"
            )
        if len(hub.listeners) > max_entries:
            lines.append(f"  ... {len(hub.listeners) - max_entries:,} more listeners")
        lines += [
            f"  woken for {each}, for which nobody waits" for each in hub.strays[:max_entries]
        ]
        lines += _timers(hub, max_entries)
    return "\n".join(lines) + "\n"


def _timers(hub: HubState, max_entries: int) -> list[str]:
    groups = _by_kind(hub.timers, lambda timer: (timer.call, timer.late >= LATE))
    lines = []
    for group in groups[:max_entries]:
        times = f" x {len(group):,}" if len(group) > 1 else ""
        first = group[0]
        when = f"in {_seconds([timer.seconds for timer in group])}"
        if first.late >= LATE:
            when = f"overdue by {_seconds([timer.late for timer in group])}"
        lines.append(f"  {when}: {first.call}{times}")
    if len(groups) > max_entries:
        number = sum(map(len, groups[max_entries:]))
        lines.append(f"  ... {number:,} more timers")
    return lines


def _other_stacks(count: int) -> str:
    return f"{count:,} other stacks" if count > 1 else "another stack"


def _none_or(things: Sequence[object], noun: str) -> str:
    return counted(len(things), noun) if things else f"no {noun}s"


def _by_kind(things: Iterable[_T], key: Callable[[_T], Hashable]) -> list[list[_T]]:
    groups: dict[Hashable, list[_T]] = {}
    for thing in things:
        groups.setdefault(key(thing), []).append(thing)
    return list(groups.values())


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts Task-9 before Task-10."""
    return [
        (len(part), part) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)
    ]


def _more_like_it(names: Sequence[str]) -> str:
    return f"and {len(names):,} more with this stack: {listed(names, MAX_NAMES)}"


def _without_asyncio(task: Task) -> Sequence[Frame]:
    """Return the await chain without asyncio's own end, which what it waits on tells."""
    end = len(task.stack)
    while end > 1 and is_of_asyncio(task.stack[end - 1]):
        end -= 1
    return task.stack[:end]


def _frames(stack: Sequence[Frame]) -> list[str]:
    if len(stack) <= MAX_FRAMES:
        return [line for frame in stack for line in _frame(frame)]
    half = MAX_FRAMES // 2
    return [
        *(line for frame in stack[:half] for line in _frame(frame)),
        f"... {len(stack) - 2 * half} frames cut ...",
        *(line for frame in stack[-half:] for line in _frame(frame)),
    ]


def _frame(frame: Frame) -> list[str]:
    text = source.line(frame.filename, frame.lineno)
    return [frame.where, *([f"    {text}"] if text else [])]


def _waits(all_waits: Iterable[Waits | None]) -> str:
    waits = [wait for wait in all_waits if wait is not None]
    if not waits:
        return ""
    seconds = [wait.seconds for wait in waits if wait.seconds is not None]
    text = listed([*dict.fromkeys(wait.text for wait in waits)], 1)
    return f"{text}, {_seconds(seconds)} left" if seconds else text


def _seconds(seconds: Sequence[float]) -> str:
    least, most = f"{min(seconds):.3f}", f"{max(seconds):.3f}"
    return f"{least if least == most else f'{least} to {most}'} s"


def _loop(loop: Loop) -> str:
    thread = f" in thread {loop.thread}" if loop.thread else ""
    return f"{loop.kind} at {loop.id:#x}, {loop.state}{thread}"
