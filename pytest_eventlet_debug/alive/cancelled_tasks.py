"""See which tasks were alive as an exception left an event loop or a group of tasks.

``asyncio.run()`` and its like cancel all tasks before their exception reaches anybody, and
a TaskGroup cancels its members before the exception of one leaves it. So a few functions
of asyncio are wrapped to look first. What is kept of that is plain data.
"""

from __future__ import annotations

from _thread import get_ident as _ident
from collections.abc import Callable
from collections.abc import Iterable
import contextlib
import sys
from typing import Any

import msgspec

from pytest_eventlet_debug import fallbacks
from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.alive.model import copy_of
from pytest_eventlet_debug.alive.tasks import AliveTasks
from pytest_eventlet_debug.alive.tasks import describe_tasks
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.hubs.notes import LEFT
from pytest_eventlet_debug.hubs.reasons import is_of_hub
from pytest_eventlet_debug.hubs.reasons import raised
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.collector import collector_paused

#: The last ones of a test that are kept.
MAX_SNAPSHOTS = 5
#: Tasks of one snapshot.
MAX_TASKS = 10_000
#: What all snapshots of one test may take; a test may expect many exceptions.
MAX_SECONDS = 2.0


class Cancelled(msgspec.Struct, frozen=True):
    """The tasks that there were before an exception had them cancelled.

    :param reason: what happened, as in ``ValueError left run_until_complete()``.
    :param error: the ``id()`` of the exception, to know it again; it is not kept.
    """

    tasks: AliveTasks
    reason: str
    error: int


class CancelledTaskWatch(FunctionWatch):
    """Wraps what runs a loop, and what cancels the tasks of a group.

    :param look_again: is called as a loop begins to run, for much may have been imported by then.
    """

    def __init__(self, look_again: Callable[[], None]) -> None:
        super().__init__()
        self._all_look_again = look_again
        self._kept: list[Cancelled] = []
        self._seconds = 0.0
        #: The thread that runs each loop, by id of the loop. asyncio's own note of it may be a
        #: greenthread's, under monkey patching.
        self.runs_in: dict[int, int] = {}

    def begin(self) -> None:
        """Drop what was kept of a test, and wrap what has been imported since.

        Warn where this Python lacks what is wrapped; in a test, for pytest to record it.
        """
        super().begin()
        group = _task_group()
        if group is not None and not callable(getattr(group, "_abort", None)):
            fallbacks.warn(
                "Tasks that a TaskGroup cancels are shown as they are afterwards: "
                "asyncio's TaskGroup has no _abort() here"
            )

    def look_again(self) -> None:
        """Wrap what has been imported since, of uvloop and anyio, too."""
        super().look_again()
        self._wrap_any(self._new("uvloop", "Loop"), "run_until_complete", self._running)
        scope = self._new("anyio._backends._asyncio", "CancelScope")
        self._wrap_any(scope, "cancel", self._cancelling_scope)

    def _forget(self) -> None:
        self._kept.clear()
        self._seconds = 0.0

    def _wrap_all(self) -> None:
        self._wrap_of_loop("run_until_complete", self._running)
        self._wrap(_task_group(), "_abort", self._aborting)

    def by(self, error: BaseException | None) -> tuple[Cancelled, ...]:
        """Return what an exception, or one that it came from, had cancelled.

        Where nothing is known of it, the last thing that happened in this test.
        """
        ids = _chain_of(error)
        found = [kept for kept in self._kept if kept.error in ids]
        return tuple(found or self._kept[-1:])

    def _keep(self, loop: Any, tasks: Iterable[Any], error: object, what: str) -> None:
        if self._seconds > MAX_SECONDS:
            return
        started = unpatched.monotonic()
        try:
            chosen = list(tasks)[:MAX_TASKS]
            with collector_paused():
                alive = describe_tasks(chosen, {id(loop): loop})
            if alive.tasks:
                name = type(error).__qualname__ if error is not None else "An exception"
                self._kept.append(Cancelled(alive, f"{name} {what}", id(error)))
                del self._kept[:-MAX_SNAPSHOTS]
        except BaseException:
            # What is not known is not shown; the exception on its way matters more.
            pass
        finally:
            self._seconds += unpatched.monotonic() - started

    def _running(self, original: Any) -> Any:
        def run_until_complete(loop: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            self._all_look_again()
            _begin(loop)
            self.runs_in[id(loop)] = _ident()
            try:
                return original(loop, *args, **kwargs)
            except BaseException as error:
                _note(loop, error)
                tasks = _tasks_of(loop)
                if tasks:
                    self._keep(loop, tasks, error, "left run_until_complete()")
                raise
            finally:
                self.runs_in.pop(id(loop), None)

        return run_until_complete

    def _aborting(self, original: Any) -> Any:
        def abort(group: Any, *args: Any, **kwargs: Any) -> Any:
            errors = getattr(group, "_errors", None)
            error = errors[-1] if errors else sys.exc_info()[1]
            members = copy_of(getattr(group, "_tasks", ()))
            self._keep(getattr(group, "_loop", None), members, error, "aborted a TaskGroup")
            return original(group, *args, **kwargs)

        return abort

    def _cancelling_scope(self, original: Any) -> Any:
        def cancel(scope: Any, *args: Any, **kwargs: Any) -> Any:
            caller = sys._getframe(1)
            # Only where a task group does it; users cancel scopes in the course of things.
            if caller.f_code.co_name in ("task_done", "__aexit__"):
                names = caller.f_locals
                error = names.get("exc") or names.get("exc_val")
                members = copy_of(getattr(names.get("self"), "_tasks", ()))
                if error is not None and members:
                    loop = members[0].get_loop()
                    self._keep(loop, members, error, "cancelled a task group of anyio")
            return original(scope, *args, **kwargs)

        return cancel


def _begin(loop: Any) -> None:
    """Forget what left a loop before, unless the hub takes itself for running since then."""
    with contextlib.suppress(Exception):
        if not getattr(own_hub(), "running", False):
            setattr(loop, LEFT, None)


def _note(loop: Any, error: BaseException) -> None:
    """Remember the first error that leaves a loop, but not that its hub has ended already."""
    with contextlib.suppress(Exception):  # a loop with slots
        if getattr(loop, LEFT, None) is None and not is_of_hub(error):
            setattr(loop, LEFT, raised(error))


def _tasks_of(loop: Any) -> list[Any]:
    try:
        return list(sys.modules["asyncio"].all_tasks(loop))
    except BaseException:
        return []


def _chain_of(error: BaseException | None) -> set[int]:
    """Return the ids of an exception and of all that it came from."""
    ids: set[int] = set()
    ahead: list[Any] = [error]
    while ahead and len(ids) < 1000:
        each = ahead.pop()
        if each is None or id(each) in ids:
            continue
        ids.add(id(each))
        ahead += [each.__cause__, each.__context__]
        if hasattr(type(each), "derive"):
            ahead += each.exceptions
    return ids


def _task_group() -> Any:
    """Return the class, which asyncio has since Python 3.11."""
    return getattr(sys.modules.get("asyncio.taskgroups"), "TaskGroup", None)
