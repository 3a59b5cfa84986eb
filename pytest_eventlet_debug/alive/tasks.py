"""Find every asyncio task of the process and tell what it does and waits for.

The result is plain data: it keeps no task, frame or coroutine alive. Nothing here
raises, cancels, or takes the ``repr`` of a task: on Python 3.10 that recurses without
end once tasks await each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable
import gc
import inspect
import sys
import types
from typing import Any
from typing import Literal

import msgspec

from pytest_eventlet_debug.alive.endings import is_task_of_hub
from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.heap import walk
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import copy_of
from pytest_eventlet_debug.alive.model import find_cycles
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.task_peers import TaskPeers
from pytest_eventlet_debug.alive.task_waits import SITE
from pytest_eventlet_debug.alive.task_waits import TaskWaits
from pytest_eventlet_debug.alive.task_waits import task_name
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.hubs.notes import ENDED
from pytest_eventlet_debug.hubs.reasons import raised
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.collector import collector_paused

State = Literal["running", "ready", "waiting", "cancelling", "done"]

#: Seconds for which a test must have kept the hub from a turn that is missing then.
NO_TURN = 0.05
#: Why it is missing.
HELD = "nothing has let the hub run since, as eventlet.sleep() would"

#: Frames of one await chain that are followed.
MAX_CHAIN = 500

#: How many tests have begun; the last one is the one that runs.
TESTS = [0]

_AWAITED = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_DRIVERS = frozenset(
    ("async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper")
)


class Task(msgspec.Struct, frozen=True):
    """A task at the moment it was looked at."""

    #: The ``id()`` of the task; only good to relate entries of one :class:`AliveTasks`.
    id: int
    #: The ``id()`` of its loop, 0 if unknown.
    loop: int
    name: str
    state: State
    #: Qualified name, as in ``Hub.run.<locals>.async_run()``.
    coroutine: str
    #: The await chain, outermost first.
    stack: tuple[Frame, ...]
    waits: Waits | None
    #: Ids of the tasks one or all of which it waits for.
    awaits: tuple[int, ...] = ()
    #: Ids of the tasks, or of the greenthread, without all of which it will not go on.
    needs: tuple[int, ...] = ()
    #: Where it was made.
    created: Frame | None = None
    #: The line that cancelled it, which it has not come to or did not heed.
    cancelled: Frame | None = None
    #: For how long it has not begun, in seconds; ``None`` if it has, or if that is not known.
    waiting: float | None = None


class Loop(msgspec.Struct, frozen=True):
    """An event loop that has tasks."""

    id: int
    kind: str
    state: Literal["running", "not running", "closed"]
    #: Name of the thread that runs it.
    thread: str | None


class AliveTasks(msgspec.Struct, frozen=True):
    """All tasks of all loops of all threads."""

    #: Those that are not done.
    tasks: tuple[Task, ...] = ()
    loops: tuple[Loop, ...] = ()
    #: Number of finished tasks that are still in memory.
    done: int = 0
    #: Those of them that this test made, that ended with an exception, and that nobody has asked
    #: how they ended: a line each.
    failed: tuple[str, ...] = ()
    #: Ids of tasks that await each other in a circle.
    cycles: tuple[tuple[int, ...], ...] = ()
    #: Whether ``gc.freeze()`` may hide loops, and with them tasks.
    frozen: bool = False


def find_tasks(heap: Heap | None = None) -> AliveTasks:
    """Look at all asyncio tasks of this process, whichever loop and thread they are of.

    Costs about 15 us a task. Never imports asyncio.

    :param heap: what a walk of a moment ago found.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not hasattr(asyncio, "current_task"):
        return AliveTasks()
    with collector_paused():
        heap = heap or walk()
        tasks, loops = _enumerate(asyncio, heap)
        return describe_tasks(tasks.values(), loops, heap)


def describe_tasks(
    tasks: Iterable[Any], loops: dict[int, Any], heap: Heap | None = None
) -> AliveTasks:
    """Tell what tasks do, all at this moment.

    :param tasks: done ones are counted and left out.
    :param loops: their loops by id.
    """
    tasks = list(tasks)
    look = _Look(sys.modules["asyncio"], tasks, loops, heap.work_items if heap else ())
    found: list[Task] = []
    done = 0
    failed: list[str] = []
    for task in tasks:
        try:
            described = look.describe(task)
            if described is None and (line := _failure(task)) is not None:
                failed.append(line)
        except BaseException as error:
            described = _unreadable(task, error)
        if described is None:
            done += 1
        else:
            found.append(described)
    used = {task.loop for task in found}
    return AliveTasks(
        tuple(found),
        tuple(_loop(loop) for number, loop in loops.items() if number in used),
        done,
        tuple(failed),
        find_cycles({task.id: task.needs for task in found}),
        heap.frozen if heap else False,
    )


