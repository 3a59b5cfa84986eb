"""Find every living greenthread and tell what it runs and waits for.

The result is plain data. Nothing here switches, throws or raises.
"""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Iterable
import dataclasses
import os
import sys
import types
from typing import Any
from typing import Literal
from typing import NamedTuple

from pytest_eventlet_debug.alive import descriptors
from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.heap import walk
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import find_cycles
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.wakers import Wakers

State = Literal["current", "running", "suspended", "not started"]

MAX_FRAMES = 200
"""Frames of one stack that are read."""

# What only calls the function that was asked for: spawning, threads and pools.
_WRAPPERS = {
    "greenthread.py": {"main"},
    "green/thread.py": {"__thread_body", "wrap_bootstrap_inner"},
    "greenpool.py": {"_spawn_n_impl"},
}

_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep

# Where greenthreads wait, relative to eventlet's directory. Its servers and pools are not here.
_PRIMITIVES = (
    "hubs/",
    "green/",
    "greenio/",
    "support/",
    "asyncio.py",
    "corolocal.py",
    "event.py",
    "greenthread.py",
    "lock.py",
    "patcher.py",
    "queue.py",
    "semaphore.py",
    "timeout.py",
    "tpool.py",
)


class Greenthread(NamedTuple):
    """A greenthread, or a plain greenlet, at the moment it was looked at."""

    id: int
    name: str
    """The function that it was spawned with."""
    state: State
    thread: str | None
    """Its thread where that is not the one that looks."""
    stack: tuple[Frame, ...]
    """Outermost first, without the frames in which it merely waits."""
    waits: Waits | None
    timeout: float | None = None
    """Seconds until an ``eventlet.Timeout`` will be raised in it."""
    needs: tuple[int, ...] = ()
    """Ids of the greenthreads whose end it waits for."""


class Thread(NamedTuple):
    """A thread of the operating system that runs Python code."""

    ident: int
    name: str
    stack: tuple[Frame, ...]
    calls: str | None = None
    """What a thread of ``eventlet.tpool`` executes; ``None`` for one that is idle, or no such."""
    of_tpool: bool = False


@dataclasses.dataclass(frozen=True)
class AliveGreenthreads:
    """All greenthreads of all threads but the hubs' own, and the other threads."""

    greenthreads: tuple[Greenthread, ...] = ()
    threads: tuple[Thread, ...] = ()
    cycles: tuple[tuple[int, ...], ...] = ()
    """Ids of greenthreads that wait for each other's end in a circle."""
    frozen: bool = False
    """Whether ``gc.freeze()`` hides older ones that wait for no hub."""


def find_greenthreads(heap: Heap | None = None, ignored: Container[int] = ()) -> AliveGreenthreads:
    """Look at all greenlets and threads of this process.

    Costs about 20 us a greenlet. Never imports greenlet or eventlet.

    :param ignored: the idents of threads that are of no interest.
    """
    heap = heap or walk()
    look = Look(heap)
    found: list[Greenthread] = []
    for greenlet in look.greenlets():
        try:
            described = look.describe(greenlet)
        except Exception as error:
            text = f"could not be read: {type(error).__name__}"
            waits = Waits("unreadable", text)
            described = Greenthread(id(greenlet), "?", "suspended", None, (), waits)
        if described is not None:
            found.append(described)
    return AliveGreenthreads(
        tuple(found),
        tuple(each for each in look.threads() if each.ident not in ignored),
        find_cycles({each.id: each.needs for each in found}),
        heap.frozen,
    )


