"""One walk over everything the garbage collector knows, for what a dump is about.

Costs about 20 ns an object, and 80 where ``_heap.c`` was not compiled. It imports nothing: a
type whose module is not loaded has no instances.
"""

from __future__ import annotations

import gc
import itertools
import sys
from typing import Any
import weakref

import msgspec

from pytest_eventlet_debug.hubs.names import own_hub

# Python 3.12 freezes some objects of its own as it starts.
_FROZEN_AT_START = gc.get_freeze_count()
_IS_CPYTHON = sys.implementation.name == "cpython"


def of_types_in_python(objects: list[Any], types: tuple[type, ...], /) -> list[Any]:
    """Return the objects whose type is one of these, in their order.

    No object is asked anything: to hash a type can run its metaclass, and isinstance() a
    proxy's code. Nor is id() called, of which Python tells every audit hook.
    """
    numbers = frozenset(map(object.__hash__, types))
    are_of = map(numbers.__contains__, map(object.__hash__, map(type, objects)))
    return [*itertools.compress(objects, are_of)]


try:
    from pytest_eventlet_debug.alive._heap import of_types
except ImportError:  # there was no compiler
    of_types = of_types_in_python


class Heap(msgspec.Struct, frozen=True):
    """Live objects by kind. Not to be kept: it keeps them alive."""

    tasks: tuple[Any, ...] = ()
    loops: tuple[Any, ...] = ()
    greenlets: tuple[Any, ...] = ()
    hubs: tuple[Any, ...] = ()
    #: What executors of ``concurrent.futures`` have queued or run in a thread.
    work_items: tuple[Any, ...] = ()
    #: Whether ``gc.freeze()`` hides what was made before it.
    frozen: bool = False


def walk() -> Heap:
    """Look at every object once."""
    wanted = _wanted()
    found = _pick(gc.get_objects() if wanted else [], wanted)
    return _heap(found)


class Follower:
    """Walks as :func:`walk` does, again and again, over what is new since the last time.

    The collector keeps objects in lists by age and appends to the older list as it collects
    the younger. So what came after an object of ours is new.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[int, weakref.ref[Any]]] = {}
        self._marker: list[object] | None = None
        self._collections = (0, 0)

    def walk(self) -> Heap:
        """Return what was found before and still lives, and what is new."""
        wanted = _wanted()
        found = _pick(self._new_objects() if wanted else [], wanted)
        for name, known in self._known.items():
            things = found.setdefault(name, [])
            new = set(map(id, things))
            living = (reference() for reference in known.values())
            things += [each for each in living if each is not None and id(each) not in new]
        heap = _heap(found)
        self._remember(found)
        return heap

    def _new_objects(self) -> list[Any]:
        if self._marker is None:
            return gc.get_objects()
        middle, full = _collections()
        if full != self._collections[1]:
            return gc.get_objects()
        objects = [*gc.get_objects(generation=0), *gc.get_objects(generation=1)]
        if middle != self._collections[0]:
            for thing in reversed(gc.get_objects(generation=2)):
                if thing is self._marker:
                    break
                objects.append(thing)
        return objects

    def _remember(self, found: dict[str, list[Any]]) -> None:
        # Python 3.14 keeps its lists in another way, and others may not have them at all.
        self._marker = None
        try:
            self._known = {
                name: {id(thing): weakref.ref(thing) for thing in things}
                for name, things in found.items()
            }
        except TypeError:
            return  # one that takes no weak references
        if gc.isenabled() and sys.version_info < (3, 14) and _IS_CPYTHON:
            self._marker = []
            # The marker, and all that is as old, goes to the oldest.
            gc.collect(1)
            self._collections = _collections()


def _collections() -> tuple[int, int]:
    """Return how often the middle and the oldest objects have been collected."""
    _, middle, full = gc.get_stats()
    return middle["collections"], full["collections"]


def _pick(objects: list[Any], wanted: dict[str, tuple[type, ...]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in wanted}
    into: dict[int, list[Any]] = {}
    types: list[type] = []
    for name, bases in wanted.items():
        for number, kind in _with_subclasses(bases).items():
            into.setdefault(number, found[name])
            types.append(kind)
    for thing in of_types(objects, tuple(types)):
        into[id(type(thing))].append(thing)
    return found


def _with_subclasses(bases: tuple[type, ...]) -> dict[int, type]:
    """Return classes and all that are derived from them, by their ids."""
    known: dict[int, type] = {}
    left = list(bases)
    while left:
        kind = left.pop()
        if id(kind) not in known:
            known[id(kind)] = kind
            left += type.__subclasses__(kind)
    return known


def _heap(found: dict[str, list[Any]]) -> Heap:
    frozen = gc.get_freeze_count() > _FROZEN_AT_START
    if frozen:
        hub = own_hub()
        # What gc.freeze() hides is known elsewhere, too.
        _add(found, "hubs", hub)
        _add(found, "loops", getattr(hub, "loop", None))
        _add(found, "loops", _running_loop())
    return Heap(**{name: tuple(things) for name, things in found.items()}, frozen=frozen)


def _add(found: dict[str, list[Any]], name: str, thing: Any) -> None:
    if thing is not None and not any(each is thing for each in found.get(name, ())):
        found.setdefault(name, []).append(thing)


def _running_loop() -> Any:
    events = sys.modules.get("asyncio.events")
    get = getattr(events, "_get_running_loop", None)
    try:
        return get() if get is not None else None
    except Exception:
        return None  # a mock's


def _wanted() -> dict[str, tuple[type, ...]]:
    names = {
        "tasks": (("asyncio.tasks", "Task"), ("asyncio.tasks", "_PyTask")),
        "loops": (("asyncio.events", "AbstractEventLoop"),),
        "greenlets": (("greenlet", "greenlet"),),
        "hubs": (("eventlet.hubs.hub", "BaseHub"),),
        "work_items": (("concurrent.futures.thread", "_WorkItem"),),
    }
    wanted = {}
    for name, places in names.items():
        types = tuple(
            kind
            for module, attribute in places
            if isinstance(kind := getattr(sys.modules.get(module), attribute, None), type)
        )
        if types:
            wanted[name] = types
    return wanted
