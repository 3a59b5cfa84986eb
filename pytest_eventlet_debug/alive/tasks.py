"""Find every asyncio task of the process and tell what it does and waits for.

The result is plain data: it keeps no task, frame or coroutine alive. Nothing here
raises, cancels, or takes the ``repr`` of a task: on Python 3.10 that recurses without
end once tasks await each other in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable
import functools
import gc
import inspect
import os
import sys
import types
from typing import Any
from typing import Literal
from typing import NamedTuple

from pytest_eventlet_debug.alive import descriptors
from pytest_eventlet_debug.alive.endings import ENDED
from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.heap import walk
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import find_cycles
from pytest_eventlet_debug.alive.model import short_repr
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.system.collector import collector_paused

State = Literal["running", "ready", "waiting", "cancelling", "done"]

MAX_CHAIN = 500
"""Frames of one await chain that are followed."""

SITE = "_eventlet_debug_site"
"""An attribute of tasks: the code and line that made them, where that was watched."""

_AWAITED = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE | inspect.CO_ASYNC_GENERATOR
_DRIVERS = frozenset(
    ("async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper")
)


class Task(NamedTuple):
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
    awaits: tuple[int, ...] = ()
    """Ids of the tasks one or all of which it waits for."""
    needs: tuple[int, ...] = ()
    """Ids of the tasks without all of which it will not go on."""
    created: Frame | None = None
    """Where it was made."""
    cancelled: Frame | None = None
    """The line that cancelled it, which it has not come to or did not heed."""


class Loop(NamedTuple):
    """An event loop that has tasks."""

    id: int
    kind: str
    state: Literal["running", "not running", "closed"]
    thread: str | None
    """Name of the thread that runs it."""


class AliveTasks(NamedTuple):
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
    look = _Look(sys.modules["asyncio"], loops, heap.work_items if heap else ())
    found: list[Task] = []
    done = 0
    for task in tasks:
        try:
            described = look.describe(task)
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
        find_cycles({task.id: task.needs for task in found}),
        heap.frozen if heap else False,
    )


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


def copy_of(changing: Iterable[Any]) -> list[Any]:
    """Return the members of a set that other threads may change meanwhile."""
    for _ in range(100):
        try:
            return list(changing)
        except RuntimeError:
            continue
        except BaseException:
            break
    return []


class _Look:
    """One look at many tasks; what they share is found out once."""

    def __init__(
        self, asyncio: types.ModuleType, loops: dict[int, Any], work_items: Iterable[Any]
    ) -> None:
        self._asyncio = asyncio
        self._frames = Frames()
        self._stacks: dict[tuple[int, ...], tuple[Frame, ...]] = {}
        self._of_asyncio: dict[int, bool] = {}
        self._library = os.path.dirname(getattr(asyncio, "__file__", None) or "") + os.sep
        self._now: dict[int, float] = {}
        self._loops = loops
        self._work_items = work_items
        self._work: dict[int, Any] | None = None
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
                waits, awaits, needs = self._waits(waiter, frames[-1] if frames else None, loop)
            except BaseException as error:
                kind = type(waiter).__qualname__
                waits = Waits(kind, f"a {kind}, which could not be read: {type(error).__name__}")
        return Task(
            id(task),
            id(loop),
            _name(task),
            state,
            _call(coroutine),
            self._stack(frames),
            waits,
            tuple(map(id, awaits)),
            tuple(map(id, needs)),
            self._created(task),
            self._frames.at(*site) if (site := getattr(task, ENDED, None)) is not None else None,
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
            return self._frames.at(*site)
        # Debug mode, as IsolatedAsyncioTestCase sets it, remembers more.
        for summary in reversed(getattr(task, "_source_traceback", None) or ()):
            if not summary.filename.startswith(self._library):
                return Frame(summary.filename, summary.lineno or 0, summary.name)
        return None

    def _is_of_asyncio(self, code: types.CodeType) -> bool:
        known = self._of_asyncio.get(id(code))
        if known is None:
            known = self._of_asyncio[id(code)] = code.co_filename.startswith(self._library)
        return known

    def _waits(
        self, waiter: Any, innermost: types.FrameType | None, loop: Any
    ) -> tuple[Waits, list[Any], list[Any]]:
        """Return what a task waits on, the tasks among it, and those that it needs.

        :param waiter: the future that will wake the task.
        :param innermost: the frame at the end of its await chain.
        """
        if innermost is not None and self._is_of_asyncio(innermost.f_code):
            known = self._waits_of_asyncio(innermost, waiter, loop)
            if known is not None:
                return known
        children = getattr(waiter, "_children", None)
        if type(children) is list:
            pending = _pending(children)
            done = sum(1 for child in children if child.done())
            text = f"gather of {len(children)}" + (f", {done} done" if done else "")
            return Waits("gather", text), pending, pending
        if _is_task(waiter):
            return Waits("task", f"task {_name(waiter)}"), [waiter], [waiter]
        known = self._waits_of_callbacks(waiter)
        if known is not None:
            return known
        kind = type(waiter)
        if not _has_own_repr(kind):
            what = "a Future" if kind.__name__ == "Future" else f"a {kind.__qualname__}"
            return Waits(kind.__qualname__, what), [], []
        return Waits(kind.__qualname__, short_repr(waiter)), [], []

    def _waits_of_callbacks(self, waiter: Any) -> tuple[Waits, list[Any], list[Any]] | None:
        """Tell shield, executors and sockets by what they have the future call."""
        inner = _shielded(waiter)
        if inner is not None:
            pending = _pending([inner])
            named = f" of task {_name(inner)}" if _is_task(inner) else ""
            return Waits("shield", f"shield{named}"), pending, pending
        for callback in copy_of(getattr(waiter, "_callbacks", None) or ()):
            call = callback[0] if type(callback) is tuple else callback
            if type(call) is functools.partial:
                name = getattr(call.func, "__name__", "")
                if name in ("_sock_read_done", "_sock_write_done") and call.args:
                    fd = call.args[0]
                    verb = name.split("_")[2]
                    where = f"{verb} on fd {fd}, {descriptors.describe(fd)}"
                    return Waits(f"socket {verb}", where), [], []
                continue
            if type(call) is not types.FunctionType:
                continue
            if call.__qualname__ == "_chain_future.<locals>._call_check_cancel":
                source = _cell(call, "source")
                if type(source).__module__ == "concurrent.futures._base":
                    return self._executor(source), [], []
                if source is not None:
                    # run_coroutine_threadsafe() and wrap_future() chain the like.
                    return Waits("Future", "a Future of another loop or thread"), [], []
        return None

    def _executor(self, future: Any) -> Waits:
        if self._work is None:
            self._work = {id(getattr(item, "future", None)): item for item in self._work_items}
        item = self._work.get(id(future)) or _running_work(future)
        state = str(getattr(future, "_state", "")).lower()
        if item is None:
            return Waits("executor", f"a future of an executor, {state}")
        # Its name changed in Python 3.14.
        function = getattr(item, "fn", None) or (getattr(item, "task", None) or (None,))[0]
        return Waits("executor", f"run_in_executor of {callable_name(function)}, {state}")

    def _time_left(self, when: float, loop: Any) -> float:
        now = self._now.get(id(loop))
        if now is None:
            now = self._now[id(loop)] = loop.time()
        return max(when - now, 0.0)

    def _waits_of_asyncio(
        self, frame: types.FrameType, waiter: Any, loop: Any
    ) -> tuple[Waits, list[Any], list[Any]] | None:
        name = frame.f_code.co_name
        scope = frame.f_locals
        if name == "sleep" and "h" in scope:
            return Waits("sleep", "sleep", self._time_left(scope["h"].when(), loop)), [], []
        if name == "_wait" and "fs" in scope:
            return self._wait_of_many(scope, loop)
        if name == "wait_for" and "fut" in scope:
            future = scope["fut"]
            named = f" of task {_name(future)}" if _is_task(future) else ""
            handle = scope.get("timeout_handle")
            left = self._time_left(handle.when(), loop) if handle is not None else None
            pending = _pending([future])
            return Waits("wait_for", f"asyncio.wait_for{named}", left), pending, pending
        if "self" not in scope:
            return None
        owner = scope["self"]
        kind = type(owner)
        bases = {base.__name__ for base in kind.__mro__ if base.__module__.startswith("asyncio.")}
        # From Python 3.13.1 on it waits in _aexit(), which __aexit__() awaits.
        if name in ("__aexit__", "_aexit") and "TaskGroup" in bases:
            members = _pending(getattr(owner, "_tasks", ()))
            return Waits("TaskGroup", f"TaskGroup of {len(members)}"), members, members
        waiting = getattr(owner, "_waiters", None)
        crowd = f"{len(waiting)} waiting" if waiting is not None else ""
        if "Queue" in bases:
            most = f" of {owner._maxsize}" if owner._maxsize else ""
            size = f"{len(owner._queue)} items{most}"
            return Waits(f"Queue.{name}", f"{kind.__name__}.{name}, {size}"), [], []
        for base in ("Lock", "Semaphore", "Event", "Condition", "Barrier"):
            if base in bases:
                words = [f"{kind.__name__}.{name}", _lock_state(owner), crowd]
                return Waits(f"{base}.{name}", ", ".join(filter(None, words))), [], []
        return self._waits_of_stream(name, owner, waiter)

    def _wait_of_many(self, scope: Any, loop: Any) -> tuple[Waits, list[Any], list[Any]]:
        futures = copy_of(scope["fs"])
        pending = _pending(futures)
        condition = scope.get("return_when")
        # Any other condition may come true without all of them.
        needed = pending if condition == "ALL_COMPLETED" else []
        handle = scope.get("timeout_handle")
        left = self._time_left(handle.when(), loop) if handle is not None else None
        done = len(futures) - sum(1 for future in futures if not future.done())
        text = f"asyncio.wait of {len(futures)}" + (f", {done} done" if done else "")
        return Waits("wait", text, left), pending, needed

    def _waits_of_stream(
        self, name: str, owner: Any, waiter: Any
    ) -> tuple[Waits, list[Any], list[Any]] | None:
        known = self._waits_of_callbacks(waiter)
        if known is not None:
            return known
        kind = type(owner)
        where = ""
        transport = getattr(owner, "_transport", None)
        fd = getattr(transport, "_sock_fd", None)
        if type(fd) is int and fd >= 0:
            where = f", fd {fd}, {descriptors.describe(fd)}"
        pid = getattr(owner, "_pid", None)
        if type(pid) is int:
            return Waits("child process", f"the end of child process {pid}"), [], []
        if _has_own_repr(kind):
            return Waits(f"{kind.__name__}.{name}", f"{name} of {short_repr(owner)}{where}"), [], []
        return Waits(f"{kind.__name__}.{name}", f"{kind.__name__}.{name}{where}"), [], []


def _running_work(future: Any) -> Any:
    """Return what an executor's thread runs for a future, from the threads' stacks."""
    for top in sys._current_frames().values():
        frame: types.FrameType | None = top
        while frame is not None:
            if frame.f_code.co_name == "run" and frame.f_globals.get("__name__") == (
                "concurrent.futures.thread"
            ):
                item = frame.f_locals.get("self")
                if getattr(item, "future", None) is future:
                    return item
            frame = frame.f_back
    return None


def _unreadable(task: Any, error: BaseException) -> Task:
    waits = Waits("unreadable", f"could not be read: {type(error).__name__}")
    return Task(id(task), 0, _name(task), "waiting", type(task).__qualname__, (), waits)


def _is_task(thing: Any) -> bool:
    return hasattr(type(thing), "get_coro")


def _cell(function: types.FunctionType, name: str) -> Any:
    """Return a variable that a function took from the one around it."""
    for variable, cell in zip(
        function.__code__.co_freevars, function.__closure__ or (), strict=False
    ):
        if variable == name:
            try:
                return cell.cell_contents
            except ValueError:
                return None
    return None


def _has_own_repr(kind: type) -> bool:
    """Say whether a repr is the user's. asyncio's shows callbacks, and with them tasks."""
    for base in kind.__mro__:
        if "__repr__" in base.__dict__:
            return not base.__module__.startswith(
                ("asyncio", "_asyncio", "concurrent.", "builtins")
            )
    return False


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
        if frame is not None:
            frames.append(frame)
    return frames


def _is_chained(thing: object) -> bool:
    return type(thing) in (types.AsyncGeneratorType, types.CoroutineType) or (
        type(thing).__name__ in ("async_generator_asend", "async_generator_athrow")
    )


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


def _pending(futures: Iterable[Any], depth: int = 0) -> list[Any]:
    """Return the tasks among futures, and behind those of gather and shield."""
    tasks: list[Any] = []
    for future in copy_of(futures):
        if future.done():
            continue
        if _is_task(future):
            tasks.append(future)
        elif depth < 10:
            children = getattr(future, "_children", None)
            inner = _shielded(future) if type(children) is not list else None
            behind = children if inner is None else [inner]
            if type(behind) is list:
                tasks += _pending(behind, depth + 1)
    return tasks


def _shielded(future: Any) -> Any:
    """Return what a future of ``asyncio.shield`` shields, else ``None``."""
    for callback in copy_of(getattr(future, "_callbacks", None) or ()):
        call = callback[0] if type(callback) is tuple else callback
        if type(call) is types.FunctionType and (
            call.__qualname__ == "shield.<locals>._outer_done_callback"
        ):
            return _cell(call, "inner")
    return None


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
