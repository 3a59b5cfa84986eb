"""One walk over everything the garbage collector knows, for what a dump is about.

Costs about 100 ns an object. It imports nothing: a type whose module is not loaded has
no instances.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import dataclasses
import gc
import itertools
import sys
from typing import Any

# Python 3.12 freezes some objects of its own as it starts.
_FROZEN_AT_START = gc.get_freeze_count()


@dataclasses.dataclass(frozen=True)
class Heap:
    """Live objects by kind. Not to be kept: it keeps them alive."""

    tasks: tuple[Any, ...] = ()
    loops: tuple[Any, ...] = ()
    greenlets: tuple[Any, ...] = ()
    hubs: tuple[Any, ...] = ()
    work_items: tuple[Any, ...] = ()
    """What executors of ``concurrent.futures`` have queued or run in a thread."""
    frozen: bool = False
    """Whether ``gc.freeze()`` hides what was made before it."""


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking the heap time and again while much is made."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def walk() -> Heap:
    """Look at every object once."""
    wanted = _wanted()
    frozen = gc.get_freeze_count() > _FROZEN_AT_START
    if not wanted:
        return Heap(frozen=frozen)
    objects = gc.get_objects()
    # By the ids of types: to hash a type can run its metaclass. Not isinstance() either,
    # which runs a proxy's code.
    kinds = list(map(type, objects))
    distinct = dict(zip(map(id, kinds), kinds))  # noqa: B905 - strict= costs here
    into: dict[int, list[Any]] = {}
    found: dict[str, list[Any]] = {name: [] for name in wanted}
    for number, kind in distinct.items():
        for name, bases in wanted.items():
            if issubclass(kind, bases):
                into[number] = found[name]
                break
    for thing in itertools.compress(objects, map(into.__contains__, map(id, kinds))):
        into[id(type(thing))].append(thing)
    hub = getattr(getattr(sys.modules.get("eventlet.hubs"), "_threadlocal", None), "hub", None)
    if hub is not None and frozen and not any(each is hub for each in found.get("hubs", ())):
        found.setdefault("hubs", []).append(hub)
    return Heap(**{name: tuple(things) for name, things in found.items()}, frozen=frozen)


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
