"""The clocks: made of C callables, and able to stand still."""

from __future__ import annotations

import functools
import operator
import time
import types

import pytest

from pytest_eventlet_debug.profiling import clock
from pytest_eventlet_debug.profiling.clock import CLOCKS
from pytest_eventlet_debug.profiling.clock import ClockName
from pytest_eventlet_debug.profiling.clock import less
from pytest_eventlet_debug.profiling.clock import make_clock


def test_what_is_in_the_cell_is_taken_off() -> None:
    times = [10.0]
    read, cell = less(functools.partial(operator.getitem, times, 0))
    assert read() == 10.0
    cell[0] = 4.0
    assert [read(), read()] == [6.0, 6.0]
    times[0] = 11.0
    assert read() == 7.0


def test_it_works_where_the_list_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock.gc, "get_referents", lambda *objects: [])
    read, cell = less(functools.partial(float, 3))
    cell[0] = 1.0
    assert [read(), read()] == [2.0, 2.0]


@pytest.mark.parametrize("name", CLOCKS)
def test_no_clock_is_a_python_function(name: ClockName) -> None:
    made = make_clock(name)
    for callable_ in (made.now, less(made.now)[0]):
        assert not isinstance(callable_, types.FunctionType | types.MethodType)
        assert callable_() <= callable_()


def test_cpu_time_does_not_pass_while_the_thread_sleeps() -> None:
    now = make_clock("cpu").now
    before = now()
    time.sleep(0.05)
    assert now() - before < 0.04
