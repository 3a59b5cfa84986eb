"""All that is alive at one moment, as plain data."""

from __future__ import annotations

from collections.abc import Container
import types

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug.alive.asyncio_watch import Cancelled
from pytest_eventlet_debug.alive.endings import Ending
from pytest_eventlet_debug.alive.greenthreads import AliveGreenthreads
from pytest_eventlet_debug.alive.greenthreads import find_greenthreads
from pytest_eventlet_debug.alive.heap import walk
from pytest_eventlet_debug.alive.hub import HubState
from pytest_eventlet_debug.alive.hub import find_hubs
from pytest_eventlet_debug.alive.tasks import AliveTasks
from pytest_eventlet_debug.alive.tasks import find_tasks
from pytest_eventlet_debug.system.collector import collector_paused


class Alive(msgspec.Struct, frozen=True):
    """Tasks, greenthreads and hubs, and tasks that were cancelled a moment before."""

    tasks: AliveTasks
    greenthreads: AliveGreenthreads
    hubs: tuple[HubState, ...]
    cancelled: tuple[Cancelled, ...] = ()
    endings: tuple[Ending, ...] = ()
    #: What ended the test, if a timeout did, and where that was started.
    timeout: str = ""


def take(
    cancelled: tuple[Cancelled, ...] = (),
    ignored: Container[int] = (),
    interrupted: types.FrameType | None = None,
    endings: tuple[Ending, ...] = (),
) -> Alive:
    """Look at everything in one walk over the heap.

    :param cancelled: what was seen before; tasks that still live are left out of it.
    :param ignored: the idents of threads that are of no interest.
    :param interrupted: the frame that a signal handler has interrupted.
    :param endings: who cancelled and killed whom before.
    """
    with collector_paused():
        heap = walk()
        tasks = find_tasks(heap)
        greenthreads = find_greenthreads(heap, ignored, interrupted)
        gone = _gone(cancelled, tasks)
        return Alive(tasks, greenthreads, find_hubs(heap), gone, endings)


def _gone(cancelled: tuple[Cancelled, ...], alive: AliveTasks) -> tuple[Cancelled, ...]:
    living = {(task.id, task.name) for task in alive.tasks}
    gone = []
    for each in cancelled:
        left = tuple(task for task in each.tasks.tasks if (task.id, task.name) not in living)
        # The same task may have been seen by its group and again by its loop.
        living |= {(task.id, task.name) for task in left}
        if left:
            gone.append(replace(each, tasks=replace(each.tasks, tasks=left)))
    return tuple(gone)
