"""The clocks of a profile."""

from __future__ import annotations

import time
import types
from typing import get_args

import pytest

from pytest_eventlet_debug.profiling.clock import ClockName
from pytest_eventlet_debug.profiling.clock import make_clock


@pytest.mark.parametrize("name", get_args(ClockName))
def test_no_clock_is_a_python_function(name: ClockName) -> None:
    now = make_clock(name).now
    assert isinstance(now, types.BuiltinFunctionType)
    assert now() <= now()


def test_cpu_time_does_not_pass_while_the_thread_sleeps() -> None:
    now = make_clock("cpu").now
    before = now()
    time.sleep(0.05)
    assert now() - before < 0.04
