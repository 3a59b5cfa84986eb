"""Note who keeps the loop of the asyncio hub from hearing of signals."""

from __future__ import annotations

import signal
import sys
import types
from typing import Any

from pytest_eventlet_debug.alive.callers import user_line
from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.system.handler_errors import put_off


class LoopSignalWatch(FunctionWatch):
    """Wraps ``signal.set_wakeup_fd()``."""

    def __init__(self) -> None:
        super().__init__()
        #: The descriptor that signals were written to for the hub's loop until somebody took that
        #: away, the one that they were then, and the line that did it; in this test.
        self._deaf: tuple[int, int, str] | None = None
        self._woken = -1

    def _forget(self) -> None:
        self._deaf = None

    def _wrap_all(self) -> None:
        module = sys.modules.get("signal")
        is_own = type(getattr(module, "set_wakeup_fd", None)) is types.BuiltinFunctionType
        if is_own and "asyncio.base_events" in sys.modules:
            self._wrap_any(module, "set_wakeup_fd", self._waking)

    def told(self) -> str:
        """Say who has kept the hub's loop from hearing of signals in this test, or ``""``."""
        loop = getattr(own_hub(), "loop", None)
        numbers = [*(getattr(loop, "_signal_handlers", None) or ())]
        if self._deaf is None or not numbers:
            return ""
        before, now, where = self._deaf
        if before != _wakes(own_hub()) or self._woken == before:
            return ""
        names = " and ".join(each.name for each in map(signal.Signals, numbers))
        return (
            f"the hub's loop, whose add_signal_handler() is to handle {names}, has heard of no "
            f"signal since signal.set_wakeup_fd({now}){where}: there is only one such descriptor, "
            f"and the loop's was {before}"
        )

    def _waking(self, original: Any) -> Any:
        def set_wakeup_fd(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            before = original(*args, **kwargs)
            try:
                now = args[0] if args else -1
                if now != before and before == _wakes(own_hub()):
                    frame = sys._getframe(1)
                    self._deaf = before, now, f" at {user_line(frame)}"
                self._woken = now
            except Exception as error:
                put_off(error)  # who took it stays unknown
            return before

        return set_wakeup_fd


def _wakes(hub: Any) -> int | None:
    """Return the descriptor that signals are to be written to for the loop of a hub."""
    fileno = getattr(getattr(getattr(hub, "loop", None), "_csock", None), "fileno", None)
    return fileno() if fileno is not None else None
