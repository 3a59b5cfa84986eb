"""Note that two greenthreads hold one RLock of threads, while dumps are asked for.

Such a lock knows its owner by the thread. ``monkey_patch()`` replaces those that it finds in
modules and in what these refer to; any other is no lock between greenthreads.
"""

from __future__ import annotations

import _thread
import sys
import types
from typing import Any
import weakref

from pytest_eventlet_debug.alive import holders
from pytest_eventlet_debug.alive.acquisitions import CALLERS
from pytest_eventlet_debug.alive.heap import all_of
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.stacks import outwards
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.code_places import outside_of

_RLock: type = _thread.RLock
_COUNT = lazily(r" count=(\d+) ")
#: Locks that are looked at; of each the hook on switches asks whether it is held.
_MOST_LOCKS = 100


class SharedRLockWatch:
    """Looks at the RLocks that ``monkey_patch()`` has left, at each switch of greenthreads.

    They are looked for once, which takes some milliseconds: later ones are eventlet's. Where there
    are none nothing is watched, else each of them costs a switch 0.1 us.
    """

    def __init__(self) -> None:
        self._locks: list[Any] | None = None
        #: By the id of a lock, the greenlets that hold it, each as often as it has acquired it.
        self._holding: dict[int, list[weakref.ref[Any]]] = {}
        self._first = ""

    def begin(self) -> None:
        """Forget what was seen in a test, and begin if there is something to watch."""
        self._first = ""
        self.look_again()

    def look_again(self) -> None:
        """Begin if ``monkey_patch()`` has been called by now."""
        if self._locks is None and _patches_locks():
            self._locks = all_of((_RLock,))[:_MOST_LOCKS]
        if self._locks:
            switches.subscribe(self._switched)

    def stop(self) -> None:
        """Watch no more."""
        self._locks = None
        self._holding.clear()
        switches.unsubscribe(self._switched)

    def told(self) -> str:
        """Return in words which two have held a lock in this test, or ``""``."""
        return self._first

    def _switched(self, _event: str, arguments: tuple[Any, Any]) -> None:
        for lock in self._locks or ():
            if lock._is_owned():
                self._look(lock, arguments[0])
            elif self._holding:
                self._holding.pop(id(lock), None)

    def _look(self, lock: Any, origin: Any) -> None:
        """Note what the greenlet that has just run did with a lock that its thread holds."""
        count = _COUNT.search(repr(lock))
        holding = self._holding.setdefault(id(lock), [])
        change = (int(count[1]) if count else 0) - len(holding)
        for _ in range(-change):
            own = [each for each in holding if each() is origin]
            holding.remove(own[-1] if own else holding[0])
        holding += [weakref.ref(origin)] * change
        if change > 0 and not self._first:
            other = next((each for each in map(_referred, holding) if each is not origin), None)
            if other is not None:
                self._first = _words(lock, origin, other)


def _patches_locks() -> bool:
    is_patched = getattr(sys.modules.get("eventlet.patcher"), "is_monkey_patched", None)
    return type(is_patched) is types.FunctionType and is_patched("thread") is True


def _referred(reference: weakref.ref[Any]) -> Any:
    return reference()


def _name_of(lock: Any, own: types.FrameType) -> str:
    """Return what acquired a lock calls it, and where that is if it is not the user's own line."""
    for frame in outwards(own):
        name = holders.name_of(lock, frame)
        if name:
            where = Frames().describe(frame).where.removeprefix(STANDARD_LIBRARY)
            return name if frame is own else f"{name} ({where})"
    return ""


def _words(lock: Any, second: Any, first: Any) -> str:
    shown = []
    name = ""
    for greenlet in (second, first):
        frame = greenlet.gr_frame
        own = outside_of((of_eventlet() or OURS, OURS, *CALLERS), frame)
        if own is None or frame is None:
            return ""
        name = name or _name_of(lock, own)
        where = Frames().describe(own).where
        shown.append(f"greenthread {switches.function_at_bottom(frame)}, at {where},")
    return (
        f"{shown[0]} acquired {name or 'a lock'} while {shown[1]} held it: monkey_patch() has not "
        "greened this RLock, which keeps out other threads alone"
    )
