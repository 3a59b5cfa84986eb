"""Find every living greenthread and tell what it runs and waits for.

The result is plain data. Nothing here switches, throws or raises.
"""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Iterable
import functools
import os
import sys
import types
from typing import Any
from typing import Literal
from typing import NamedTuple

from pytest_eventlet_debug.alive import descriptors
from pytest_eventlet_debug.alive import holders
from pytest_eventlet_debug.alive.endings import ENDED
from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import find_cycles
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.spawns import SITE
from pytest_eventlet_debug.alive.wakers import Wakers
from pytest_eventlet_debug.alive.watched_descriptors import Watched
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet

State = Literal["current", "running", "suspended", "not started"]

MAX_FRAMES = 200
"""Frames of one stack that are read."""
MAX_SECONDS = 0.5
"""What the search for those who hold locks may take."""
LATE_SECONDS = 0.1
"""From when on a timer that is due is told to be overdue."""

THE_TEST = "the test"
"""The name of the greenlet that the test itself runs in."""

# What only calls the function that was asked for: spawning, threads and pools.
_WRAPPERS = {
    "greenthread.py": {"main"},
    "green/thread.py": {"__thread_body", "wrap_bootstrap_inner"},
    "greenpool.py": {"_spawn_n_impl"},
}


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
    """Ids of the greenthreads whose end, or whose lock, it waits for."""
    of_test: bool = False
    """Whether the test itself runs in it."""
    spawned: Frame | None = None
    """The line that spawned it, where that was watched."""
    killed: Frame | None = None
    """The line that killed it, which it has not come to or did not heed."""


class Thread(NamedTuple):
    """A thread of the operating system that runs Python code."""

    ident: int
    name: str
    stack: tuple[Frame, ...]
    calls: str | None = None
    """What a thread of ``eventlet.tpool`` executes; ``None`` for one that is idle, or no such."""
    of_tpool: bool = False


class AliveGreenthreads(NamedTuple):
    """All greenthreads of all threads but the hubs' own, and the other threads."""

    greenthreads: tuple[Greenthread, ...] = ()
    threads: tuple[Thread, ...] = ()
    cycles: tuple[tuple[int, ...], ...] = ()
    """Ids of greenthreads that wait for each other's end or lock in a circle."""
    frozen: bool = False
    """Whether ``gc.freeze()`` hides older ones that wait for no hub."""


def find_greenthreads(
    heap: Heap, ignored: Container[int], interrupted: types.FrameType | None
) -> AliveGreenthreads:
    """Look at all greenlets and threads of this process.

    Costs about 20 us a greenlet. Never imports greenlet or eventlet.

    :param ignored: the idents of threads that are of no interest.
    :param interrupted: what a signal handler has interrupted. Then the test's own greenlet is
        shown even where it is the one that runs.
    """
    look = Look(heap, interrupted)
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
    if interrupted is not None and "greenlet" not in sys.modules:
        found.append(look.describe_thread(interrupted))
    return AliveGreenthreads(
        tuple(found),
        tuple(each for each in look.threads() if each.ident not in ignored),
        find_cycles({each.id: each.needs for each in found}),
        heap.frozen,
    )


