"""Note who takes from the asyncio hub what its loop was to call for a descriptor."""

from __future__ import annotations

import sys
import types
from typing import Any

from pytest_eventlet_debug.alive.callers import WATCHED_ASYNCIO
from pytest_eventlet_debug.alive.function_watch import FirstSeenWatch
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.handler_errors import put_off


class LoopReaderWatch(FirstSeenWatch):
    """Wraps what adds and removes readers and writers of a loop."""

    def _wrap_all(self) -> None:
        kind = getattr(sys.modules.get("asyncio.selector_events"), "BaseSelectorEventLoop", None)
        for name in ("_add_reader", "_remove_reader", "_add_writer", "_remove_writer"):
            self._wrap(kind, name, self._changing)

    def _changing(self, original: Any) -> Any:
        def change(loop: Any, fd: Any, *args: Any) -> Any:
            __tracebackhide__ = True
            try:
                # The loop's own add_reader() is between.
                caller = sys._getframe(1).f_back
                if not self._first and caller is not None and HUBS not in caller.f_code.co_filename:
                    self._first = _taken_from_hub(loop, fd, original.__name__, caller)
            except Exception as error:
                put_off(error)  # or a hub of another's making; who has taken it stays unknown
            return original(loop, fd, *args)

        return change


def _taken_from_hub(loop: Any, fd: int, name: str, caller: types.FrameType) -> str:
    """Say who ends that a loop calls the hub for a descriptor; ``""`` if it goes on."""
    hub: Any = own_hub()
    own: Any = getattr(hub, "loop", None)
    if own is not loop:
        return ""
    event = "read" if "reader" in name else "write"
    listener = hub.listeners[event].get(fd)
    key = own._selector.get_map().get(fd)
    handle = key.data[event == "write"] if key is not None else None
    if listener is None or getattr(handle, "_callback", None) != hub._file_cb:
        return ""
    frame = outside_of(WATCHED_ASYNCIO, caller) or caller
    who = f"{name.removeprefix('_')}({fd}) at {Frames().describe(frame).where}"
    how = "takes the place of" if name.startswith("_add") else "removes"
    return (
        f"{who} {how} what wakes {_waiter(listener)}: it waits to {event} on that descriptor, "
        "and the asyncio hub has one callback of its loop for each"
    )


def _waiter(listener: Any) -> str:
    """Return in words which greenthread waits by a listener, and where."""
    frame = getattr(listener.greenlet, "gr_frame", None)
    if frame is None:
        return "the hub"
    own = outside_of((of_eventlet() or STANDARD_LIBRARY, STANDARD_LIBRARY), frame) or frame
    name = switches.function_at_bottom(frame)
    return f"greenthread {name} at {Frames().describe(own).where}"
