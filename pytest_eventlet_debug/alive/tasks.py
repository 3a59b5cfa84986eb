"""Find every asyncio task of the process and tell what it does and waits for.

The result is plain data: it keeps no task, frame or coroutine alive. Nothing here
raises, cancels, or takes the ``repr`` of a task: on Python 3.10 that recurses without
end once tasks await each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import dataclasses
import gc
import inspect
import os
import sys
import types
from typing import Any
from typing import Literal

State = Literal["running", "ready", "waiting", "cancelling", "done"]

MAX_CHAIN = 500
"""Frames of one await chain that are followed."""
MAX_REPR = 100
"""Characters of a foreign object's repr that are kept."""

# Python 3.12 freezes some objects of its own as it starts.
_FROZEN_AT_START = gc.get_freeze_count()
_AWAITED = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR


@dataclasses.dataclass(frozen=True)
class Frame:
    """One suspended or running function of an await chain."""

    filename: str
    lineno: int
    function: str


@dataclasses.dataclass(frozen=True)
class Waits:
    """What a task waits for."""

    kind: str
    """The same for tasks that wait for the same kind of thing, such as ``sleep``."""
    text: str
    seconds: float | None = None
    """Time left on the loop's clock, if the wait has an end."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A task at the moment it was looked at."""

    id: int
    """The ``id()`` of the task; only good to relate entries of one :class:`AliveTasks`."""
    loop: int
    """The ``id()`` of its loop, 0 if unknown."""
    name: str
    state: State
    coroutine: str
    """Qualified name, as in ``Hub.run.<locals>.async_run()``."""
    stack: tuple[Frame, ...]
    """The await chain, outermost first."""
    waits: Waits | None
    awaits: tuple[int, ...]
    """Ids of the tasks without all of which it will not go on."""


@dataclasses.dataclass(frozen=True)
class Loop:
    """An event loop that has tasks."""

    id: int
    kind: str
    state: Literal["running", "not running", "closed"]
    thread: str | None
    """Name of the thread that runs it."""


@dataclasses.dataclass(frozen=True)
class AliveTasks:
    """All tasks of all loops of all threads."""

    tasks: tuple[Task, ...] = ()
    """Those that are not done."""
    loops: tuple[Loop, ...] = ()
    done: int = 0
    """Number of finished tasks that are still in memory."""
    cycles: tuple[tuple[int, ...], ...] = ()
    """Ids of tasks that await each other in a circle."""
    frozen: bool = False
    """Whether ``gc.freeze()`` may hide loops, and with them tasks."""


