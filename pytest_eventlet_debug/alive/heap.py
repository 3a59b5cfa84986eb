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
from pytest_eventlet_debug.system import collector

# Taken here, before a test can patch them.
_callbacks = gc.callbacks
_collect = gc.collect
_get_objects = gc.get_objects
_isenabled = gc.isenabled


def of_types_in_python(objects: list[Any], bases: tuple[type, ...], /) -> list[Any]:
    """Return the objects whose type is one of these or derived from one, in their order.

    No object is asked anything: to hash a type can run its metaclass, and isinstance() a
    proxy's code. Nor is id() called, of which Python tells every audit hook.
    """
    numbers = frozenset(map(object.__hash__, _with_subclasses(bases).values()))
    are_of = map(numbers.__contains__, map(object.__hash__, map(type, objects)))
    return [*itertools.compress(objects, are_of)]


try:
    from pytest_eventlet_debug.alive._heap import Young
    from pytest_eventlet_debug.alive._heap import of_types
except ImportError:  # there was no compiler
    of_types = of_types_in_python
    _HAS_YOUNG = False
else:
    # Python 3.14 collects in another way, and others may not have generations at all.
    _HAS_YOUNG = sys.version_info < (3, 14) and sys.implementation.name == "cpython"


class Heap(msgspec.Struct, frozen=True):
    """Live objects by kind. Not to be kept: it keeps them alive."""

    tasks: tuple[Any, ...] = ()
    loops: tuple[Any, ...] = ()
    greenlets: tuple[Any, ...] = ()
    hubs: tuple[Any, ...] = ()
    #: What executors of ``concurrent.futures`` have queued or run in a thread.
    work_items: tuple[Any, ...] = ()
    tls_sockets: tuple[Any, ...] = ()
    #: Whether ``gc.freeze()`` hides what was made before it.
    frozen: bool = False


def walk() -> Heap:
    """Look at every object once."""
    wanted = _wanted()
    return _heap(_sort(all_of(_bases(wanted)), wanted))


class Follower:
    """Walks as :func:`walk` does, again and again, over what is new since the last time.

    The collector keeps objects in lists by age. The young ones are few, and are looked at before
    a collection makes them old.
    """

    def __init__(self) -> None:
        self._known: dict[str, dict[int, weakref.ref[Any]]] = {}
        self._young = Young(_get_objects) if _HAS_YOUNG else None
        self._callback = self._young.before_collection if self._young is not None else None
        self._frozen = 0

    def walk(self) -> Heap:
        """Return what was found before and still lives, and what is new."""
        wanted = _wanted()
        found = _sort(self._new_of(_bases(wanted)), wanted)
        for name, known in self._known.items():
            things = found.setdefault(name, [])
            new = set(map(id, things))
            living = (reference() for reference in known.values())
            things += [each for each in living if each is not None and id(each) not in new]
        heap = _heap(found)
        self._remember(found)
        return heap

    def stop(self) -> None:
        """Look no more before collections."""
        _callbacks[:] = [each for each in _callbacks if each is not self._callback]

    def _new_of(self, bases: tuple[type, ...]) -> list[Any]:
        if self._young is None or self._callback is None:
            return all_of(bases)
        if not any(each is self._callback for each in _callbacks):
            _callbacks.append(self._callback)
        if _isenabled():
            _collect(1)  # so that no object is young, and looked at, twice
        new = self._young.take(bases)
        # What gc.unfreeze() gives back is old at once, and was in no list when all were looked at.
        frozen = collector.frozen_state()
        if new is None or frozen != self._frozen:
            new = all_of(bases)
        self._frozen = frozen
        return new

    def _remember(self, found: dict[str, list[Any]]) -> None:
        try:
            self._known = {
                name: {id(thing): weakref.ref(thing) for thing in things}
                for name, things in found.items()
            }
        except TypeError:  # one that takes no weak references
            self._known, self._frozen = {}, -1


def _bases(wanted: dict[str, tuple[type, ...]]) -> tuple[type, ...]:
    return tuple(itertools.chain.from_iterable(wanted.values()))


def all_of(bases: tuple[type, ...]) -> list[Any]:
    """Return the objects that the collector knows whose class is one of these or derived."""
    return of_types(_get_objects(), bases) if bases else []


def _sort(things: list[Any], wanted: dict[str, tuple[type, ...]]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {name: [] for name in wanted}
    into = {
        number: found[name] for name, bases in wanted.items() for number in _with_subclasses(bases)
    }
    for thing in things:
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
    frozen = collector.hides_others()
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
        "tls_sockets": (("ssl", "SSLSocket"),),
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
