"""Everything that a test might leave behind, at one moment: what leaks are found among."""

from __future__ import annotations

import _socket
from collections import deque
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Iterator
import contextlib
import gc
import io
import posix
import sys
import types
from typing import Any

import msgspec

from pytest_eventlet_debug.alive import processes
from pytest_eventlet_debug.alive.greenthreads import Look
from pytest_eventlet_debug.alive.heap import Follower
from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.model import thread_of
from pytest_eventlet_debug.alive.tasks import Task
from pytest_eventlet_debug.alive.tasks import find_tasks
from pytest_eventlet_debug.alive.wakers import Listener
from pytest_eventlet_debug.alive.wakers import Timer
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.collector import collector_paused

_HUB_TASK = "Hub.run.<locals>.async_run()"

#: Objects that are looked at for what a hub still holds.
MAX_REACHED = 20_000


class Census(msgspec.Struct):
    """Everything that a test might leave behind, at one moment. Not to be kept.

    :ivar excused: descriptors of eventlet's and multiprocessing's own, which are known from then
        on, whatever becomes of them.
    """

    look: Look
    greenlets: list[Any]
    tasks: dict[int, tuple[Any, Task]]
    listeners: list[Listener]
    timers: list[Timer]
    threads: dict[int, Any]
    children: set[int]
    files: dict[int, str]
    excused: set[int]
    loops: list[Any]
    heap: Heap

    def objects(self) -> Iterator[Any]:
        """Yield all that weak references may lead to."""
        yield from self.greenlets
        yield from (task for task, _ in self.tasks.values())
        yield from (listener.raw for listener in self.listeners)
        yield from (timer.raw for timer in self.timers)
        yield from (thread for thread in self.threads.values() if thread is not None)
        yield from self.loops


def take_census(
    follower: Follower,
    list_descriptors: Callable[[], dict[int, str]],
    own_descriptors: Collection[int],
) -> Census:
    """Look at all that there is.

    :param follower: walks the heap, and knows what it has seen before.
    :param list_descriptors: returns the open descriptors with what the kernel calls them.
    :param own_descriptors: those of this plugin.
    """
    heap = follower.walk()
    with collector_paused():
        look = Look(heap)
        has_hubs = bool(heap.hubs)
        files = list_descriptors()
        # The standard ones are pytest's, which moves them as it captures.
        for number in {0, 1, 2, *own_descriptors}:
            files.pop(number, None)
        return Census(
            look,
            _greenlets(heap, look) if heap.greenlets else [],
            _tasks(heap) if any(not task.done() for task in heap.tasks) else {},
            _of_all(look.greenlets.wakers.listeners) if has_hubs else [],
            _of_all(look.greenlets.wakers.timers) if has_hubs else [],
            _threads(heap),
            children(),
            files,
            set(_descriptors_of_eventlet(heap)) | {fd for _, fd in _of_multiprocessing() if fd},
            _loops(heap),
            heap,
        )


def _of_all(by_hub: dict[int, list[Any]]) -> list[Any]:
    return [each for some in by_hub.values() for each in some]


def _greenlets(heap: Heap, look: Look) -> list[Any]:
    pool = getattr(sys.modules.get("eventlet.tpool"), "_coro", None)
    return [
        each
        for each in heap.greenlets
        if not each.dead
        and each.parent is not None
        and each is not pool
        and not look.greenlets.is_infrastructure(each)
    ]


def _tasks(heap: Heap) -> dict[int, tuple[Any, Task]]:
    things = {id(task): task for task in heap.tasks}
    described = {task.id: task for task in find_tasks(heap).tasks if task.id in things}
    hubs = [task for task in described.values() if task.coroutine == _HUB_TASK]
    own = {task.id for task in hubs}.union(*(task.awaits for task in hubs))
    return {
        number: (things[number], task) for number, task in described.items() if number not in own
    }


def _loops(heap: Heap) -> list[Any]:
    of_hubs = {id(getattr(hub, "loop", None)) for hub in heap.hubs}
    found = []
    for loop in heap.loops:
        with contextlib.suppress(Exception):
            if id(loop) not in of_hubs and not loop.is_closed():
                found.append(loop)
    return found


def descriptors_of_loop(loop: Any) -> Iterator[int]:
    """Yield what a loop of asyncio's has open as long as it is not closed."""
    for name in ("_selector", "_ssock", "_csock"):
        with contextlib.suppress(Exception):
            yield getattr(loop, name).fileno()


