"""Write what is alive as text for a terminal: grouped, capped, with source lines."""

from __future__ import annotations

from collections.abc import Iterable
import linecache
import os
import re

from pytest_eventlet_debug.alive.tasks import AliveTasks
from pytest_eventlet_debug.alive.tasks import Frame
from pytest_eventlet_debug.alive.tasks import Loop
from pytest_eventlet_debug.alive.tasks import Task

MAX_GROUPS = 50
"""Stacks that are shown; of the others only the number."""
MAX_FRAMES = 12
"""Frames of one stack that are shown: half of them outermost, half innermost."""
MAX_NAMES = 3

_ORDER = {"running": 0, "cancelling": 1, "ready": 2, "waiting": 3, "done": 4}


def render_tasks(alive: AliveTasks, max_groups: int = MAX_GROUPS) -> str:
    """Return the tasks as text that ends in a newline.

    Tasks with the same state and stack are shown once, with their number.

    :param max_groups: how many different stacks to show at most.
    """
    lines: list[str] = []
    if not alive.tasks:
        lines.append("no asyncio tasks")
    else:
        loops = "1 loop" if len(alive.loops) == 1 else f"{len(alive.loops)} loops"
        lines.append(f"asyncio tasks: {len(alive.tasks):,} on {loops}")
    if alive.done:
        done = "1 finished task is" if alive.done == 1 else f"{alive.done:,} finished tasks are"
        lines.append(f"  ({done} still in memory)")
    if alive.frozen:
        lines.append("  (gc.freeze() was called: loops made before it may be missing)")
    names = {task.id: task.name for task in alive.tasks}
    for cycle in alive.cycles[:MAX_NAMES]:
        circle = " -> ".join(names.get(task, "?") for task in (*cycle, cycle[0]))
        lines.append(f"  DEADLOCK: await cycle {circle}")
    if len(alive.cycles) > MAX_NAMES:
        lines.append(f"  DEADLOCK: {len(alive.cycles) - MAX_NAMES} more await cycles")
    groups = _groups(alive.tasks)
    several = len(alive.loops) > 1
    described = {loop.id: _loop(loop) for loop in alive.loops}
    shown_loop: int | None = None
    for group in groups[:max_groups]:
        if several and group[0].loop != shown_loop:
            shown_loop = group[0].loop
            lines.append(f"  on {described.get(shown_loop, 'an unknown loop')}")
        lines += _group(group)
    cut = groups[max_groups:]
    if cut:
        number = sum(map(len, cut))
        lines.append(f"  ... {number:,} more tasks with {len(cut):,} other stacks are not shown")
    return "\n".join(lines) + "\n"


def _groups(tasks: Iterable[Task]) -> list[list[Task]]:
    groups: dict[object, list[Task]] = {}
    for task in tasks:
        kind = task.waits.kind if task.waits is not None else None
        key = (task.loop, task.state, task.coroutine, task.stack, kind)
        groups.setdefault(key, []).append(task)
    found = list(groups.values())
    for group in found:
        group.sort(key=lambda task: _natural(task.name))
    found.sort(key=lambda group: (_ORDER[group[0].state], _natural(group[0].name)))
    # Loops in the order of their most telling group, each loop's groups together.
    rank: dict[int, int] = {}
    for group in found:
        rank.setdefault(group[0].loop, len(rank))
    found.sort(key=lambda group: rank[group[0].loop])
    return found


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts Task-9 before Task-10."""
    return [
        (len(part), part) if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)
    ]


def _group(group: list[Task]) -> list[str]:
    first = group[0]
    lines = [f"  {first.name}  {first.state}  {first.coroutine}"]
    if len(group) > 1:
        others = ", ".join(task.name for task in group[1 : 1 + MAX_NAMES])
        more = ", ..." if len(group) > 1 + MAX_NAMES else ""
        lines.append(f"    and {len(group) - 1:,} more with this stack: {others}{more}")
    stack = first.stack
    if len(stack) > MAX_FRAMES:
        half = MAX_FRAMES // 2
        lines += _frames(stack[:half])
        lines.append(f"    ... {len(stack) - 2 * half} frames cut ...")
        lines += _frames(stack[-half:])
    else:
        lines += _frames(stack)
    waits = _waits(group)
    if waits:
        lines.append(f"    waits on {waits}")
    return lines


def _frames(stack: Iterable[Frame]) -> list[str]:
    lines: list[str] = []
    for frame in stack:
        lines.append(f"    {_path(frame.filename)}:{frame.lineno} in {frame.function}")
        source = linecache.getline(frame.filename, frame.lineno).strip()
        if source:
            lines.append(f"        {source}")
    return lines


def _waits(group: list[Task]) -> str:
    waits = [task.waits for task in group if task.waits is not None]
    if not waits:
        return ""
    seconds = [wait.seconds for wait in waits if wait.seconds is not None]
    texts = dict.fromkeys(wait.text for wait in waits)
    text = next(iter(texts)) + (", ..." if len(texts) > 1 else "")
    if not seconds:
        return text
    least, most = f"{min(seconds):.3f}", f"{max(seconds):.3f}"
    return f"{text}, {least if least == most else f'{least} to {most}'} s left"


def _loop(loop: Loop) -> str:
    thread = f" in thread {loop.thread}" if loop.thread else ""
    return f"{loop.kind} at {loop.id:#x}, {loop.state}{thread}"


def _path(filename: str) -> str:
    try:
        relative = os.path.relpath(filename)
    except (OSError, ValueError):
        return filename
    return filename if relative.startswith(os.pardir) else relative
