"""Look as a timeout of asyncio's cancels a task, before the task unwinds."""

from __future__ import annotations

from collections.abc import Callable
import sys
from typing import Any

from pytest_eventlet_debug.alive.endings import is_task_of_hub
from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.alive.snapshot import Alive
from pytest_eventlet_debug.alive.task_waits import is_task
from pytest_eventlet_debug.hubs.tracebacks import chain_of
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.handler_errors import put_off

#: What all looks of one test may take; a test may wait in a loop, with a timeout each time.
MAX_SECONDS = 0.5


class AsyncioTimeoutWatch(FunctionWatch):
    """Keeps what a task waited for as the last timeout ended that; on while dumps are asked for.

    :param take: looks at all that is alive.
    """

    def __init__(self, take: Callable[[], Alive]) -> None:
        super().__init__()
        self._take = take
        #: By the id of what timed out: the wait, in words.
        self._kept: tuple[int, str] | None = None
        self._seconds = 0.0

    def _forget(self) -> None:
        self._kept = None
        self._seconds = 0.0

    def _wrap_all(self) -> None:
        # Since Python 3.12 wait_for() is a timeout(), too.
        kind = getattr(sys.modules.get("asyncio.timeouts"), "Timeout", None)
        self._wrap(kind, "_on_timeout", self._timing_out)
        self._wrap(sys.modules.get("asyncio.tasks"), "_release_waiter", self._timing_out)

    def of(self, error: BaseException) -> str:
        """Return what the task waited for that a timeout ended which an error came from."""
        number, words = self._kept or (0, "")
        for each in chain_of(error) if words else ():
            step = each.__traceback__
            while step is not None:
                names = step.tb_frame.f_locals
                if number in (id(names.get("self")), id(names.get("waiter"))):
                    return words
                step = step.tb_next
        return ""

    def _timing_out(self, original: Any) -> Any:
        def call(timed: Any, *args: Any) -> Any:
            __tracebackhide__ = True
            # With an argument more it is a future that is done.
            if not args and self._seconds < MAX_SECONDS:
                self._look(timed)
            return original(timed, *args)

        return call

    def _look(self, timed: Any) -> None:
        started = unpatched.monotonic()
        try:
            task = _waiter_of(timed)
            if task is None or is_task_of_hub(task):
                return
            words = self._take().of_task_in_vain(id(task))
            self._kept = (id(timed), words) if words else None
        except Exception as error:
            put_off(error)  # the timeout on its way matters more
        finally:
            self._seconds += unpatched.monotonic() - started


def _waiter_of(timed: Any) -> Any:
    """Return the task that waits by a ``Timeout``, or for the future that ``wait_for()`` makes."""
    task = getattr(timed, "_task", None)
    if task is not None:
        return task
    for callback, _ in getattr(timed, "_callbacks", None) or ():
        owner = getattr(callback, "__self__", None)
        if is_task(owner):
            return owner
    return None
