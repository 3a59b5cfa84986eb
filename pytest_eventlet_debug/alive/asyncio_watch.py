"""Watch asyncio while tests run: its functions are wrapped from its import on."""

from __future__ import annotations

from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.machinery import PathFinder
import sys
import types
from typing import Any

from pytest_eventlet_debug.alive.asyncio_locks import AsyncioLockWatch
from pytest_eventlet_debug.alive.asyncio_sites import AsyncioSiteWatch
from pytest_eventlet_debug.alive.cancelled_tasks import CancelledTaskWatch
from pytest_eventlet_debug.alive.loop_calls import LoopCallWatch
from pytest_eventlet_debug.alive.loop_readers import LoopReaderWatch
from pytest_eventlet_debug.alive.loop_signals import LoopSignalWatch
from pytest_eventlet_debug.alive.tasks import TESTS


class AsyncioWatch:
    """Has asyncio watched from :meth:`start` to :meth:`stop`."""

    def __init__(self) -> None:
        self._finder: _AfterImport | None = None
        self.cancelled = CancelledTaskWatch(self.look_again)
        self.calls = LoopCallWatch(self.cancelled.runs_in)
        told = LoopSignalWatch(), self.calls, LoopReaderWatch()
        self._watches = (self.cancelled, *told, AsyncioSiteWatch(), AsyncioLockWatch())

    def start(self) -> None:
        """Begin now, or as soon as asyncio is imported."""
        if "asyncio.base_events" in sys.modules:
            self.look_again()
        elif self._finder is None:
            self._finder = _AfterImport("asyncio", self.look_again)
            sys.meta_path.insert(0, self._finder)

    def begin(self) -> None:
        """Forget what was seen in a test, and wrap what has been imported since."""
        TESTS[0] += 1
        for watch in self._watches:
            watch.begin()

    def told(self) -> list[str]:
        """Return what each watch has to tell of this test, or ``""``."""
        return [watch.told() for watch in self._watches]

    def look_again(self) -> None:
        """Wrap what has been imported since, of uvloop and anyio, too; costs about 1 us."""
        for watch in self._watches:
            watch.look_again()

    def stop(self) -> None:
        """Leave asyncio as it was."""
        for watch in self._watches:
            watch.stop()
        if self._finder is not None and self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)


class _AfterImport:
    """A finder that finds nothing itself, and has a call made after one module's import."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self._name = name
        self._call = call

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = spec.loader if spec is not None else None
        if loader is not None:
            original = loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                del loader.exec_module
                original(module)
                self._call()

            try:
                loader.exec_module = exec_module
            except AttributeError:
                pass  # a loader in C; the watch begins with the next test
        return spec