def find_tasks() -> AliveTasks:
    """Look at all asyncio tasks of this process, whichever loop and thread they are of.

    Costs about 60 us a task, and 100 ns for each object that the garbage collector
    knows. Never imports asyncio.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or not hasattr(asyncio, "all_tasks"):
        return AliveTasks()
    tasks, loops = _enumerate(asyncio)
    running = _running(asyncio, loops.values())
    active = _active_frames()
    found: list[Task] = []
    done = 0
    for task in tasks.values():
        try:
            described = _describe(task, running, active)
        except BaseException as error:
            described = _unreadable(task, error)
        if described.state == "done":
            done += 1
        else:
            found.append(described)
    used = {task.loop for task in found}
    return AliveTasks(
        tuple(found),
        tuple(_loop(loop) for number, loop in loops.items() if number in used),
        done,
        _cycles({task.id: task.awaits for task in found}),
        gc.get_freeze_count() > _FROZEN_AT_START,
    )


def short_repr(thing: object) -> str:
    """Return the repr of a foreign object, cut to :data:`MAX_REPR`, whatever it does."""
    try:
        text = repr(thing)
    except BaseException as error:
        return f"<{type(thing).__qualname__} whose repr raised {type(error).__name__}>"
    text = " ".join(text.split())
    return text if len(text) <= MAX_REPR else text[: MAX_REPR - 3] + "..."


def _enumerate(asyncio: types.ModuleType) -> tuple[dict[int, Any], dict[int, Any]]:
    """Return all tasks and all loops by id: no single source knows them all."""
    tasks: dict[int, Any] = {}
    loops: dict[int, Any] = {}
    task_types = tuple(
        kind
        for kind in (asyncio.Task, getattr(asyncio.tasks, "_PyTask", None))
        if isinstance(kind, type)
    )
    kinds: dict[type, dict[int, Any] | None] = {}
    thing: Any
    for thing in gc.get_objects():
        # Not isinstance(): a proxy's __class__ would run foreign code.
        kind = type(thing)
        try:
            into = kinds[kind]
        except KeyError:
            if issubclass(kind, task_types):
                into = tasks
            elif issubclass(kind, asyncio.AbstractEventLoop):
                into = loops
            else:
                into = None
            kinds[kind] = into
        if into is not None:
            into[id(thing)] = thing
    for name in ("_all_tasks", "_scheduled_tasks", "_eager_tasks"):
        for task in _snapshot(getattr(asyncio.tasks, name, ())):
            tasks[id(task)] = task
    for task in list(tasks.values()):
        try:
            loop = task.get_loop()
            loops[id(loop)] = loop
        except BaseException:
            continue
    for loop in loops.values():
        try:
            for task in asyncio.all_tasks(loop):
                tasks[id(task)] = task
        except BaseException:
            continue
    return tasks, loops


def _snapshot(weak: Iterable[Any]) -> list[Any]:
    for _ in range(100):
        try:
            return list(weak)
        except RuntimeError:
            # Another thread made or dropped a task meanwhile.
            continue
        except BaseException:
            break
    return []


def _running(asyncio: types.ModuleType, loops: Iterable[Any]) -> set[int]:
    running: set[int] = set()
    for loop in loops:
        try:
            task = asyncio.current_task(loop)
        except BaseException:
            continue
        if task is not None:
            running.add(id(task))
    return running


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


def _describe(task: Any, running: set[int], active: dict[int, list[types.FrameType]]) -> Task:
    coroutine = task.get_coro()
    is_running = id(task) in running
    waiter = getattr(task, "_fut_waiter", None)
    frames = list(_chain(coroutine))
    if is_running and frames:
        frames += active.get(id(frames[-1]), [])
    state: State
    if task.done():
        state = "done"
    elif is_running:
        state = "running"
    elif _is_cancelling(task, waiter):
        state = "cancelling"
    elif waiter is None:
        state = "ready"
    else:
        state = "waiting"
    waits: Waits | None = None
    awaits: list[Any] = []
    loop = task.get_loop()
    if waiter is not None and not is_running:
        try:
            waits, awaits = _waits(waiter, frames[-1] if frames else None, loop)
        except BaseException as error:
            kind = type(waiter).__qualname__
            waits = Waits(kind, f"a {kind}, which could not be read: {type(error).__name__}")
    return Task(
        id(task),
        id(loop),
        _name(task),
        state,
        _call(coroutine),
        tuple(Frame(f.f_code.co_filename, f.f_lineno or 0, _function(f.f_code)) for f in frames),
        waits,
        tuple(id(other) for other in awaits),
    )


def _unreadable(task: Any, error: BaseException) -> Task:
    waits = Waits("unreadable", f"could not be read: {type(error).__name__}")
    return Task(id(task), 0, _name(task), "waiting", type(task).__qualname__, (), waits, ())


def _is_cancelling(task: Any, waiter: Any) -> bool:
    if getattr(task, "_must_cancel", False) is True:
        return True
    if sys.version_info >= (3, 11):
        return bool(task.cancelling() > 0)
    return waiter is not None and bool(waiter.cancelled())


def _name(task: Any) -> str:
    try:
        name = task.get_name()
    except BaseException:
        name = None
    if type(name) is not str:
        return f"<{type(task).__qualname__} at {id(task):#x}>"
    return name if name.isprintable() else ascii(name)


def _call(coroutine: Any) -> str:
    name = getattr(coroutine, "__qualname__", None)
    if type(name) is not str:
        name = type(coroutine).__qualname__
    return f"{name}()"


def _function(code: types.CodeType) -> str:
    # Qualified names came with Python 3.11.
    name: str = getattr(code, "co_qualname", code.co_name)
    return name


def _chain(awaitable: Any) -> Iterator[types.FrameType]:
    """Yield the frames of a suspended await chain, outermost first."""
    for _ in range(MAX_CHAIN):
        kind = type(awaitable)
        if kind is types.CoroutineType:
            frame, awaitable = awaitable.cr_frame, awaitable.cr_await
        elif kind is types.GeneratorType:
            frame, awaitable = awaitable.gi_frame, awaitable.gi_yieldfrom
        elif kind is types.AsyncGeneratorType:
            frame, awaitable = awaitable.ag_frame, awaitable.ag_await
        elif kind.__name__ in (
            "async_generator_asend",
            "async_generator_athrow",
            "anext_awaitable",
            "coroutine_wrapper",
        ):
            # These do not name what they drive, but the garbage collector knows.
            frame = None
            awaitable = next(filter(_is_chained, gc.get_referents(awaitable)), None)
        else:
            return
        if frame is not None:
            yield frame


def _is_chained(thing: object) -> bool:
    return type(thing) in (types.AsyncGeneratorType, types.CoroutineType) or (
        type(thing).__name__ in ("async_generator_asend", "async_generator_athrow")
    )


def _waits(waiter: Any, innermost: types.FrameType | None, loop: Any) -> tuple[Waits, list[Any]]:
    """Return what a task waits on, and the tasks without which it cannot go on.

    :param waiter: the future that will wake the task.
    :param innermost: the frame at the end of its await chain.
    """
    if innermost is not None and _is_of_asyncio(innermost.f_code):
        known = _waits_of_asyncio(innermost, loop)
        if known is not None:
            return known
    children = getattr(waiter, "_children", None)
    if type(children) is list:
        return Waits("gather", f"gather of {len(children)}"), _pending(children)
    if hasattr(type(waiter), "get_coro"):
        return Waits("task", f"task {_name(waiter)}"), [waiter]
    kind = type(waiter)
    if kind.__module__ in ("_asyncio", "asyncio.futures"):
        return Waits("Future", "a Future"), []
    return Waits(kind.__qualname__, short_repr(waiter)), []


def _waits_of_asyncio(frame: types.FrameType, loop: Any) -> tuple[Waits, list[Any]] | None:
    name = frame.f_code.co_name
    scope = frame.f_locals
    if name == "sleep" and "h" in scope:
        left = max(scope["h"].when() - loop.time(), 0.0)
        return Waits("sleep", "sleep", left), []
    if name == "_wait" and "fs" in scope:
        futures = list(scope["fs"])
        # Any other condition may come true without all of them.
        needed = _pending(futures) if scope.get("return_when") == "ALL_COMPLETED" else []
        return Waits("wait", f"asyncio.wait of {len(futures)}"), needed
    if name == "wait_for" and "fut" in scope:
        future = scope["fut"]
        named = f" of task {_name(future)}" if hasattr(type(future), "get_coro") else ""
        return Waits("wait_for", f"asyncio.wait_for{named}"), _pending([future])
    if "self" not in scope:
        return None
    owner = scope["self"]
    kind = type(owner)
    bases = {base.__name__ for base in kind.__mro__ if base.__module__.startswith("asyncio.")}
    if name == "__aexit__" and "TaskGroup" in bases:
        members = _pending(getattr(owner, "_tasks", ()))
        return Waits("TaskGroup", f"TaskGroup of {len(members)}"), members
    waiting = getattr(owner, "_waiters", None)
    crowd = f"{len(waiting)} waiting" if waiting is not None else ""
    if "Queue" in bases:
        size = f"{len(owner._queue)} items" + (f" of {owner._maxsize}" if owner._maxsize else "")
        return Waits(f"Queue.{name}", f"{kind.__name__}.{name}, {size}"), []
    for base in ("Lock", "Semaphore", "Event", "Condition", "Barrier"):
        if base in bases:
            detail = ", ".join(filter(None, [f"{kind.__name__}.{name}", _lock_state(owner), crowd]))
            return Waits(f"{base}.{name}", detail), []
    return Waits(f"{kind.__name__}.{name}", f"{name} of {short_repr(owner)}"), []


def _lock_state(owner: Any) -> str:
    # The fields of asyncio's own classes, not their methods, which may be overridden.
    fields = getattr(owner, "__dict__", {})
    if "_locked" in fields:
        return "locked" if fields["_locked"] else "unlocked"
    if type(fields.get("_value")) is int:
        return f"value {fields['_value']}"
    if type(fields.get("_value")) is bool:
        return "set" if fields["_value"] else "not set"
    return ""


def _pending(futures: Iterable[Any]) -> list[Any]:
    return [
        future
        for future in _snapshot(futures)
        if hasattr(type(future), "get_coro") and not future.done()
    ]


def _is_of_asyncio(code: types.CodeType) -> bool:
    return os.path.basename(os.path.dirname(code.co_filename)) == "asyncio" and (
        code.co_filename.startswith(_library())
    )


def _library() -> str:
    where = getattr(sys.modules.get("asyncio"), "__file__", None) or ""
    return os.path.dirname(where)


def _loop(loop: Any) -> Loop:
    state: Literal["running", "not running", "closed"] = "not running"
    thread: str | None = None
    try:
        if loop.is_closed():
            state = "closed"
        elif loop.is_running():
            state = "running"
            thread = _thread_name(getattr(loop, "_thread_id", None))
    except BaseException:
        pass
    return Loop(id(loop), type(loop).__qualname__, state, thread)


def _thread_name(ident: int | None) -> str | None:
    active = getattr(sys.modules.get("threading"), "_active", {})
    name = getattr(active.get(ident), "name", None)
    return name if type(name) is str else None


def _cycles(edges: dict[int, tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Return one circle for each group of tasks that cannot go on without each other."""
    cycles: list[tuple[int, ...]] = []
    finished: set[int] = set()
    for start in edges:
        if start in finished:
            continue
        path = [start]
        on_path = {start: 0}
        ahead = [iter(edges[start])]
        while path:
            for other in ahead[-1]:
                if other in on_path:
                    cycles.append(tuple(path[on_path[other] :]))
                elif other in edges and other not in finished:
                    on_path[other] = len(path)
                    path.append(other)
                    ahead.append(iter(edges[other]))
                    break
            else:
                node = path.pop()
                del on_path[node]
                finished.add(node)
                ahead.pop()
    return tuple(cycles)
