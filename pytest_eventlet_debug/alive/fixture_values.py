"""What fixtures of a wider scope hold, for what a test adds to it is no leak of the test."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
import gc
import sys
import types
from typing import Any

import pytest

#: Objects that are looked at.
MAX_REACHED = 20_000

_ENDS = (type, types.ModuleType, types.FunctionType, types.CodeType, types.FrameType)


class FixtureValues:
    """Knows the fixtures that outlive a test."""

    def __init__(self) -> None:
        self._alive: dict[int, pytest.FixtureDef[Any]] = {}

    def begin(self, fixture: pytest.FixtureDef[Any]) -> None:
        """Know of a fixture that has been set up."""
        self._alive[id(fixture)] = fixture

    def end(self, fixture: pytest.FixtureDef[Any]) -> None:
        """Forget one that has been torn down."""
        self._alive.pop(id(fixture), None)

    def reached(self) -> Iterator[Any]:
        """Yield the values, and what can be reached from them.

        Not by way of modules, classes and functions, from which everything can be reached, nor
        through greenthreads, whose frames know much that is not theirs.
        """
        ahead = deque(
            fixture.cached_result[0]
            for fixture in self._alive.values()
            if fixture.cached_result is not None
        )
        greenlet = getattr(sys.modules.get("greenlet"), "greenlet", type)
        hub = getattr(sys.modules.get("eventlet.hubs.hub"), "BaseHub", type)
        seen = {id(module.__dict__) for module in _modules()}
        for _ in range(MAX_REACHED):
            if not ahead:
                return
            thing = ahead.popleft()
            kind = type(thing)
            if id(thing) in seen or issubclass(kind, (*_ENDS, hub)):
                continue
            seen.add(id(thing))
            yield thing
            if not issubclass(kind, greenlet):
                ahead.extend(gc.get_referents(thing))


def _modules() -> Iterator[types.ModuleType]:
    for module in tuple(sys.modules.values()):
        if issubclass(type(module), types.ModuleType):
            yield module
