"""Note each ``eventlet.sleep()`` that something else than its timer has ended, and what."""

from __future__ import annotations

import sys
import types
from typing import Any

from pytest_eventlet_debug.alive.function_watch import FirstSeenWatch
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.code_places import shown_path
from pytest_eventlet_debug.system.handler_errors import put_off

#: Seconds by which a sleep must be too short.
EARLY = 0.01


class EarlyWakeWatch(FirstSeenWatch):
    """Wraps ``BaseHub.timer_canceled()``; it costs 0.5 us more.

    A sleep cancels its timer as it ends, for it may have been thrown out of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._sleep: Any = None
        self._folder = ""
        self._count = 0

    def _forget(self) -> None:
        super()._forget()
        self._count = 0

    def _wrap_all(self) -> None:
        module = sys.modules.get("eventlet.greenthread")
        path = getattr(module, "__file__", None)
        sleep = getattr(getattr(module, "sleep", None), "__code__", None)
        if type(sleep) is types.CodeType and type(path) is str:
            self._sleep, self._folder = sleep, folder_of(path)
            self._wrap_of_hub("timer_canceled", self._canceling)

    def told(self) -> str:
        """Return in words what has ended the first sleep of this test too early, or ``""``."""
        more = f" (and {self._count - 1} more)" if self._count > 1 else ""
        return self._first and self._first + more

    def _canceling(self, original: Any) -> Any:
        def timer_canceled(hub: Any, timer: Any) -> Any:
            __tracebackhide__ = True
            try:
                cancel = sys._getframe(1).f_back
                if cancel is not None and cancel.f_code is self._sleep:
                    self._note(hub, timer, cancel)
            except Exception as error:
                put_off(error)  # or a hub of another's making; the sleep goes on as ever
            return original(hub, timer)

        return timer_canceled

    def _note(self, hub: Any, timer: Any, sleep: types.FrameType) -> None:
        thrown = getattr(sys.exc_info()[1], "__traceback__", None)
        if thrown is not None and thrown.tb_frame is sleep:
            return
        due = (at for at, each in (*hub.next_timers, *hub.timers) if each is timer)
        early = next(due, 0.0) - hub.clock()
        if early < EARLY:
            return
        self._count += 1
        if self._first:
            return
        frame = outside_of(self._folder, sleep.f_back)
        where = f" at {_place(frame)}" if frame is not None else ""
        by = _by(getattr(hub.greenlet, "gr_frame", None), switches.current())
        self._first = f"eventlet.sleep({timer.seconds}){where} returned {early:.2f} s too early{by}"


def _by(frame: types.FrameType | None, target: Any) -> str:
    """Say what the hub called that has switched to a greenlet; ``""`` if that is not sure.

    :param frame: where the hub is, which has called it.
    """
    frame = outside_of(OURS, frame)
    if frame is None:
        return ""
    variables, code = frame.f_locals, frame.f_code
    if code.co_filename.endswith("/eventlet/green/select.py"):
        if variables.get("current") is not target:
            return ""
        return (
            ": a select() that had returned has woken it once more, as two of its descriptors, or "
            f"both directions of one, were ready at once ({_place(frame)})"
        )
    if HUBS not in code.co_filename:
        return ""
    fd = variables.get("fileno")
    listener = variables.get("listener", variables.get("listeners", {}).get(fd))  # poll, selects
    call = variables.get("cb", getattr(listener, "cb", None))
    if getattr(call, "__self__", None) is not target:
        return ""
    if code.co_name == "__call__":
        return f": another timer has woken its greenthread ({_place(frame)})"
    return f": a listener for descriptor {fd} has woken it ({_place(frame)})"


def _place(frame: types.FrameType) -> str:
    code = frame.f_code
    file = code.co_filename.removeprefix(STANDARD_LIBRARY)
    at = file.rfind("/eventlet/")
    file = file[at + 1 :] if at >= 0 else shown_path(file)
    return f"{file}:{frame.f_lineno} in {code.co_name}"