def _failure(task: Any) -> str | None:
    """Say how a task of this test ended, if that was an exception that nobody has asked for."""
    site = getattr(task, SITE, None)
    error = getattr(task, "_exception", None)
    if site is None or site[2] != TESTS[0] or error is None:
        return None
    if getattr(task, "_log_traceback", False) is not True or is_task_of_hub(task):
        return None
    name = f"task {task_name(task)}, {_call(task.get_coro())},"
    return f"{name} ended with {raised(error)}; nobody has asked for its result"


def not_begun(tasks: AliveTasks, ago: float, ran: float) -> str | None:
    """Say which task of this test has not begun for a while, as its loop did not run.

    :param ago: seconds since the test failed.
    :param ran: for how long it had not let the hub run as it failed.
    """
    states = {loop.id: loop.state for loop in tasks.loops}
    for task in tasks.tasks:
        late = (task.waiting or 0.0) - ago
        # What a callback of the loop has made there is not what the test waits for.
        if task.created is None or HUBS in task.created.filename or late < NO_TURN:
            continue
        if task.loop == id(getattr(own_hub(), "loop", None)):
            why = HELD if late <= ran else ""
        else:
            why = "nobody runs its event loop" if states.get(task.loop) == "not running" else ""
        if why:
            return (
                f"task {task.name}, {task.coroutine}, created at {task.created.where}, had not "
                f"begun {late:.2f} s later: {why}"
            )
    return None


def _enumerate(asyncio: types.ModuleType, heap: Heap) -> tuple[dict[int, Any], dict[int, Any]]:
    """Return all tasks and all loops by id: no single source knows them all."""
    tasks = {id(task): task for task in heap.tasks}
    loops = {id(loop): loop for loop in heap.loops}
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        for task in copy_of(getattr(asyncio.tasks, name, ())):
            tasks[id(task)] = task
    for task in list(tasks.values()):
        try:
            loop = task.get_loop()
        except BaseException:
            continue
        if loop is not None:
            loops[id(loop)] = loop
    if sys.version_info >= (3, 14):
        for loop in loops.values():
            # The registers of that version are lists of each thread, in C.
            try:
                for task in asyncio.all_tasks(loop):
                    tasks[id(task)] = task
            except BaseException:
                continue
    return tasks, loops


class _Look:
    """One look at many tasks; what they share is found out once."""

    def __init__(
        self,
        asyncio: types.ModuleType,
        tasks: Iterable[Any],
        loops: dict[int, Any],
        work_items: Iterable[Any],
    ) -> None:
        self._asyncio = asyncio
        self._frames = Frames()
        self._stacks: dict[tuple[int, ...], tuple[Frame, ...]] = {}
        self._library = folder_of(getattr(asyncio, "__file__", None) or "")
        self._loops = loops
        self._waits = TaskWaits(self._library, work_items, TaskPeers(tasks, _chain))
        self._running = self._current_tasks()
        self._inner = _active_frames() if self._running else {}

    def _current_tasks(self) -> set[int]:
        running: set[int] = set()
        for loop in self._loops.values():
            try:
                task = self._asyncio.current_task(loop)
            except BaseException:
                continue
            if task is not None:
                running.add(id(task))
        return running

    def describe(self, task: Any) -> Task | None:
        """Return what a task does, or ``None`` if it is done."""
        if task.done():
            return None
        coroutine = task.get_coro()
        is_running = id(task) in self._running
        waiter = task._fut_waiter
        frames = _chain(coroutine)
        if is_running and frames:
            frames += self._inner.get(id(frames[-1]), [])
        state: State
        if is_running:
            state = "running"
        elif _is_cancelling(task, waiter):
            state = "cancelling"
        elif waiter is None:
            state = "ready"
        else:
            state = "waiting"
        waits: Waits | None = None
        awaits: list[Any] = []
        needs: list[Any] = []
        loop = task.get_loop()
        if waiter is not None and not is_running:
            try:
                waits, awaits, needs = self._waits.of(waiter, frames[-1] if frames else None, loop)
            except BaseException as error:
                kind = type(waiter).__qualname__
                waits = Waits(kind, f"a {kind}, which could not be read: {type(error).__name__}")
        return Task(
            id(task),
            id(loop),
            task_name(task),
            state,
            _call(coroutine),
            self._stack(frames),
            waits,
            tuple(map(id, awaits)),
            tuple(map(id, needs)),
            self._created(task),
            self._frames.at(*site) if (site := getattr(task, ENDED, None)) is not None else None,
            _not_begun_for(task, coroutine) if state == "ready" else None,
        )

    def _stack(self, frames: list[types.FrameType]) -> tuple[Frame, ...]:
        # Most tasks share their stack with many: f_lasti is cheap, a line number is not.
        key: list[int] = []
        for frame in frames:
            key += (id(frame.f_code), frame.f_lasti)
        stack = self._stacks.get(tuple(key))
        if stack is None:
            stack = tuple(map(self._frames.describe, frames))
            self._stacks[tuple(key)] = stack
        return stack

    def _created(self, task: Any) -> Frame | None:
        site = getattr(task, SITE, None)
        if site is not None:
            return self._frames.at(*site[:2])
        # Debug mode, as IsolatedAsyncioTestCase sets it, remembers more.
        for summary in reversed(getattr(task, "_source_traceback", None) or ()):
            if not summary.filename.startswith(self._library):
                return Frame(summary.filename, summary.lineno or 0, summary.name)
        return None


