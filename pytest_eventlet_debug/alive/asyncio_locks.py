"""Note which tasks hold locks and semaphores of asyncio's."""

from __future__ import annotations

import sys
from typing import Any
import weakref

from pytest_eventlet_debug.alive.callers import WATCHED_ASYNCIO
from pytest_eventlet_debug.alive.callers import outside
from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.alive.task_waits import ACQUIRED
from pytest_eventlet_debug.alive.task_waits import named
from pytest_eventlet_debug.system.handler_errors import put_off


class AsyncioLockWatch(FunctionWatch):
    """Wraps what acquires and releases them."""

    def _wrap_all(self) -> None:
        for name in ("Lock", "Semaphore"):
            kind = getattr(sys.modules.get("asyncio.locks"), name, None)
            self._wrap_any(kind, "acquire", self._acquiring)
            self._wrap_any(kind, "release", self._releasing)

    def _acquiring(self, original: Any) -> Any:
        async def acquire(lock: Any) -> Any:
            __tracebackhide__ = True
            acquired = await original(lock)
            try:
                caller = sys._getframe(1)
                frame = outside(caller, WATCHED_ASYNCIO) or caller
                task = sys.modules["asyncio.tasks"].current_task()
                by = weakref.ref(task), named(task)
                vars(lock).setdefault(ACQUIRED, []).append((frame.f_code, frame.f_lineno, *by))
            except Exception as error:
                put_off(error)  # or no task has run it; who holds the lock stays unknown
            return acquired

        return acquire

    def _releasing(self, original: Any) -> Any:
        def release(lock: Any) -> Any:
            __tracebackhide__ = True
            try:
                held = vars(lock).get(ACQUIRED, [])
                task = sys.modules["asyncio.tasks"].current_task() if len(held) > 1 else None
                same = [each for each in held if each[2]() is task]
                held.remove(same[-1]) if task and same else held.clear()
            except Exception as error:
                put_off(error)
            return original(lock)

        return release
