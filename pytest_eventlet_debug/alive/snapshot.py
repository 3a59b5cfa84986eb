"""All that is alive at one moment, as plain data."""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Sequence
import itertools
import types

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug.alive.cancelled_tasks import Cancelled
from pytest_eventlet_debug.alive.endings import Ending
from pytest_eventlet_debug.alive.greenthreads import AliveGreenthreads
from pytest_eventlet_debug.alive.greenthreads import Greenthread
from pytest_eventlet_debug.alive.greenthreads import find_greenthreads
from pytest_eventlet_debug.alive.heap import walk
from pytest_eventlet_debug.alive.hub import HubState
from pytest_eventlet_debug.alive.hub import find_hubs
from pytest_eventlet_debug.alive.tasks import AliveTasks
from pytest_eventlet_debug.alive.tasks import Task
from pytest_eventlet_debug.alive.tasks import find_tasks
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.collector import collector_paused

#: How many of those that wait for each other are followed.
_MOST_STEPS = 10
#: How what is wrong with a wait begins, which is its kind then: see ``watched_descriptors``.
_COMPLAINTS = ("which the hub", "whose TLS", "for which the hub")
#: Kinds of waits that nobody but those who are awaited can end.
_ENDS = {"end", "task"}
#: How the kind of a wait ends that others keep from its end.
_TAKEN = (", held", ", full", ", empty", ", unfinished")
#: Seconds that are shown as none.
_NO_TIME = 0.05
#: How the kind of a wait ends whose timer is due and not called.
_LATE = ", late"


class Alive(msgspec.Struct, frozen=True):
    """Tasks, greenthreads and hubs, and tasks that were cancelled a moment before."""

    tasks: AliveTasks
    greenthreads: AliveGreenthreads
    hubs: tuple[HubState, ...]
    cancelled: tuple[Cancelled, ...] = ()
    endings: tuple[Ending, ...] = ()
    #: What ended the test, if a timeout did, and where that was started.
    timeout: str = ""

    def waits(self) -> str:
        """Say where and on what the test waits, and on what that waits; or ``""``."""
        return ", which waits ".join(self._steps(self._test))

    def of_task_in_vain(self, number: int) -> str:
        """Say what a task waits for, and on what that waits; or ``""`` if that is only a sleep.

        :param number: the ``id()`` of the task.
        """
        task = next((each for each in self.tasks.tasks if each.id == number), None)
        steps = self._steps(task)
        if task is None or task.waits is None or task.waits.kind == "sleep":
            return ""
        return f"{_named(task)}, waited in vain {', which waits '.join(steps)}"

    def in_vain(self) -> str:
        """Say the same, if it is more than the test's own line shows; or ``""``."""
        test = self._test
        steps = self._steps(test)
        kind = test.waits.kind if test is not None and test.waits is not None else ""
        tells = len(steps) > 1 or kind.startswith(_COMPLAINTS) or kind.endswith(_TAKEN)
        return ", which waits ".join(steps) if tells else ""

    @property
    def _test(self) -> Greenthread | None:
        return next((each for each in self.greenthreads.greenthreads if each.of_test), None)

    @property
    def _current(self) -> Greenthread | None:
        """The greenthread that runs, if it is not the test."""
        found = (each for each in self.greenthreads.greenthreads if each.state == "current")
        return next((each for each in found if not each.of_test), None)

    def _steps(self, begin: Greenthread | Task | None) -> list[str]:
        known: dict[int, Greenthread | Task] = {each.id: each for each in self.tasks.tasks}
        known |= {each.id: each for each in self.greenthreads.greenthreads}
        in_circles = {*itertools.chain(*self.tasks.cycles, *self.greenthreads.cycles)}
        steps: list[str] = []
        kinds: dict[int, str] = {}
        step = begin
        while step is not None and step.waits is not None and len(steps) < _MOST_STEPS:
            if step.id in kinds:
                steps[-1] += _circle([*kinds.values()][[*kinds].index(step.id) :])
                break
            kind = kinds[step.id] = step.waits.kind
            seconds = step.waits.seconds or 0.0
            left = f", {seconds:.1f} s left" if seconds >= _NO_TIME else ""
            steps.append(f"{_at(step)}on {step.waits.text}{left}")
            if len(step.needs) == 1:
                step = known.get(step.needs[0])
                continue
            if kind.endswith(_LATE):
                step = self._current
                if step is not None:
                    steps[-1] += f", as {_named(step)} does not let the hub run"
                continue
            # It needs them all: one that waits for ever is enough.
            step = next((known[each] for each in step.needs if each in in_circles), None)
            if step is not None:
                steps[-1] += f", among them {_named(step)}"
        return steps


def _circle(kinds: Sequence[str]) -> str:
    """Say that those who wait in these ways wait for each other, for the end of a phrase."""
    who, them = "they wait for each other", "them"
    if len(kinds) == 1:
        who, them = "it waits for itself", "it"
    # Others than those who hold a lock may release it.
    is_sure = _ENDS.issuperset(kinds)
    return f": {who}" if is_sure else f": {who}, unless another one lets {them} go on"


def _named(step: Greenthread | Task) -> str:
    if isinstance(step, Task):
        return f"task {step.name}, {step.coroutine}"
    return f"greenthread {step.name}"


def _at(step: Greenthread | Task) -> str:
    """Return the user's line that waits."""
    library = (STANDARD_LIBRARY, of_eventlet() or STANDARD_LIBRARY)
    own = [each for each in step.stack if not each.filename.startswith(library)]
    return f"at {own[-1].where} " if own else ""


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
