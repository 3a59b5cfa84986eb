"""Tests that a busy machine may fail: the one reason for which a test runs again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import TypeVar

import pytest

_Test = TypeVar("_Test", bound=Callable[..., Any])


def depends_on_speed(test: _Test) -> _Test:
    """Mark a test of what takes a certain speed.

    Of calls at a rate, a thread that wakes in time, a duration that has an upper bound. A machine
    that others keep busy may miss it, and nothing is wrong then. What the test starts goes before
    what others start, if that is allowed.
    """
    return pytest.mark.usefixtures("preferred")(pytest.mark.flaky(reruns=2)(test))