class Look:
    """One look at many greenlets; what they share is found out once. Not to be kept."""

    def __init__(self, heap: Heap, interrupted: types.FrameType | None = None) -> None:
        self._heap = heap
        self._interrupted = interrupted
        self._holders: dict[int, list[Any]] | None = None
        self.watched = Watched()
        module = sys.modules.get("greenlet")
        self._type: Any = getattr(module, "greenlet", None)
        self._frames = Frames()
        self._package = of_eventlet()
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

    def greenlets(self) -> Iterable[Any]:
        """Return the greenlets of the heap, and those that hubs will wake."""
        if self._type is None:
            return ()
        found = {id(each): each for each in self._heap.greenlets}
        found.update((id(each), each) for each in self.wakers.greenlets())
        # A thread's main greenlet is made as somebody asks for it, after the walk perhaps.
        found[id(self._current)] = self._current
        return found.values()

    def is_infrastructure(self, greenlet: Any) -> bool:
        """Say whether it is a hub's own greenlet, which no test spawned."""
        return id(greenlet) in self._hub_greenlets

    def describe(self, greenlet: Any) -> Greenthread | None:
        """Return what a greenlet does; ``None`` if it has ended or is not of interest."""
        described = self._describe(greenlet)
        if described is None:
            return None
        known = getattr(greenlet, "__dict__", {})
        spawned, killed = (
            self._frames.at(*known[name]) if name in known else None for name in (SITE, ENDED)
        )
        return described._replace(spawned=spawned, killed=killed)

    def _describe(self, greenlet: Any) -> Greenthread | None:
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
        if is_current and is_main and self._interrupted is None:
            # What runs under the debugger, or has just failed; its stack is pytest's.
            return None
        frames = self._stack_of(greenlet)
        of_test = any(map(_is_test_call, frames))
        name = self._name_of(greenlet, frames)
        stack = tuple(map(self._frames.describe, reversed(self._user_frames(frames))))
        if is_current:
            held_up = None
            if self._interrupted is not None:
                held_up = self._waits_in_thread(frames) or self._waits(greenlet, frames)[0]
            return Greenthread(
                id(greenlet), name, "current", thread, stack, held_up, of_test=of_test
            )
        waits, needs = self._waits(greenlet, frames)
        throws = [t for t in self.wakers.timers_of(greenlet) if t.action == "throw"]
        timeout = max(throws[0].seconds, 0.0) if throws else None
        needed = tuple(map(id, needs))
        return Greenthread(
            id(greenlet), name, "suspended", thread, stack, waits, timeout, needed, of_test
        )

    def describe_thread(self, innermost: types.FrameType) -> Greenthread:
        """Return what this thread does, where greenlet has not been imported."""
        frames = list(_outwards(innermost))
        of_test = any(map(_is_test_call, frames))
        stack = tuple(map(self._frames.describe, reversed(self._user_frames(frames))))
        name = THE_TEST if of_test else "main thread"
        waits = self._waits_in_thread(frames)
        return Greenthread(0, name, "current", None, stack, waits, of_test=of_test)

    def _stack_of(self, greenlet: Any) -> list[types.FrameType]:
        """Return the frames of a greenlet that has begun, innermost first."""
        innermost = greenlet.gr_frame
        if innermost is None and greenlet is self._current:
            innermost = self._interrupted or sys._getframe()
        return list(_outwards(innermost)) if innermost is not None else []

    def _name_of(self, greenlet: Any, frames: list[types.FrameType]) -> str:
        if any(map(_is_test_call, frames)):
            return THE_TEST
        return "main greenlet" if greenlet.parent is None else self._name(frames)

    def name(self, greenlet: Any) -> str:
        """Return the name of the function that a greenlet runs or will run."""
        if self.is_infrastructure(greenlet):
            return "hub"
        frames = self._stack_of(greenlet)
        if frames or greenlet.parent is None:
            return self._name_of(greenlet, frames)
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
            if _is_test_call(frame):
                outer = place
                break
        while outer > 1 and self._only_calls(frames[outer - 1].f_code):
            outer -= 1
        inner = 0
        while inner < outer and self._is_waiting(frames[inner].f_code):
            inner += 1
        if inner == outer:
            inner = max(outer - 1, 0)
        return [
            frame for frame in frames[inner:outer] if not frame.f_code.co_filename.startswith(OURS)
        ]

    def _only_calls(self, code: types.CodeType) -> bool:
        name = code.co_filename
        return self._is_wrapper(code) or _is_tool(name) or name.startswith("<frozen importlib")

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
                if number > 3 or not frame.f_code.co_filename.startswith(STANDARD_LIBRARY):
                    break
                continue
            known = self._waits_in(greenlet, place, frame, frames[number + 1 : number + 4])
            if known is not None:
                return known
        return self._waits_by_hub(greenlet), []

    def _waits_in(
        self, greenlet: Any, place: str, frame: types.FrameType, outer: list[types.FrameType]
    ) -> tuple[Waits, list[Any]] | None:
        """Return what a function of eventlet waits for, if it is one that waits."""
        name = frame.f_code.co_name
        if (place, name) == ("hubs/__init__.py", "trampoline"):
            return self._waits_for_descriptor(greenlet, frame), []
        if (place, name) == ("greenthread.py", "sleep"):
            return self._timed(Waits("sleep", "sleep"), frame, "timer"), []
        if (place, name) == ("event.py", "wait"):
            return self._waits_for_event(frame, outer)
        if place == "semaphore.py" and name == "acquire":
            return self._waits_for_semaphore(frame, outer)
        if place == "queue.py" and name in ("get", "put", "join"):
            owner = frame.f_locals.get("self")
            queue = getattr(owner, "queue", ())
            most = getattr(owner, "maxsize", None)
            size = f"{len(queue)} items" + (f" of {most}" if most else "")
            label = f"{type(owner).__qualname__}.{name}"
            return Waits(label, f"{label}, {size}"), []
        return None

    def _waits_for_descriptor(self, greenlet: Any, frame: types.FrameType) -> Waits:
        scope = frame.f_locals
        verb = "read" if scope.get("read") else "write"
        fd, hub = scope.get("fileno", -1), scope.get("hub")
        text = f"{verb} on fd {fd}, {descriptors.describe(fd)}"
        wakers = self.wakers.listeners_of(greenlet)
        complaint = ""
        if any((each.event, each.fd) == (verb, fd) for each in wakers):
            complaint = self.watched.complaint(hub, verb, fd)
        elif any(each is scope.get("listener") for each in getattr(hub, "closed", ())):
            complaint = "which is closed, as the hub will tell it"
        elif id(hub) in self.wakers.listeners:
            complaint = "which the hub no longer watches"
        waits = Waits(complaint or verb, f"{text}, {complaint}" if complaint else text)
        return self._timed(waits, frame, "t")

    def _timed(self, waits: Waits, frame: types.FrameType, variable: str) -> Waits:
        """Add to a wait how long it still takes, or that its timer is late, or lost."""
        raw_timer, hub = frame.f_locals.get(variable), frame.f_locals.get("hub")
        if raw_timer is None:
            return waits
        left = self.wakers.left(raw_timer)
        late = self.wakers.overdue(raw_timer)
        if left is None:
            if id(hub) not in self.wakers.timers:
                return waits  # a hub that could not be read
            words = "whose timer is in no hub's heap"
            return Waits(f"{waits.kind}, no timer", f"{waits.text}, {words}")
        if late > LATE_SECONDS:
            return Waits(f"{waits.kind}, late", f"{waits.text}, overdue by {late:.1f} s")
        return waits._replace(seconds=left)

    def _waits_for_semaphore(
        self, frame: types.FrameType, outer: list[types.FrameType]
    ) -> tuple[Waits, list[Any]]:
        owner = frame.f_locals.get("self")
        kind = type(owner).__qualname__
        value = getattr(owner, "counter", "?")
        text = f"{kind}, value {value}, {len(getattr(owner, '_waiters', ()))} waiting"
        holding = self._owner_of_rlock(owner, outer) or self._holders_of(owner)
        if value != 0:
            holding = []  # it has been released, and who waits is about to be woken
        if holding:
            names = ", ".join(self.name(each) for each in holding[:3])
            text += f", held by {names}" + (", ..." if len(holding) > 3 else "")
        # Of several who hold it any may release it: no circle is sure.
        words = f"{kind}, held" if holding else kind
        return Waits(words, text), holding if len(holding) == 1 else []

    def _owner_of_rlock(self, block: Any, outer: list[types.FrameType]) -> list[Any]:
        """Return whose a reentrant lock is of which a semaphore is the inside."""
        for frame in outer[:2]:
            lock = frame.f_locals.get("self")
            fields = getattr(lock, "__dict__", {})
            if frame.f_code.co_name == "acquire" and fields.get("_block") is block:
                # get_ident() is a greenlet's id under monkey patching.
                ident = fields.get("_owner")
                return [each for each in self.greenlets() if id(each) == ident]
        return []

    def _holders_of(self, lock: Any) -> list[Any]:
        """Return the greenlets whose frames prove that they hold a lock."""
        if self._holders is None:
            self._holders = {}
            end = unpatched.monotonic() + MAX_SECONDS
            for greenlet in self.greenlets():
                if unpatched.monotonic() > end:
                    # Half of them would be told to be all.
                    self._holders = {}
                    break
                for each in holders.held_by(self._stack_of(greenlet)):
                    self._holders.setdefault(id(each), []).append(greenlet)
        return self._holders.get(id(lock), [])

    def _waits_in_thread(self, frames: list[types.FrameType]) -> Waits | None:
        """Return which lock of a thread the whole of this thread waits for."""
        users = [each for each in frames if not each.f_code.co_filename.startswith(OURS)]
        if not users:
            return None
        innermost = users[0]
        scope = innermost.f_locals
        if innermost.f_code.co_name in ("_wait_for_tstate_lock", "join"):
            name = thread_name(getattr(scope.get("self"), "_ident", None))
            if name is not None:
                return Waits("thread", f"the end of thread {name}, with the whole of its thread")
        lock = holders.awaited_by(innermost)
        if not _is_of_threads(lock) or "unlocked" in repr(lock):
            return None
        owners = [
            thread_name(ident) or f"{ident:#x}"
            for ident, top in sys._current_frames().items()
            if top is not sys._getframe() and _holds(lock, ident, _outwards(top))
        ]
        held = f", held by thread {', '.join(owners)}" if owners else ""
        return Waits("thread lock", f"a lock of threads{held}; all its thread waits")

    def _waits_for_event(
        self, frame: types.FrameType, outer: list[types.FrameType]
    ) -> tuple[Waits, list[Any]] | None:
        event = frame.f_locals.get("self")
        awaited = self._exits.get(id(event))
        if awaited is not None:
            text = f"the end of greenthread {self.name(awaited)}"
            return self._timed(Waits("end", text), frame, "timer"), [awaited]
        for each in outer:
            place, name = self._place(each), each.f_code.co_name
            if (place, name) == ("tpool.py", "execute"):
                text = f"tpool, which executes {callable_name(each.f_locals.get('meth'))}"
                return Waits("tpool", text), []
            if place == "queue.py":
                return None
        kind = type(event).__qualname__
        waiting = len(getattr(event, "_waiters", ()))
        return self._timed(Waits(kind, f"{kind}, {waiting} waiting"), frame, "timer"), []

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

    @functools.cached_property
    def _thread_of_root(self) -> dict[int, str]:
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


