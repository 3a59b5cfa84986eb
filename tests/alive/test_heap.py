"""The walk over all objects: what it finds, and that it asks none of them anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from collections.abc import Iterator
import gc
import sys
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
    objects += [type(f"Derived{n}", (kind,), {})() for n, kind in enumerate(many)]
    for wanted in ((), (Thing,), tuple(many[::3]), (list, *many)):
        expected = [
            each
            for each in objects
            if any(kind is base for kind in type.mro(type(each)) for base in wanted)
        ]
        assert list(map(id, of_types(objects, wanted))) == list(map(id, expected))


@pytest.fixture(params=["young objects", "all objects"])
def follower(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[heap.Follower]:
    if request.param == "all objects":
        monkeypatch.setattr(heap, "_HAS_YOUNG", False)
    follower = heap.Follower()
    greenlet.getcurrent()  # the main one is made when it is first asked for
    yield follower
    follower.stop()


def test_instances_of_derived_types_are_found_in_turn_and_after_a_full_collection(
    follower: heap.Follower,
) -> None:
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


def _collect_twice() -> None:
    gc.collect(1)
    gc.collect()


def _freeze_and_unfreeze() -> None:
    gc.freeze()
    gc.unfreeze()


def _collect_while_frozen() -> None:
    gc.freeze()
    gc.collect()
    gc.unfreeze()


def _drop_all_callbacks_and_collect() -> None:
    kept = gc.callbacks[:]
    gc.callbacks.clear()
    gc.collect()
    gc.callbacks[:] = [each for each in kept if "_heap" not in repr(each)]


@pytest.mark.parametrize(
    "happens",
    [
        lambda: gc.collect(0),
        lambda: gc.collect(1),
        gc.collect,
        _collect_twice,
        _freeze_and_unfreeze,
        _collect_while_frozen,
        _drop_all_callbacks_and_collect,
    ],
)
@pytest.mark.parametrize("enabled", [True, False])
def test_what_is_new_is_found_whatever_the_collector_does(
    follower: heap.Follower, happens: Callable[[], object], enabled: bool
) -> None:
    before = set(map(id, follower.walk().greenlets))
    if not enabled:
        gc.disable()
    try:
        for _ in range(2):
            kept = [Worker(), type("New", (Worker,), {})()]
            happens()
            kept.append(Keen())
            passing = Keen()
            happens()
            del passing
            found = {id(each) for each in follower.walk().greenlets}
            assert found - before == set(map(id, kept))
            assert before <= found
            del kept
    finally:
        gc.enable()


def test_kinds_whose_module_is_imported_later_are_found(
    follower: heap.Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "greenlet")
        assert follower.walk().greenlets == ()
        worker = Worker()
        gc.collect()
    assert any(each is worker for each in follower.walk().greenlets)


FOLLOWED = """\
import gc
import sys
import greenlet
from pytest_eventlet_debug.alive.heap import Follower
follower = Follower()
follower.walk()
complete = []
sys.addaudithook(lambda name, of: name == "gc.get_objects" and of[0] == -1 and complete.append(1))
kept = [greenlet.greenlet()]
gc.collect()
calls = []
sys.setprofile(lambda frame, event, what: calls.append((frame.f_code.co_name, event)))
gc.collect()
sys.setprofile(None)
assert calls == [("<module>", "c_call"), ("<module>", "c_return"), ("<module>", "c_call")], calls
for _ in range(10):
    things = [[] for _ in range(100_000)]
    kept += [greenlet.greenlet() for _ in range(2000)]
    del kept[:1000], things
alive = {id(each) for each in follower.walk().greenlets if each is not greenlet.getcurrent()}
assert alive == set(map(id, kept)), (len(alive), len(kept))
assert complete == []
counted = len(gc.get_objects())
kept += [greenlet.greenlet() for _ in range(1000)]
gc.collect()
del kept[-1000:]
gc.collect()
assert len(gc.get_objects()) - counted < 100
follower.stop()
assert gc.callbacks == []
"""


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="every object is looked at there")
def test_old_objects_are_looked_at_once_and_nobody_sees_it(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pytest_eventlet_debug.alive._heap", reason="nothing was compiled")
    result = pytester.run(sys.executable, "-c", FOLLOWED)
    assert (result.ret, result.errlines) == (0, [])
