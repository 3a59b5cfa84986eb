"""What an asyncio task waits for, read from the frame that waits and from the future behind it."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import Context
import functools
import sys
import types
from typing import Any

from pytest_eventlet_debug.alive import descriptors
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import copy_of
from pytest_eventlet_debug.alive.model import short_repr
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.task_peers import TaskPeers
from pytest_eventlet_debug.phrasing import counted

#: An attribute of tasks, futures and events: the code and line that made them, where that was
#: watched, and the number of the test in which that was.
SITE = "_eventlet_debug_site"

#: An attribute of asyncio's locks and semaphores: of each time that one was acquired and not yet
#: released the code and line, a weak reference to the task, and its name.
ACQUIRED = "_eventlet_debug_acquired"

#: How the kind of a wait ends that others, too, may end than those who are known.
LET_GO = (", held", ", may be set")

#: Of those who hold one semaphore, how many are told.
MAX_HOLDERS = 3

_Known = tuple[Waits, list[Any], list[Any]]


class TaskWaits:
    """Tells what tasks wait for; what they share is found out once. Not to be kept.

    :param library: the directory of asyncio, with a separator at its end.
    :param work_items: what executors have queued or run.
    :param peers: the tasks that there are.
    """

    def __init__(self, library: str, work_items: Iterable[Any], peers: TaskPeers) -> None:
        self._library = library
        self._work_items = work_items
        self._peers = peers
        self._work: dict[int, Any] | None = None
        self._of_asyncio: dict[int, bool] = {}
        self._now: dict[int, float] = {}

    def of(self, waiter: Any, innermost: types.FrameType | None, loop: Any) -> _Known:
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
        if is_task(waiter):
            return Waits("task", f"task {task_name(waiter)}"), [waiter], [waiter]
        known = self._waits_of_callbacks(waiter)
        if known is not None:
            return known
        kind = type(waiter)
        if not _has_own_repr(kind):
            what = "a Future" if kind.__name__ == "Future" else f"a {kind.__qualname__}"
            if waiter.done():
                state = "done, of which the task has not heard yet"
                return Waits(kind.__qualname__, f"{what}, {state}"), [], []
            return self._waits_to_be_set(kind.__qualname__, f"{what}, not done", waiter)
        return Waits(kind.__qualname__, short_repr(waiter)), [], []

    def _waits_of_callbacks(self, waiter: Any) -> _Known | None:
        """Tell shield, executors and sockets by what they have the future call."""
        inner = _shielded(waiter)
        if inner is not None:
            pending = _pending([inner])
            named = f" of task {task_name(inner)}" if is_task(inner) else ""
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
            if call.__qualname__ == "GreenThread.__await__.<locals>.got_future_result":
                return Waits("end", "the end of a greenthread"), [], [_cell(call, "self")]
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
        item = self._work.get(id(future)) or (running_work(future) or (None,))[0]
        state = str(getattr(future, "_state", "")).lower()
        if item is None:
            return Waits("executor", f"a future of an executor, {state}")
        return Waits("executor", f"run_in_executor of {callable_name(work_of(item))}, {state}")

    def _time_left(self, when: float, loop: Any) -> float:
        now = self._now.get(id(loop))
        if now is None:
            now = self._now[id(loop)] = loop.time()
        return max(when - now, 0.0)

    def _waits_of_asyncio(self, frame: types.FrameType, waiter: Any, loop: Any) -> _Known | None:
        name = frame.f_code.co_name
        scope = frame.f_locals
        if name == "sleep" and "h" in scope:
            return Waits("sleep", "sleep", self._time_left(scope["h"].when(), loop)), [], []
        if name == "_wait" and "fs" in scope:
            return self._wait_of_many(scope, loop)
        if name == "wait_for" and "fut" in scope:
            future = scope["fut"]
            named = f" of task {task_name(future)}" if is_task(future) else ""
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
            size = f"{counted(len(owner._queue), 'item')}{most}"
            return Waits(f"Queue.{name}", f"{kind.__name__}.{name}, {size}"), [], []
        for base in ("Lock", "Semaphore", "Event", "Condition", "Barrier"):
            if base in bases:
                words = [f"{kind.__name__}.{name}", _lock_state(owner), crowd]
                text = ", ".join(filter(None, words))
                fields = getattr(owner, "__dict__", {})
                if base == "Event" and fields.get("_value") is False:
                    return self._waits_to_be_set(f"{base}.{name}", text, owner)
                if name == "acquire" and (fields.get("_locked") or fields.get("_value") == 0):
                    return self._waits_for_lock(f"{base}.{name}", text, owner)
                return Waits(f"{base}.{name}", text), [], []
        return self._waits_of_stream(name, owner, waiter)

    def _waits_to_be_set(self, kind: str, text: str, thing: Any) -> _Known:
        """Say where an event or a future was made, and who will set it if that is known."""
        site = getattr(thing, SITE, None)
        text += f", created {_at(*site[:2])}" if site is not None else ""
        setting = self._peers.setting(thing)
        if len(setting) != 1:
            return Waits(kind, text), [], []
        ((task, code, line),) = setting
        text += f", may be set {_at(code, line)} by {named(task)}"
        return Waits(f"{kind}, may be set", text), [], [task]

    def _waits_for_lock(self, kind: str, text: str, lock: Any) -> _Known:
        """Say who holds a lock or a semaphore, if that is known."""
        acquired = lock.__dict__.get(ACQUIRED, ())
        if "_locked" in lock.__dict__ and len(acquired) != 1:
            acquired = ()  # not all that was done with it has been seen
        holding = [task for *_, reference, _ in acquired if (task := reference()) is not None]
        words = [
            f"acquired {_at(code, line)} by {name}"
            + (", which has ended" if (task := reference()) is None or task.done() else "")
            for code, line, reference, name in acquired[:MAX_HOLDERS]
        ]
        if not acquired:
            holding = self._peers.holding(lock)
            words = [f"held by {named(task)}" for task in holding[:MAX_HOLDERS]]
        text = ", ".join((text, *dict.fromkeys(words)))
        living = [task for task in holding if not task.done()]
        many = max(len(acquired), len(holding))
        text += ", ..." if many > MAX_HOLDERS else ""
        return Waits(f"{kind}, held" if many else kind, text), [], living if many == 1 else []

    def _wait_of_many(self, scope: Any, loop: Any) -> _Known:
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

    def _waits_of_stream(self, name: str, owner: Any, waiter: Any) -> _Known | None:
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

    def _is_of_asyncio(self, code: types.CodeType) -> bool:
        known = self._of_asyncio.get(id(code))
        if known is None:
            known = self._of_asyncio[id(code)] = code.co_filename.startswith(self._library)
        return known


def is_task(thing: Any) -> bool:
    """Say whether something that can be awaited is a task."""
    return hasattr(type(thing), "get_coro")


def named(task: Any) -> str:
    """Return the name of a task, with that of its coroutine."""
    coroutine = getattr(task.get_coro(), "__qualname__", None)
    return f"task {task_name(task)}" + (f", {coroutine}()" if type(coroutine) is str else "")


def _at(code: types.CodeType, line: int) -> str:
    return f"at {Frames().at(code, line).where}"


def task_name(task: Any) -> str:
    """Return the name of a task, whatever it has for one."""
    try:
        name = task.get_name()
    except BaseException:
        name = None
    if type(name) is not str:
        return f"<{type(task).__qualname__} at {id(task):#x}>"
    return name if name.isprintable() else ascii(name)


def work_of(item: Any) -> Any:
    """Return the function that an executor has been given; its name changed in Python 3.14."""
    work = getattr(item, "fn", None) or (getattr(item, "task", None) or (None,))[0]
    if type(work) is functools.partial and type(getattr(work.func, "__self__", None)) is Context:
        return work.args[0] if work.args else work  # of to_thread()
    return work


def running_work(future: Any) -> tuple[Any, str] | None:
    """Return what an executor's thread runs for a future, and the thread's name."""
    for ident, top in sys._current_frames().items():
        frame: types.FrameType | None = top
        while frame is not None:
            if frame.f_code.co_name == "run" and frame.f_globals.get("__name__") == (
                "concurrent.futures.thread"
            ):
                item = frame.f_locals.get("self")
                if getattr(item, "future", None) is future:
                    return item, thread_name(ident) or f"{ident:#x}"
            frame = frame.f_back
    return None


def is_for_own_loop(future: Any) -> bool:
    """Say whether the loop of this thread has yet to begin what is to complete a future."""
    get: Any = getattr(sys.modules.get("asyncio.events"), "_get_running_loop", None)
    loop = get() if get is not None else None
    calls = (getattr(handle, "_callback", None) for handle in copy_of(getattr(loop, "_ready", ())))
    return any(
        call.__qualname__ == "run_coroutine_threadsafe.<locals>.callback"
        and _cell(call, "future") is future
        for call in calls
        if type(call) is types.FunctionType
    )


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
        if is_task(future):
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
