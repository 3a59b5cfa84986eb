"""Note what a signal handler or another thread has a hub do that it does not see, as it waits."""

from __future__ import annotations

from _thread import get_ident as _ident
import sys
import types
from typing import Any

from pytest_eventlet_debug.alive.callers import outside
from pytest_eventlet_debug.alive.function_watch import FirstSeenWatch
from pytest_eventlet_debug.alive.greenlets import root_of
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.hubs.loop_reasons import handled_by
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.handler_errors import handled
from pytest_eventlet_debug.system.handler_errors import put_off

#: Seconds by which a call must be late.
LATE = 0.1
#: Frames of a handler, counted from the innermost one.
_MOST_FRAMES = 20
#: What waits in the kernel, in modules of hubs and in that of selectors.
_WAITS = ("do_poll", "wait", "select")
_SELECTORS = f"{STANDARD_LIBRARY}selectors.py"


class LateCallWatch(FirstSeenWatch):
    """Wraps ``BaseHub.add_timer()``; it costs 0.6 us more.

    Python runs a signal handler amid a system call that waits, and then goes on with that, for as
    long as was left (PEP 475). A timer that the handler has added is seen only afterwards.
    """

    def _wrap_all(self) -> None:
        self._library = (OURS, of_eventlet() or OURS)
        self._wrap_of_hub("add_timer", self._adding)

    def _adding(self, original: Any) -> Any:
        def add_timer(hub: Any, timer: Any) -> Any:
            __tracebackhide__ = True
            due = original(hub, timer)
            try:
                if self._first:
                    pass
                elif own_hub() is not hub and root_of(hub.greenlet) is not root_of(
                    switches.current()
                ):
                    frame = sys._getframe(1)
                    who = f"thread {thread_name(_ident()) or f'{_ident():#x}'}"
                    at = outside(frame, self._library) or frame
                    self._watch(hub, timer, due, who, at, "another thread")
                elif switches.current() is hub.greenlet:
                    handler = _handler(sys._getframe(1))
                    if handler is not None and (names := handled_by(handler.f_code)):
                        who = f"the handler of {names}"
                        self._watch(hub, timer, due, who, handler, "a handler")
            except Exception as error:
                put_off(error)  # or a hub of another's making; what comes late stays unknown
            return due

        return add_timer

    def _watch(
        self, hub: Any, timer: Any, due: float, who: str, frame: types.FrameType, kind: str
    ) -> None:
        """Learn when the hub next looks at its timers."""
        if "fire_timers" in vars(hub):
            return
        at = Frames().describe(frame)
        call = callable_name(timer.tpl[0])

        def fire_timers(when: float) -> Any:
            __tracebackhide__ = True
            vars(hub).pop("fire_timers", None)
            late = when - due
            if late >= LATE and not self._first:
                self._first = (
                    f"{call}, which {who} at {at.where} had the hub call, came {late:.2f} s late: "
                    f"a hub that waits in the kernel does not see what {kind} schedules until it "
                    "wakes"
                )
            return hub.fire_timers(when)

        hub.fire_timers = fire_timers


def _handler(frame: types.FrameType) -> types.FrameType | None:
    """Return the frame of a signal handler that has interrupted a hub which waits."""
    each: types.FrameType | None = frame
    for _ in range(_MOST_FRAMES):
        outer = each.f_back if each is not None else None
        if each is None or outer is None:
            return None
        code = outer.f_code
        if code.co_name in _WAITS and (HUBS in code.co_filename or code.co_filename == _SELECTORS):
            return each if any(each.f_code is known for _, known in handled()) else None
        each = outer
    return None
