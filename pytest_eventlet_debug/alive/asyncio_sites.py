"""Note which lines make tasks, futures and events of asyncio's, and which one stops a loop."""

from __future__ import annotations

import sys
import types
from typing import Any

from pytest_eventlet_debug.alive.callers import WATCHED_ASYNCIO
from pytest_eventlet_debug.alive.callers import outside
from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.alive.task_waits import SITE
from pytest_eventlet_debug.alive.tasks import TESTS
from pytest_eventlet_debug.hubs.notes import STOPPED
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.handler_errors import put_off


class AsyncioSiteWatch(FunctionWatch):
    """Wraps what makes them, and ``stop()`` of loops."""

    def look_again(self) -> None:
        """Wrap what has been imported since, of uvloop, too."""
        super().look_again()
        kind = self._new("uvloop", "Loop")
        self._wrap_any(kind, "create_task", self._creating)
        self._wrap_any(kind, "stop", self._stopping)

    def _wrap_all(self) -> None:
        self._wrap_of_loop("create_task", self._creating)
        self._wrap_of_loop("create_future", self._making_future)
        self._wrap_of_loop("stop", self._stopping)
        event = getattr(sys.modules.get("asyncio.locks"), "Event", None)
        self._wrap(event, "__init__", self._making_event)

    def _creating(self, original: Any) -> Any:
        def create_task(loop: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            task = original(loop, *args, **kwargs)
            try:
                frame = outside_of(WATCHED_ASYNCIO, sys._getframe(1))
                if frame is not None:
                    now = unpatched.monotonic()
                    setattr(task, SITE, (frame.f_code, frame.f_lineno, TESTS[0], now))
                debug = getattr(task, "_source_traceback", None)
                if debug:
                    del debug[-1]  # this function, as asyncio does with its own
            except Exception as error:
                put_off(error)  # or a task of another's making, with slots; its site stays unknown
            return task

        return create_task

    def _making_future(self, original: Any) -> Any:
        def create_future(loop: Any) -> Any:
            __tracebackhide__ = True
            future = original(loop)
            _note_maker(future, sys._getframe(1))
            return future

        return create_future

    def _making_event(self, original: Any) -> Any:
        def __init__(event: Any, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            original(event, *args, **kwargs)
            _note_maker(event, sys._getframe(1))

        return __init__

    def _stopping(self, original: Any) -> Any:
        def stop(loop: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            try:
                caller = sys._getframe(1)
                # Not that what run_until_complete() ran has ended.
                if caller.f_code.co_name != "_run_until_complete_cb":
                    frame = outside(caller, WATCHED_ASYNCIO)
                    site = (frame.f_code, frame.f_lineno) if frame is not None else None
                    setattr(loop, STOPPED, site)
            except Exception as error:
                put_off(error)  # or a loop with slots; who stopped it stays unknown
            return original(loop, *args, **kwargs)

        return stop


def _note_maker(thing: Any, caller: types.FrameType) -> None:
    """Note the line that has made a thing, unless it is one of asyncio's own."""
    try:
        if not caller.f_code.co_filename.startswith(WATCHED_ASYNCIO):
            setattr(thing, SITE, (caller.f_code, caller.f_lineno, TESTS[0]))
    except Exception as error:
        put_off(error)  # or one with slots; its site stays unknown