def _is_of_threads(lock: object) -> bool:
    kind = type(lock)
    # By name: monkey patching replaces what the modules call so.
    return kind.__module__ == "_thread" and kind.__name__ in ("lock", "RLock")


def _holds(lock: Any, ident: int, frames: Iterable[types.FrameType]) -> bool:
    """Say whether a thread surely holds a lock; a reentrant one's repr names its owner."""
    if f" owner={ident} " in repr(lock):
        return True
    return any(each is lock for each in holders.held_by(frames))


def _root(greenlet: Any) -> Any:
    """Return the main greenlet of a greenlet's thread."""
    for _ in range(1000):
        parent = getattr(greenlet, "parent", None)
        if parent is None:
            break
        greenlet = parent
    return greenlet


def _is_test_call(frame: types.FrameType) -> bool:
    """Say whether a frame is the one that calls a test's function or a fixture's."""
    name = frame.f_code.co_name
    return name in ("pytest_pyfunc_call", "call_fixture_func", "_teardown_yield_fixture") or (
        name == "_callTestMethod" and bool(frame.f_globals.get("__unittest"))
    )


def _outwards(innermost: types.FrameType) -> Iterable[types.FrameType]:
    frame: types.FrameType | None = innermost
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def _is_tool(filename: str) -> bool:
    """Say whether a file is a debugger's or pytest's."""
    folder, name = os.path.split(filename)
    return (
        filename.startswith(OURS)
        or name in ("pdb.py", "bdb.py", "cmd.py")
        or os.path.basename(folder) in ("_pytest", "pluggy")
    )