def _descriptors_of_eventlet(heap: Heap) -> Iterator[int]:
    """Yield what hubs and the thread pool have open as long as they live."""
    own = own_hub()
    for hub in heap.hubs:
        # With its thread a hub's greenlet ends, but nobody closes what the hub has open. In the
        # thread that runs the tests an error may end it, and the hub makes itself a new one.
        if hub is not own and getattr(getattr(hub, "greenlet", None), "dead", False):
            continue
        with contextlib.suppress(Exception):
            yield hub.poll.fileno()
        yield from descriptors_of_loop(getattr(hub, "loop", None))
    pool = sys.modules.get("eventlet.tpool")
    for name in ("_rsock", "_wsock"):
        with contextlib.suppress(Exception):
            yield getattr(pool, name).fileno()


def _of_multiprocessing() -> Iterator[tuple[int | None, int | None]]:
    """Yield process and descriptor of what multiprocessing starts once and keeps.

    That is its resource tracker, and from Python 3.14 on, unless a program says otherwise, the
    server that forks its processes.
    """
    for module, name, pid, descriptor in (
        ("resource_tracker", "_resource_tracker", "_pid", "_fd"),
        ("forkserver", "_forkserver", "_forkserver_pid", "_forkserver_alive_fd"),
    ):
        kept = getattr(sys.modules.get(f"multiprocessing.{module}"), name, None)
        yield getattr(kept, pid, None), getattr(kept, descriptor, None)


def held_by_hubs(heap: Heap) -> set[int]:
    """Return the descriptors that hubs hold in the midst of a turn, and drop as they go on.

    A hub waits inside of the call that switched to the test: of a listener, or of a timer
    with the exception that it threw, whose traceback leads to the sockets.
    """
    ahead: deque[Any] = deque()
    stops = {
        id(module.__dict__) for module in tuple(sys.modules.values()) if hasattr(module, "__dict__")
    }
    for hub in heap.hubs:
        stops.update((id(hub), id(vars(hub))))
        frame = getattr(getattr(hub, "greenlet", None), "gr_frame", None)
        while frame is not None:
            ahead.extend(frame.f_locals.values())
            frame = frame.f_back
    pipes = {getattr(sys.modules.get("eventlet.greenio.py3"), "GreenFileIO", None)}
    ends: tuple[type, ...] = (type, types.ModuleType, types.FunctionType, types.CodeType)
    greenlet = getattr(sys.modules.get("greenlet"), "greenlet", None)
    if greenlet is not None:
        ends = (*ends, greenlet)
    held: set[int] = set()
    while ahead and len(stops) < MAX_REACHED:
        thing = ahead.popleft()
        if id(thing) in stops:
            continue
        stops.add(id(thing))
        green = getattr(thing, "__dict__", {}).get("_fileno") if type(thing) in pipes else None
        if type(green) is int:
            held.add(green)
        elif issubclass(type(thing), (_socket.socket, io.FileIO)):
            with contextlib.suppress(ValueError, OSError):
                held.add(thing.fileno())
        elif not issubclass(type(thing), ends):
            ahead.extend(gc.get_referents(thing))
    return held


def _threads(heap: Heap) -> dict[int, Any]:
    """Return the threads that run Python code by ident, each with its object if it has one."""
    ours: set[Any] = set()
    pool = getattr(sys.modules.get("eventlet.tpool"), "_threads", ())
    ours.update(getattr(each, "_ident", None) for each in pool)
    for hub in heap.hubs:
        executor = getattr(getattr(hub, "loop", None), "_default_executor", None)
        ours.update(getattr(each, "_ident", None) for each in getattr(executor, "_threads", ()))
    found: dict[int, Any] = {}
    own = sys._getframe()
    for ident, top in sys._current_frames().items():
        if top is own:
            continue  # whoever looks is no leak, under whichever name eventlet has it
        name = thread_name(ident) or ""
        if ident not in ours and not name.startswith("pytest_timeout"):
            found[ident] = thread_of(ident)
    return found


def children() -> set[int]:
    """Return the child processes, but for those that multiprocessing keeps."""
    if unpatched.on_linux():
        try:
            posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
        except ChildProcessError:
            return set()
    pid = unpatched.getpid()
    try:
        found = set(processes.children(pid))
    except OSError:
        import psutil  # slow to import, and seldom needed

        found = {each.pid for each in psutil.Process(pid).children()}
    return found - {pid for pid, _ in _of_multiprocessing()}
