"""Find every living greenthread and tell what it runs and waits for.

The result is plain data. Nothing here switches, throws or raises.
"""

from __future__ import annotations

from collections.abc import Container
from collections.abc import Iterable
import os
import sys
import types
from typing import Any
from typing import Literal

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug.alive.greenlets import THE_TEST
from pytest_eventlet_debug.alive.greenlets import Greenlets
from pytest_eventlet_debug.alive.greenthread_waits import GreenthreadWaits
from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import find_cycles
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.spawns import SITE
from pytest_eventlet_debug.alive.stacks import is_test_call
from pytest_eventlet_debug.alive.stacks import outwards
from pytest_eventlet_debug.alive.tls_sockets import TlsSockets
from pytest_eventlet_debug.alive.watched_descriptors import Watched
from pytest_eventlet_debug.hubs.notes import ENDED

State = Literal["current", "running", "suspended", "not started"]


class Greenthread(msgspec.Struct, frozen=True):
    """A greenthread, or a plain greenlet, at the moment it was looked at."""

    id: int
    #: The function that it was spawned with.
    name: str
    state: State
    #: Its thread where that is not the one that looks.
    thread: str | None
    #: Outermost first, without the frames in which it merely waits.
    stack: tuple[Frame, ...]
    waits: Waits | None
    #: Seconds until an ``eventlet.Timeout`` will be raised in it.
    timeout: float | None = None
    #: Ids of the greenthreads or the task whose end, or whose lock, it waits for.
    needs: tuple[int, ...] = ()
    #: Whether the test itself runs in it.
    of_test: bool = False
    #: The line that spawned it, where that was watched.
    spawned: Frame | None = None
    #: The line that killed it, which it has not come to or did not heed.
    killed: Frame | None = None


class Thread(msgspec.Struct, frozen=True):
    """A thread of the operating system that runs Python code."""

    ident: int
    name: str
    stack: tuple[Frame, ...]
    #: What a thread of ``eventlet.tpool`` executes; ``None`` for one that is idle, or no such.
    calls: str | None = None
    of_tpool: bool = False


class AliveGreenthreads(msgspec.Struct, frozen=True):
    """All greenthreads of all threads but the hubs' own, and the other threads."""

    greenthreads: tuple[Greenthread, ...] = ()
    threads: tuple[Thread, ...] = ()
    #: Ids of greenthreads that wait for each other's end or lock in a circle.
    cycles: tuple[tuple[int, ...], ...] = ()
    #: Whether ``gc.freeze()`` hides older ones that wait for no hub.
    frozen: bool = False


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
    for greenlet in look.greenlets.all():
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
        self._interrupted = interrupted
        self.watched = Watched(TlsSockets(heap.tls_sockets))
        self.greenlets = Greenlets(heap, interrupted)
        self._stacks = self.greenlets.stacks
        self._waits = GreenthreadWaits(self.greenlets, self.watched)

    def describe(self, greenlet: Any) -> Greenthread | None:
        """Return what a greenlet does; ``None`` if it has ended or is not of interest."""
        described = self._describe(greenlet)
        if described is None:
            return None
        known = getattr(greenlet, "__dict__", {})
        spawned, killed = (
            self._stacks.at(*known[name]) if name in known else None for name in (SITE, ENDED)
        )
        return replace(described, spawned=spawned, killed=killed)

    def _describe(self, greenlet: Any) -> Greenthread | None:
        is_current = greenlet is self.greenlets.current
        if greenlet.dead or self.greenlets.is_infrastructure(greenlet):
            return None
        is_main = greenlet.parent is None
        thread = self.greenlets.thread_of(greenlet)
        innermost = greenlet.gr_frame
        if innermost is None and not is_current:
            if is_main:
                return None
            name = self.greenlets.name(greenlet)
            if greenlet:
                return Greenthread(id(greenlet), name, "running", thread, (), None)
            starts = self._starts_when(greenlet)
            return Greenthread(id(greenlet), name, "not started", thread, (), starts)
        if is_current and is_main and self._interrupted is None:
            # What runs under the debugger, or has just failed; its stack is pytest's.
            return None
        frames = self.greenlets.stack_of(greenlet)
        of_test = any(map(is_test_call, frames))
        name = self.greenlets.name_with(greenlet, frames)
        stack = self._stacks.shown(self._stacks.users(frames))
        if is_current:
            waits: Waits | None = None
            needs: list[Any] = []
            if self._interrupted is not None:
                waits, needs = self._waits.in_thread(frames)
                if waits is None:
                    waits, needs = self._waits.of(greenlet, frames)
            needed = tuple(map(id, needs))
            return Greenthread(
                id(greenlet), name, "current", thread, stack, waits, None, needed, of_test
            )
        waits, needs = self._waits.of(greenlet, frames)
        throws = [t for t in self.greenlets.wakers.timers_of(greenlet) if t.action == "throw"]
        timeout = max(throws[0].seconds, 0.0) if throws else None
        needed = tuple(map(id, needs))
        return Greenthread(
            id(greenlet), name, "suspended", thread, stack, waits, timeout, needed, of_test
        )

    def describe_thread(self, innermost: types.FrameType) -> Greenthread:
        """Return what this thread does, where greenlet has not been imported."""
        frames = list(outwards(innermost))
        of_test = any(map(is_test_call, frames))
        stack = self._stacks.shown(self._stacks.users(frames))
        name = THE_TEST if of_test else "main thread"
        waits, _ = self._waits.in_thread(frames)
        return Greenthread(0, name, "current", None, stack, waits, of_test=of_test)

    def _starts_when(self, greenlet: Any) -> Waits:
        for timer in self.greenlets.wakers.timers_of(greenlet):
            if timer.action == "switch":
                return Waits("start", "its start", max(timer.seconds, 0.0))
        return Waits("start", "its start, for which no hub has a timer")

    def threads(self) -> Iterable[Thread]:
        """Yield the threads but the one that looks, and those that hubs' greenlets share."""
        own = sys._getframe()  # get_ident() is a greenlet's under monkey patching
        for ident, top in sys._current_frames().items():
            if top is own:
                continue
            name = thread_name(ident) or f"thread {ident:#x}"
            frames = list(outwards(top))
            if any(f"{os.sep}execnet{os.sep}" in each.f_code.co_filename for each in frames):
                continue  # pytest-xdist's own
            works = [f for f in frames if self._stacks.place(f) == "tpool.py"]
            calls = None
            if works and works[-1].f_code.co_name == "tworker":
                method = works[-1].f_locals.get("meth")
                calls = callable_name(method) if method is not None else None
            outer = len(frames)
            while outer > 1 and self._stacks.is_wrapper(frames[outer - 1].f_code):
                outer -= 1
            stack = self._stacks.shown(frames[:outer])
            yield Thread(ident, name, stack, calls, bool(works))
