"""The walk over all objects: what it finds, and that it asks none of them anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
import gc
from typing import Any

import greenlet
import pytest

from pytest_eventlet_debug.alive import heap


class Touchy(type):
    """A type that can be told from others by its address alone."""

    def __hash__(cls) -> int:
        raise AssertionError("a type was hashed")

    def __eq__(cls, other: object) -> bool:
        raise AssertionError("a type was compared")

    def __instancecheck__(cls, instance: object) -> bool:
        raise AssertionError("a type was asked for its instances")


class Thing(metaclass=Touchy):
    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"an object was asked for its {name}")


class Worker(greenlet.greenlet):
    pass


class Keen(Worker):
    pass


@pytest.mark.parametrize("of_types", [heap.of_types, heap.of_types_in_python])
def test_objects_are_picked_by_their_types_alone(
    of_types: Callable[[list[Any], tuple[type, ...]], list[Any]],
) -> None:
    many = [type(f"Kind{n}", (), {}) for n in range(1000)]
    objects = [kind() for kind in many for _ in range(2)] + [Thing(), Thing(), object(), []]
    for wanted in ((), (Thing,), tuple(many[::3]), (list, *many)):
        expected = [each for each in objects if any(type(each) is kind for kind in wanted)]
        assert list(map(id, of_types(objects, wanted))) == list(map(id, expected))


def test_instances_of_derived_types_are_found_in_turn_and_after_a_full_collection() -> None:
    follower = heap.Follower()
    greenlet.getcurrent()  # the main one is made when it is first asked for
    old = follower.walk().greenlets
    before = set(map(id, old))
    keen, worker, plain = Keen(), Worker(), greenlet.greenlet()
    loop = asyncio.new_event_loop()
    try:
        for _ in range(2):
            found = follower.walk()
            new = {id(each) for each in found.greenlets} - before
            assert new == {id(keen), id(worker), id(plain)}
            assert any(each is loop for each in found.loops)
            gc.collect()
    finally:
        loop.close()
    del keen, found
    gc.collect()
    assert {id(each) for each in follower.walk().greenlets} - before == {id(worker), id(plain)}
