"""The greenlets of this process: which there are, their stacks, names and threads."""

from __future__ import annotations

from collections.abc import Iterable
import functools
import sys
import types
from typing import Any

from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.stacks import Stacks
from pytest_eventlet_debug.alive.stacks import is_test_call
from pytest_eventlet_debug.alive.stacks import outwards
from pytest_eventlet_debug.alive.wakers import Wakers

#: The name of the greenlet that the test itself runs in.
THE_TEST = "the test"


class Greenlets:
    """Those of one moment. Not to be kept.

    :param interrupted: what a signal handler has interrupted.
    """

    def __init__(self, heap: Heap, interrupted: types.FrameType | None = None) -> None:
        self._heap = heap
        self._interrupted = interrupted
        self.stacks = Stacks()
        module = sys.modules.get("greenlet")
        self._type: Any = getattr(module, "greenlet", None)
        if module is None or self._type is None:
            return
        self.wakers = Wakers(heap.hubs, self._type)
        self.current = module.getcurrent()
        self._hub_greenlets = {id(getattr(hub, "greenlet", None)) for hub in heap.hubs}
        self._exits = {
            id(event): each
            for each in heap.greenlets
            if (event := getattr(each, "__dict__", {}).get("_exit_event")) is not None
        }
        self._own_root = root_of(self.current)

    def all(self) -> Iterable[Any]:
        """Return the greenlets of the heap, and those that hubs will wake."""
        if self._type is None:
            return ()
        found = {id(each): each for each in self._heap.greenlets}
        found.update((id(each), each) for each in self.wakers.greenlets())
        # A thread's main greenlet is made as somebody asks for it, after the walk perhaps.
        found[id(self.current)] = self.current
        return found.values()

    def is_infrastructure(self, greenlet: Any) -> bool:
        """Say whether it is a hub's own greenlet, which no test spawned."""
        return id(greenlet) in self._hub_greenlets

    def ends_with(self, event: Any) -> Any:
        """Return the greenthread that tells of its end by an event, if one does."""
        return self._exits.get(id(event))

    def stack_of(self, greenlet: Any) -> list[types.FrameType]:
        """Return the frames of a greenlet that has begun, innermost first."""
        innermost = greenlet.gr_frame
        if innermost is None and greenlet is self.current:
            innermost = self._interrupted or sys._getframe()
        return list(outwards(innermost)) if innermost is not None else []

    def name(self, greenlet: Any) -> str:
        """Return the name of the function that a greenlet runs or will run."""
        if self.is_infrastructure(greenlet):
            return "hub"
        frames = self.stack_of(greenlet)
        if frames or greenlet.parent is None:
            return self.name_with(greenlet, frames)
        if not greenlet and not greenlet.dead:
            function = self.wakers.starts(greenlet)
            if function is None or not hasattr(type(greenlet), "link"):
                function = getattr(greenlet, "run", None)
            return callable_name(function)
        return f"{type(greenlet).__qualname__} at {id(greenlet):#x}"

    def name_with(self, greenlet: Any, frames: list[types.FrameType]) -> str:
        """Return the same of one that has begun, and whose stack is at hand."""
        if any(map(is_test_call, frames)):
            return THE_TEST
        return "main greenlet" if greenlet.parent is None else self.stacks.name(frames)

    def thread_of(self, greenlet: Any) -> str | None:
        """Return the name of a greenlet's thread where that is not the one that looks."""
        root = root_of(greenlet)
        return None if root is self._own_root else self._thread_of_root.get(id(root), "another")

    @functools.cached_property
    def _thread_of_root(self) -> dict[int, str]:
        """Return the names of threads by id of their main greenlet, as far as known."""
        found: dict[int, str] = {}
        for ident, top in sys._current_frames().items():
            for frame in outwards(top):
                place, name = self.stacks.place(frame), frame.f_code.co_name
                owner = None
                if place is not None and place.startswith("hubs/") and name == "run":
                    owner = getattr(frame.f_locals.get("self"), "greenlet", None)
                elif place == "greenthread.py" and name == "main":
                    owner = frame.f_locals.get("self")
                root = root_of(owner)
                if root is not None:
                    found[id(root)] = thread_name(ident) or f"{ident:#x}"
                    break
        return found


def root_of(greenlet: Any) -> Any:
    """Return the main greenlet of a greenlet's thread."""
    for _ in range(1000):
        parent = getattr(greenlet, "parent", None)
        if parent is None:
            break
        greenlet = parent
    return greenlet
