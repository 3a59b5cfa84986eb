"""Note that a test has replaced what the asyncio hub calls to wait, while dumps are asked for."""

from __future__ import annotations

import sys
from typing import Any

from pytest_eventlet_debug.alive.function_watch import FirstSeenWatch
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.system.handler_errors import put_off

#: Functions of asyncio in which the hub waits, and lets its loop look at descriptors.
_CALLED = ("sleep", "wait_for")


class ReplacedCallWatch(FirstSeenWatch):
    """Wraps ``BaseHub.prepare_timers()``, which a hub calls before it waits.

    A mock that does not wait harms all greenthreads, and nothing raises. It costs 0.3 us more.
    """

    def _wrap_all(self) -> None:
        self._wrap_of_hub("prepare_timers", self._preparing)

    def _preparing(self, original: Any) -> Any:
        def prepare_timers(hub: Any) -> Any:
            __tracebackhide__ = True
            try:
                if not self._first and hasattr(hub, "sleep_event"):
                    self._first = _replaced()
            except Exception as error:
                put_off(error)  # what was replaced stays unknown
            return original(hub)

        return prepare_timers


def _replaced() -> str:
    asyncio, tasks = sys.modules["asyncio"], sys.modules["asyncio.tasks"]
    for name in _CALLED:
        now = getattr(asyncio, name)
        if now is not getattr(tasks, name):
            by = callable_name(now).removesuffix(" object")
            return (
                f"asyncio.{name}(), in which the asyncio hub waits, was replaced by {by}: the hub "
                "sees events only if that waits, too"
            )
    return ""
