"""Note who shuts down executors, and what fails in them unheard, while dumps are asked for."""

from __future__ import annotations

import sys
import types
from typing import Any

from pytest_eventlet_debug.alive.callers import WATCHED_ASYNCIO
from pytest_eventlet_debug.alive.callers import drops
from pytest_eventlet_debug.alive.function_watch import FirstSeenWatch
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.task_waits import work_of
from pytest_eventlet_debug.hubs.notes import SHUT
from pytest_eventlet_debug.hubs.reasons import raised
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.handler_errors import put_off

_LIBRARY = (*WATCHED_ASYNCIO, f"{STANDARD_LIBRARY}concurrent/")
_THREADS = "concurrent.futures.thread"
#: An attribute of what executors have queued, if its future was dropped at once: the number of the
#: test, the code and the line that has submitted it.
_DROPPED = "_eventlet_debug_dropped"


class ExecutorWatch(FirstSeenWatch):
    """Wraps ``shutdown()`` of executors, and what their threads run; a call costs 2 us more."""

    def __init__(self) -> None:
        super().__init__()
        self._test = 0

    def _forget(self) -> None:
        super()._forget()
        self._test += 1

    def _wrap_all(self) -> None:
        for module, name in ((_THREADS, "Thread"), ("concurrent.futures.process", "Process")):
            kind = getattr(sys.modules.get(module), f"{name}PoolExecutor", None)
            self._wrap(kind, "shutdown", _shutting_down)
        self._wrap_of_loop("shutdown_default_executor", _shutting_down)
        kind = getattr(sys.modules.get(_THREADS), "_WorkItem", None)
        self._wrap(kind, "__init__", self._submitting)
        self._wrap(kind, "run", self._running)

    def _submitting(self, original: Any) -> Any:
        def __init__(item: Any, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            original(item, *args, **kwargs)
            try:
                frame = outside_of(_LIBRARY, submit := sys._getframe(1))
                if frame is not None and frame is submit.f_back and drops(frame):
                    setattr(item, _DROPPED, (self._test, frame.f_code, frame.f_lineno))
            except Exception as error:
                put_off(error)  # or one with slots; who has submitted it stays unknown

        return __init__

    def _running(self, original: Any) -> Any:
        def run(item: Any, *args: Any) -> Any:
            __tracebackhide__ = True
            returned = original(item, *args)
            try:
                test, *site = getattr(item, _DROPPED, (0,))
                if test == self._test and not (self._first or item.future._done_callbacks):
                    self._first = _unheard(item, *site)
            except Exception as error:
                put_off(error)  # or an item of another's making; how it ended stays unknown
            return returned

        return run


def _shutting_down(original: Any) -> Any:
    def shutdown(executor: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            if SHUT not in vars(executor):
                frame = outside_of(_LIBRARY, sys._getframe(1))
                site = (frame.f_code, frame.f_lineno) if frame is not None else None
                setattr(executor, SHUT, site)
        except Exception as error:
            put_off(error)  # or one with slots; who has shut it down stays unknown
        return original(executor, *args, **kwargs)

    return shutdown


def _unheard(item: Any, code: types.CodeType, line: int) -> str:
    error = item.future._exception
    if error is None:
        return ""
    where = Frames().at(code, line).where
    return (
        f"{callable_name(work_of(item))}(), submitted to an executor at {where}, ended with "
        f"{raised(error)}; nobody has kept its future, to ask for that"
    )
