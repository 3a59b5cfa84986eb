"""Note an exception that ended a greenthread and was not printed, while dumps are asked for."""

from __future__ import annotations

import gc
import sys
import types
from typing import Any
import weakref

from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.hubs.reasons import raised
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import stand_in
from pytest_eventlet_debug.system.handler_errors import put_off

_MOST = 5
_LET_OUT = ("GreenletExit", "KeyboardInterrupt", "SystemExit")


class HiddenErrorWatch(FunctionWatch):
    """Wraps what hubs do with an exception that comes to them.

    They print it, unless ``eventlet.debug.hub_exceptions(False)`` was called, as servers do. So do
    pools with that of what ``spawn_n()`` calls.
    """

    def __init__(self) -> None:
        super().__init__()
        #: What ended, in words, and the greenthread, if it was one.
        self._seen: list[tuple[str, weakref.ref[Any] | None]] = []

    def told(self) -> str:
        """Return what nobody can have been told of any more in this test, or ``""``."""
        for words, greenthread in self._seen:
            # Who holds it may ask how it has ended.
            if greenthread is None or not _is_held(greenthread):
                return words
        return ""

    def _forget(self) -> None:
        self._seen.clear()

    def _wrap_all(self) -> None:
        self._wrap_of_hub("squelch_timer_exception", self._squelching)
        self._wrap_of_hub("squelch_exception", _squelching_event)
        pool = getattr(sys.modules.get("eventlet.greenpool"), "GreenPool", None)
        self._wrap(pool, "spawn_n", self._spawning)

    def _spawning(self, original: Any) -> Any:
        def spawn_n(pool: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            prints = getattr(sys.modules.get("eventlet.greenpool"), "DEBUG", True)
            return original(pool, function if prints else self._noting(function), *args, **kwargs)

        return spawn_n

    def _noting(self, function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                return function(*args, **kwargs)
            except BaseException as error:
                # A pool lets out the others.
                if type(error).__name__ not in _LET_OUT and len(self._seen) < _MOST:
                    self._seen.append((_of_pool(error), None))
                raise

        return stand_in(call, function) if type(function) is types.FunctionType else call

    def _squelching(self, original: Any) -> Any:
        def squelch_timer_exception(hub: Any, timer: Any, exc_info: Any) -> Any:
            __tracebackhide__ = True
            try:
                if len(self._seen) < _MOST and not hub.debug_exceptions:
                    self._note(exc_info[1])
                _leave_out_ours(exc_info[2])
            except Exception as error:
                put_off(error)  # or a hub of another's making; what ended stays unknown
            return original(hub, timer, exc_info)

        return squelch_timer_exception

    def _note(self, error: BaseException) -> None:
        words = (
            f"a greenthread, or a call of the hub, ended with {raised(error)}; "
            "eventlet.debug.hub_exceptions(False) keeps that from being printed"
        )
        greenthread = None
        step = error.__traceback__
        while step is not None:
            owner = step.tb_frame.f_locals.get("self")
            if step.tb_frame.f_code.co_name == "main" and hasattr(owner, "_exit_event"):
                greenthread = weakref.ref(owner)
            step = step.tb_next
        self._seen.append((words, greenthread))


def _of_pool(error: BaseException) -> str:
    return (
        f"what GreenPool.spawn_n() called ended with {raised(error)}; eventlet.greenpool.DEBUG, "
        "which hub_exceptions() sets, keeps that from being printed"
    )


def _squelching_event(original: Any) -> Any:
    def squelch_exception(hub: Any, fileno: Any, exc_info: Any) -> Any:
        __tracebackhide__ = True
        try:
            _leave_out_ours(exc_info[2])
        except Exception as error:
            put_off(error)  # or a hub of another's making; what it prints has more lines
        return original(hub, fileno, exc_info)

    return squelch_exception


def _leave_out_ours(step: types.TracebackType | None) -> None:
    """Have a traceback that a hub prints skip what stands in for functions of eventlet's."""
    while step is not None:
        following = step.tb_next
        while following is not None and following.tb_frame.f_code.co_filename.startswith(OURS):
            following = following.tb_next
        if following is not None and following is not step.tb_next:
            step.tb_next = following
        step = step.tb_next


def _is_held(reference: weakref.ref[Any]) -> bool:
    """Say whether others hold a greenthread than the frames of what has ended it."""
    referrers = gc.get_referrers(reference())
    return reference() is not None and not all(map(_is_own, referrers))


def _is_own(referrer: object) -> bool:
    """Say whether it is a frame of ``main()``, its variables, or what the hub called."""
    if type(referrer) is dict:
        return referrer.keys() == {"self", "function", "args", "kwargs"}
    if type(referrer) is not types.FrameType:
        return type(referrer) is types.BuiltinMethodType
    code = referrer.f_code
    return code.co_name == "main" or code.co_filename == __file__
