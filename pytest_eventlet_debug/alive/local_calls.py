"""Note what a hub drops with the greenthread that asked for it, while dumps are asked for."""

from __future__ import annotations

import sys
from typing import Any

from pytest_eventlet_debug.alive.function_watch import FirstSeenWatch
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.spawns import SITE
from pytest_eventlet_debug.system.handler_errors import put_off


class LocalCallWatch(FirstSeenWatch):
    """Wraps the call of timers that end with the greenthread in which they were made."""

    def _wrap_all(self) -> None:
        kind = getattr(sys.modules.get("eventlet.hubs.timer"), "LocalTimer", None)
        self._wrap(kind, "__call__", self._calling)

    def _calling(self, original: Any) -> Any:
        def __call__(timer: Any, *args: Any) -> Any:
            __tracebackhide__ = True
            try:
                if not (self._first or timer.called) and timer.greenlet.dead:
                    self._first = _dropped(*timer.tpl[:2])
            except Exception as error:
                put_off(error)  # or a timer that was cancelled; what is dropped stays unknown
            return original(timer, *args)

        return __call__


def _dropped(call: Any, arguments: tuple[Any, ...]) -> str:
    site = getattr(getattr(call, "__self__", None), SITE, None)
    where = f", spawned at {Frames().at(*site).where}," if type(site) is tuple else ""
    is_start = getattr(call, "__name__", "") == "switch" and arguments and callable(arguments[0])
    name = callable_name(arguments[0] if is_start else call)
    return (
        f"{name}{where} was not called when it was due: what spawn_after_local() or "
        "call_after_local() is to call is dropped if the greenthread that asked for it has ended"
    )
