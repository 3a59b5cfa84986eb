"""What is made to stay is out of the garbage collector's sight, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import gc
import re
import sys
import types
import weakref

import greenlet
import pytest
from runs import run

from pytest_eventlet_debug.system import collector

pytestmark = [
    pytest.mark.skipif(sys.version_info >= (3, 14), reason="nothing is frozen from 3.14 on"),
    pytest.mark.usefixtures("thawed"),
]

COUNTS = """
    import gc, sys, types

    def test_a():
        known = {id(thing) for thing in gc.get_objects()}
        functions = {
            id(thing)
            for name, module in list(sys.modules.items())
            if name.startswith("pytest_eventlet_debug.")
            for thing in vars(module).values()
            if isinstance(thing, types.FunctionType)
        }
        print("functions:", len(functions), "seen:", len(functions & known))
        assert id(test_a) in known
"""


def make_function() -> types.FunctionType:
    """Return a function that holds a list of its own, which may come to hold it."""
    held: list[object] = []

    def function() -> list[object]:
        return held

    assert isinstance(function, types.FunctionType)
    return function


@pytest.fixture
def thawed() -> Iterator[None]:
    pytest.importorskip("pytest_eventlet_debug.system._collector", reason="nothing was compiled")
    yield
    gc.unfreeze()


def known(things: Iterable[object]) -> list[bool]:
    """Say of each of some things whether the collector knows it."""
    seen = set(map(id, gc.get_objects()))
    return [id(thing) in seen for thing in things]


def test_only_the_functions_and_classes_that_are_made_meanwhile_are_frozen() -> None:
    before = make_function()
    frozen = gc.get_freeze_count()
    with collector.made_to_stay():
        meanwhile = [make_function() for _ in range(50)]
        kind = type("Kind", (), {"method": make_function()})
        members = list(vars(kind).values())
    after = make_function()
    assert known([before, after]) == [True, True]
    assert not any(known([*meanwhile, kind, kind.__mro__, *members]))
    assert gc.isenabled()
    assert gc.get_freeze_count() - frozen >= 100
    gc.unfreeze()
    assert all(known([*meanwhile, kind]))


def test_instances_that_are_made_meanwhile_are_not_frozen() -> None:
    async def wait() -> None: ...

    with collector.made_to_stay():
        things = [greenlet.greenlet(), {1, 2}, [make_function()], wait()]
        things[-1].close()
    assert all(known(things))


def test_what_is_frozen_may_die_and_what_it_refers_to_stays() -> None:
    with collector.made_to_stay():
        dead, living = make_function(), make_function()
    gone = weakref.ref(dead)
    del dead
    assert gone() is None
    function = make_function()
    function().append(living)
    living().append(function)
    held = weakref.ref(function)
    del function
    gc.collect()
    assert held() is living()[0]


def test_cycles_that_are_made_later_are_collected_as_ever() -> None:
    with collector.made_to_stay():
        make_function()
    cycle = make_function()
    cycle().append(cycle)
    gone = weakref.ref(cycle)
    del cycle
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("generation", [0, 1, 2])
def test_nothing_is_frozen_once_the_collector_has_moved_the_objects(generation: int) -> None:
    gc.collect()  # in Python 3.12 that freezes immortal objects
    frozen = gc.get_freeze_count()
    with collector.made_to_stay():
        functions = [make_function() for _ in range(50)]
        gc.collect(generation)
    assert gc.get_freeze_count() == frozen
    assert all(known(functions))


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with collector.made_to_stay():
            function = make_function()
        assert not gc.isenabled()
    finally:
        gc.enable()
    assert known([function]) == [False]


def test_it_is_known_whether_others_are_frozen_too() -> None:
    with collector.made_to_stay():
        function = make_function()
    assert not collector.hides_others()
    frozen = collector.frozen_state()
    gc.collect()
    assert collector.frozen_state() == frozen
    gc.freeze()
    assert collector.hides_others()
    assert collector.frozen_state() != frozen
    with collector.made_to_stay():
        make_function()
    assert collector.hides_others()
    gc.unfreeze()
    assert not collector.hides_others()
    assert collector.frozen_state() != frozen
    assert known([function]) == [True]


def test_a_test_that_collects_does_not_walk_the_plugin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x=COUNTS)
    arguments = ["--dump-asyncio-tasks", "--eventlet-leaks=warn", "--cprofile"]
    result = run(pytester, "--eventlet-hub=asyncio", *arguments, "-rP")
    result.assert_outcomes(passed=1)
    (line,) = (line for line in result.outlines if line.startswith("functions: "))
    functions, seen = map(int, re.findall(r"\d+", line))
    assert functions > 500
    # Those of what is imported before anything is asked of the plugin.
    assert seen < functions / 5


def test_a_dump_does_not_take_what_the_plugin_froze_for_the_users(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x="import asyncio, gc\ndef test_a(): assert gc.collect() is None")
    result = run(pytester, "--eventlet-hub=asyncio", "--dump-asyncio-tasks")
    result.assert_outcomes(failed=1)
    assert "gc.freeze()" not in result.stdout.str()