class Look:
    """One look at many greenlets; what they share is found out once. Not to be kept."""

    def __init__(self, heap: Heap) -> None:
        self._heap = heap
        module = sys.modules.get("greenlet")
        self._type: Any = getattr(module, "greenlet", None)
        self._frames = Frames()
        self._package = _eventlet_directory()
        self._rooms: dict[int, str | None] = {}
        if self._type is None:
            return
        self.wakers = Wakers(heap.hubs, self._type)
        self._current = module.getcurrent() if module is not None else None
        self._hub_greenlets = {id(getattr(hub, "greenlet", None)) for hub in heap.hubs}
        self._exits = {
            id(event): each
            for each in heap.greenlets
            if (event := getattr(each, "__dict__", {}).get("_exit_event")) is not None
        }
        self._own_root = _root(self._current)
        self._thread_of_root = self._threads_of_roots()

    def greenlets(self) -> Iterable[Any]:
        """Return the greenlets of the heap, and those that hubs will wake."""
        if self._type is None:
            return ()
        found = {id(each): each for each in self._heap.greenlets}
        found.update((id(each), each) for each in self.wakers.greenlets())
        return found.values()

    def is_infrastructure(self, greenlet: Any) -> bool:
        """Say whether it is a hub's own greenlet, which no test spawned."""
        return id(greenlet) in self._hub_greenlets

    def describe(self, greenlet: Any) -> Greenthread | None:
        """Return what a greenlet does; ``None`` if it has ended or is not of interest."""
        is_current = greenlet is self._current
        if greenlet.dead or self.is_infrastructure(greenlet):
            return None
        is_main = greenlet.parent is None
        root = _root(greenlet)
        thread = None if root is self._own_root else self._thread_of_root.get(id(root), "another")
        innermost = greenlet.gr_frame
        if innermost is None and not is_current:
            if is_main:
                return None
            if greenlet:
                return Greenthread(id(greenlet), self.name(greenlet), "running", thread, (), None)
            waits, timeout = self._starts_when(greenlet)
            name = self.name(greenlet)
            return Greenthread(id(greenlet), name, "not started", thread, (), waits, timeout)
        if is_current and is_main:
            # What runs under the debugger, or has just failed; its stack is pytest's.
            return None
        frames = list(_outwards(innermost or sys._getframe()))
        name = "main greenlet" if is_main else self._name(frames)
        stack = tuple(map(self._frames.describe, reversed(self._user_frames(frames))))
        if is_current:
            return Greenthread(id(greenlet), name, "current", thread, stack, None)
        waits, needs = self._waits(greenlet, frames)
        throws = [t for t in self.wakers.timers_of(greenlet) if t.action == "throw"]
        timeout = max(throws[0].seconds, 0.0) if throws else None
        return Greenthread(
            id(greenlet), name, "suspended", thread, stack, waits, timeout, tuple(map(id, needs))
        )

    def name(self, greenlet: Any) -> str:
        """Return the name of the function that a greenlet runs or will run."""
        if greenlet.parent is None:
            return "main greenlet"
        if self.is_infrastructure(greenlet):
            return "hub"
        innermost = greenlet.gr_frame
        if innermost is None and greenlet is self._current:
            innermost = sys._getframe()
        if innermost is not None:
            return self._name(list(_outwards(innermost)))
        if not greenlet and not greenlet.dead:
            function = self.wakers.starts(greenlet)
            if function is None or not hasattr(type(greenlet), "link"):
                function = getattr(greenlet, "run", None)
            return callable_name(function)
        return f"{type(greenlet).__qualname__} at {id(greenlet):#x}"

    def _name(self, frames: list[types.FrameType]) -> str:
        spawned = None
        for frame in reversed(frames):
            place = self._place(frame)
            if place == "greenthread.py" and frame.f_code.co_name == "main":
                spawned = frame.f_locals.get("function")
                code = getattr(spawned, "__code__", None)
                if spawned is not None and (
                    type(code) is not types.CodeType or not self._is_wrapper(code)
                ):
                    return callable_name(spawned)
            elif not self._is_wrapper(frame.f_code):
                return self._frames.describe(frame).function
        return self._frames.describe(frames[-1]).function if frames else "?"

    def _is_wrapper(self, code: types.CodeType) -> bool:
        """Say whether a function only calls what was asked for: a pool's, a thread's."""
        place = self._place_of(code)
        if place is not None:
            return code.co_name in _WRAPPERS.get(place, ())
        # Under monkey patching a thread is a greenthread, too.
        return os.path.basename(code.co_filename) == "threading.py" and code.co_name in (
            "_bootstrap",
            "_bootstrap_inner",
            "run",
        )

    def _starts_when(self, greenlet: Any) -> tuple[Waits | None, float | None]:
        for timer in self.wakers.timers_of(greenlet):
            if timer.action == "switch":
                return Waits("start", "its start", max(timer.seconds, 0.0)), None
        return Waits("start", "its start, which no timer of a hub brings"), None

    def _user_frames(self, frames: list[types.FrameType]) -> list[types.FrameType]:
        """Return a stack, innermost first, without eventlet's waiting and pytest's calling."""
        outer = len(frames)
        for place, frame in enumerate(frames):
            name = frame.f_code.co_name
            if name == "pytest_pyfunc_call" or (
                name == "_callTestMethod" and frame.f_globals.get("__unittest")
            ):
                outer = place
                break
        while outer > 1 and self._is_wrapper(frames[outer - 1].f_code):
            outer -= 1
        inner = 0
        while inner < outer and self._is_waiting(frames[inner].f_code):
            inner += 1
        if inner == outer:
            inner = max(outer - 1, 0)
        return [
            frame for frame in frames[inner:outer] if not frame.f_code.co_filename.startswith(_OURS)
        ]

    def _is_waiting(self, code: types.CodeType) -> bool:
        place = self._place_of(code)
        if place is not None:
            return place.startswith(_PRIMITIVES)
        return _is_tool(code.co_filename)

    def _place(self, frame: types.FrameType) -> str | None:
        return self._place_of(frame.f_code)

    def _place_of(self, code: types.CodeType) -> str | None:
        """Return a file's path relative to eventlet's directory, if it is there."""
        try:
            return self._rooms[id(code)]
        except KeyError:
            name = code.co_filename
            place = None
            if self._package and name.startswith(self._package):
                place = name[len(self._package) :].replace(os.sep, "/")
            self._rooms[id(code)] = place
            return place

    def _waits(
        self, greenlet: Any, frames: list[types.FrameType]
    ) -> tuple[Waits | None, list[Any]]:
        for number, frame in enumerate(frames[:20]):
            place = self._place(frame)
            if place is None:
                if number > 3 or not _is_library(frame.f_code.co_filename):
                    break
                continue
            known = self._waits_in(place, frame, frames[number + 1 : number + 4])
            if known is not None:
                return known
        return self._waits_by_hub(greenlet), []

    def _waits_in(
        self, place: str, frame: types.FrameType, outer: list[types.FrameType]
    ) -> tuple[Waits, list[Any]] | None:
        """Return what a function of eventlet waits for, if it is one that waits."""
        name = frame.f_code.co_name
        if (place, name) == ("hubs/__init__.py", "trampoline"):
            scope = frame.f_locals
            verb = "read" if scope.get("read") else "write"
            fd = scope.get("fileno", -1)
            text = f"{verb} on fd {fd}, {descriptors.describe(fd)}"
            return Waits(verb, text, self.wakers.left(scope.get("t"))), []
        if (place, name) == ("greenthread.py", "sleep"):
            return Waits("sleep", "sleep", self.wakers.left(frame.f_locals.get("timer"))), []
        if (place, name) == ("event.py", "wait"):
            return self._waits_for_event(frame, outer)
        if place == "semaphore.py" and name == "acquire":
            owner = frame.f_locals.get("self")
            kind = type(owner).__qualname__
            value = getattr(owner, "counter", "?")
            text = f"{kind}, value {value}, {len(getattr(owner, '_waiters', ()))} waiting"
            return Waits(kind, text), []
        if place == "queue.py" and name in ("get", "put", "join"):
            owner = frame.f_locals.get("self")
            queue = getattr(owner, "queue", ())
            most = getattr(owner, "maxsize", None)
            size = f"{len(queue)} items" + (f" of {most}" if most else "")
            label = f"{type(owner).__qualname__}.{name}"
            return Waits(label, f"{label}, {size}"), []
        return None

    def _waits_for_event(
        self, frame: types.FrameType, outer: list[types.FrameType]
    ) -> tuple[Waits, list[Any]] | None:
        event = frame.f_locals.get("self")
        left = self.wakers.left(frame.f_locals.get("timer"))
        awaited = self._exits.get(id(event))
        if awaited is not None:
            text = f"the end of greenthread {self.name(awaited)}"
            return Waits("end", text, left), [awaited]
        for each in outer:
            place, name = self._place(each), each.f_code.co_name
            if (place, name) == ("tpool.py", "execute"):
                text = f"tpool, which executes {callable_name(each.f_locals.get('meth'))}"
                return Waits("tpool", text), []
            if place == "queue.py":
                return None
        kind = type(event).__qualname__
        waiting = len(getattr(event, "_waiters", ()))
        return Waits(kind, f"{kind}, {waiting} waiting", left), []

    def _waits_by_hub(self, greenlet: Any) -> Waits | None:
        """Return what will wake a greenlet that waits in no way known here."""
        listeners = self.wakers.listeners_of(greenlet)
        switches = [t for t in self.wakers.timers_of(greenlet) if t.action == "switch"]
        left = max(switches[0].seconds, 0.0) if switches else None
        if listeners:
            words = [f"{each.event} on fd {each.fd}" for each in listeners[:3]]
            words[0] += f", {descriptors.describe(listeners[0].fd)}"
            more = f" and {len(listeners) - 3} more" if len(listeners) > 3 else ""
            return Waits("descriptors", "; ".join(words) + more, left)
        if switches:
            return Waits("timer", "a timer", left)
        return None

    def threads(self) -> Iterable[Thread]:
        """Yield the threads but the one that looks, and those that hubs' greenlets share."""
        own = sys._getframe()  # get_ident() is a greenlet's under monkey patching
        for ident, top in sys._current_frames().items():
            if top is own:
                continue
            name = thread_name(ident) or f"thread {ident:#x}"
            frames = list(_outwards(top))
            if any(f"{os.sep}execnet{os.sep}" in each.f_code.co_filename for each in frames):
                continue  # pytest-xdist's own
            works = [f for f in frames if self._place(f) == "tpool.py"]
            calls = None
            if works and works[-1].f_code.co_name == "tworker":
                method = works[-1].f_locals.get("meth")
                calls = callable_name(method) if method is not None else None
            outer = len(frames)
            while outer > 1 and self._is_wrapper(frames[outer - 1].f_code):
                outer -= 1
            stack = tuple(map(self._frames.describe, reversed(frames[:outer])))
            yield Thread(ident, name, stack, calls, bool(works))

    def _threads_of_roots(self) -> dict[int, str]:
        """Return the names of threads by id of their main greenlet, as far as known."""
        found: dict[int, str] = {}
        for ident, top in sys._current_frames().items():
            for frame in _outwards(top):
                place, name = self._place(frame), frame.f_code.co_name
                owner = None
                if place is not None and place.startswith("hubs/") and name == "run":
                    owner = getattr(frame.f_locals.get("self"), "greenlet", None)
                elif place == "greenthread.py" and name == "main":
                    owner = frame.f_locals.get("self")
                root = _root(owner)
                if root is not None:
                    found[id(root)] = thread_name(ident) or f"{ident:#x}"
                    break
        return found


def _root(greenlet: Any) -> Any:
    """Return the main greenlet of a greenlet's thread."""
    for _ in range(1000):
        parent = getattr(greenlet, "parent", None)
        if parent is None:
            break
        greenlet = parent
    return greenlet


def _outwards(innermost: types.FrameType) -> Iterable[types.FrameType]:
    frame: types.FrameType | None = innermost
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _eventlet_directory() -> str:
    path = getattr(sys.modules.get("eventlet"), "__file__", None) or ""
    return os.path.dirname(path) + os.sep if path else ""


def _is_library(filename: str) -> bool:
    return filename.startswith(os.path.dirname(os.__file__) + os.sep)


def _is_tool(filename: str) -> bool:
    """Say whether a file is a debugger's or pytest's."""
    folder, name = os.path.split(filename)
    return (
        filename.startswith(_OURS)
        or name in ("pdb.py", "bdb.py", "cmd.py")
        or os.path.basename(folder) in ("_pytest", "pluggy")
    )