def _not_begun_for(task: Any, coroutine: Any) -> float | None:
    site = getattr(task, SITE, None)
    if type(coroutine) is not types.CoroutineType or site is None or site[2] != TESTS[0]:
        return None
    if inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED:
        return None
    return float(unpatched.monotonic() - site[3])


def _unreadable(task: Any, error: BaseException) -> Task:
    waits = Waits("unreadable", f"could not be read: {type(error).__name__}")
    return Task(id(task), 0, task_name(task), "waiting", type(task).__qualname__, (), waits)


def _active_frames() -> dict[int, list[types.FrameType]]:
    """Return, by id of each frame on a thread's stack, the awaited frames it has called.

    A running coroutine does not tell what it awaits; the stack of its thread does.
    """
    inner: dict[int, list[types.FrameType]] = {}
    for top in sys._current_frames().values():
        awaited: list[types.FrameType] = []
        frame: types.FrameType | None = top
        while frame is not None:
            if frame.f_code.co_flags & _AWAITED:
                inner[id(frame)] = awaited[::-1]
                awaited.append(frame)
            frame = frame.f_back
    return inner


def _is_cancelling(task: Any, waiter: Any) -> bool:
    if getattr(task, "_must_cancel", False) is True:
        return True
    if sys.version_info >= (3, 11):
        return bool(task.cancelling() > 0)
    return waiter is not None and bool(waiter.cancelled())


def _call(coroutine: Any) -> str:
    name = getattr(coroutine, "__qualname__", None)
    if type(name) is not str:
        name = type(coroutine).__qualname__
    return f"{name}()"


def _chain(awaitable: Any) -> list[types.FrameType]:
    """Return the frames of a suspended await chain, outermost first."""
    frames: list[types.FrameType] = []
    for _ in range(MAX_CHAIN):
        kind = type(awaitable)
        if kind is types.CoroutineType:
            frame, awaitable = awaitable.cr_frame, awaitable.cr_await
        elif kind is types.GeneratorType:
            frame, awaitable = awaitable.gi_frame, awaitable.gi_yieldfrom
        elif kind is types.AsyncGeneratorType:
            frame, awaitable = awaitable.ag_frame, awaitable.ag_await
        elif kind.__name__ in _DRIVERS:
            # These do not name what they drive, but the garbage collector knows.
            frame = None
            awaitable = next(filter(_is_chained, gc.get_referents(awaitable)), None)
        else:
            break
        if frame is not None and not frame.f_code.co_filename.startswith(OURS):
            frames.append(frame)
    return frames


def _is_chained(thing: object) -> bool:
    return type(thing) in (types.AsyncGeneratorType, types.CoroutineType) or (
        type(thing).__name__ in ("async_generator_asend", "async_generator_athrow")
    )


def _loop(loop: Any) -> Loop:
    state: Literal["running", "not running", "closed"] = "not running"
    thread: str | None = None
    try:
        if loop.is_closed():
            state = "closed"
        elif loop.is_running():
            state = "running"
            thread = thread_name(getattr(loop, "_thread_id", None))
    except BaseException:
        pass
    return Loop(id(loop), type(loop).__qualname__, state, thread)
