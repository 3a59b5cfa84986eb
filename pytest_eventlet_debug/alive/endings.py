"""Note who cancels tasks and kills greenthreads, while dumps or leaks are asked for."""

from __future__ import annotations

from collections import deque
import gc
import sys
import types
from typing import Any

import msgspec

from pytest_eventlet_debug import fallbacks
from pytest_eventlet_debug.alive.callers import is_handle
from pytest_eventlet_debug.alive.callers import outside
from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import function_name
from pytest_eventlet_debug.alive.task_waits import named
from pytest_eventlet_debug.hubs.notes import ENDED
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import file_name
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.code_places import stand_in
from pytest_eventlet_debug.system.handler_errors import put_off

try:
    from pytest_eventlet_debug.alive._heap import type_modified as _type_modified
except ImportError:  # there was no compiler

    def _type_modified(kind: type, /) -> None:
        import ctypes  # with the 600 objects that each full collection looks at then

        ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


#: The last ones of a test that are kept.
MAX_ENDINGS = 10

_HUB_TASK = "Hub.run.<locals>"
# What these cancel as they end is shown as it was before: see CancelledTaskWatch.
_CLEANERS = ("runners.py", "taskgroups.py")


class Ending(msgspec.Struct, frozen=True):
    """A task that was cancelled, or a greenthread that was killed."""

    #: Such as ``task Task-2`` or ``greenthread serve``.
    what: str
    #: ``cancelled`` or ``killed``.
    verb: str
    #: The line that did it: the nearest one that is not of asyncio or eventlet.
    place: Frame
    #: What runs there: ``the test``, ``the hub`` or ``greenthread serve``.
    by: str


# Common to all watches: dumps and leaks may both be asked for, and only one of them wraps.
# Tuples of texts and numbers alone, which the garbage collector stops to count: a test may.
_kept: deque[tuple[str, str, str, str, int, str]] = deque(maxlen=MAX_ENDINGS)


class EndingWatch(FunctionWatch):
    """Wraps ``Task.cancel()`` and ``greenthread.kill()`` until :meth:`stop`.

    Either costs about 11 us more. ``GreenThread.kill()`` goes through ``greenthread.kill()``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._methods: list[tuple[type, Any]] = []
        self._library: tuple[str, ...] = (OURS,)

    def _forget(self) -> None:
        _kept.clear()

    def look_again(self) -> None:
        """Wrap what has been imported since."""
        tasks: Any = sys.modules.get("asyncio.tasks")
        kind = getattr(tasks, "Task", None)
        if isinstance(kind, type) and not self._methods and self._wrap_method(kind):
            self._library += _folder(tasks)
        super().look_again()

    def _wrap_all(self) -> None:
        module = sys.modules.get("eventlet.greenthread")
        original = getattr(module, "kill", None)
        for owner in (module, sys.modules.get("eventlet")):
            if getattr(owner, "kill", None) is original:
                self._wrap(owner, "kill", self._killing)
        if self._originals:
            self._library += _folder(module)

    def stop(self) -> None:
        """Leave asyncio and eventlet as they were."""
        super().stop()
        for kind, original in self._methods:
            _set_cancel(kind, original)
        self._methods.clear()

    def last(self) -> tuple[Ending, ...]:
        """Return what was cancelled and killed in this test, the last one last."""
        return tuple(
            Ending(what, verb, Frame(filename, lineno, function), by)
            for what, verb, by, filename, lineno, function in list(_kept)
        )

    def _wrap_method(self, kind: type) -> bool:
        original = kind.__dict__.get("cancel")
        if type(original) is not types.MethodDescriptorType:
            return False
        if not _set_cancel(kind, self._cancelling(original)):
            fallbacks.warn(
                "Who cancels a task stays unknown: Task.cancel() cannot be replaced here"
            )
            return False
        self._methods.append((kind, original))
        return True

    def _cancelling(self, original: Any) -> Any:
        def cancel(task: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            asked = original(task, *args, **kwargs)
            if asked:
                self._note(task, "cancelled")
            return asked

        return stand_in(cancel, original)

    def _killing(self, original: Any) -> Any:
        def kill(g: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            self._note(g, "killed")  # before it: the call switches to the greenthread
            return original(g, *args, **kwargs)

        return kill

    def _note(self, thing: Any, verb: str) -> None:
        try:
            if verb == "killed" and thing.dead:
                return
            caller = sys._getframe(2)
            # A task that is cancelled cancels the one that it waits for.
            while caller.f_code.co_filename == __file__ and caller.f_back is not None:
                caller = caller.f_back
            if file_name(caller.f_code.co_filename) in _CLEANERS:
                return
            if verb == "cancelled" and _is_wait_of_hub(thing, caller):
                return
            frame = outside(caller, self._library) or caller
            setattr(thing, ENDED, (frame.f_code, frame.f_lineno))
            code = frame.f_code
            place = code.co_filename, frame.f_lineno, function_name(code)
            _kept.append((_name(thing, verb), verb, _runner(caller), *place))
        except Exception as error:
            put_off(error)  # or one with slots, or a mock; who ended it stays unknown


def _name(thing: Any, verb: str) -> str:
    if verb == "cancelled":
        return named(thing)
    frame = thing.gr_frame
    if frame is None:
        return "a greenthread that had not begun"
    return f"greenthread {switches.function_at_bottom(frame)}"


def _runner(frame: types.FrameType) -> str:
    outer: types.FrameType | None = frame
    while outer is not None:
        code = outer.f_code
        if code.co_name == "pytest_pyfunc_call" or "__unittest" in outer.f_globals:
            return _current_task() or "the test"
        if HUBS in code.co_filename and code.co_name.endswith("run"):
            return _current_task() or "the hub"
        if is_handle(code):
            return _current_task() or "a callback of the loop"
        outer = outer.f_back
    return f"greenthread {switches.function_at_bottom(frame)}"


def _is_wait_of_hub(task: Any, caller: types.FrameType) -> bool:
    """Say whether a task is cancelled because the asyncio hub has waited for long enough.

    The hub waits for its next timer in ``wait_for()``, which cancels the hub's own task for that,
    or up to Python 3.11 one that it has made.
    """
    if caller.f_code.co_name == "_on_timeout":
        return is_task_of_hub(task)
    wait_for = caller.f_back
    hub = wait_for.f_back if wait_for is not None else None
    return hub is not None and hub.f_code.co_name == "async_run" and HUBS in hub.f_code.co_filename


def is_task_of_hub(task: Any) -> bool:
    """Say whether a task is what the asyncio hub itself runs as."""
    return _HUB_TASK in getattr(task.get_coro(), "__qualname__", "")


def _current_task() -> str | None:
    """Return the task that runs, if there is one that is not eventlet's own."""
    try:
        task = sys.modules["asyncio.tasks"].current_task()
    except (KeyError, RuntimeError):
        return None
    if task is None or is_task_of_hub(task):
        return None
    return named(task)


def _folder(module: Any) -> tuple[str, ...]:
    path = getattr(module, "__file__", None)
    return (folder_of(path),) if type(path) is str else ()


def _set_cancel(kind: type, method: Any) -> bool:
    """Replace a method of a class of tasks that is written in C; return whether that was possible.

    Such classes are immutable, and have no other place where each call passes.
    """
    (methods,) = gc.get_referents(kind.__dict__) or (None,)
    if type(methods) is not dict or methods.get("cancel") is not kind.__dict__.get("cancel"):
        return False
    methods["cancel"] = method
    _type_modified(kind)
    return kind.__dict__.get("cancel") is method
