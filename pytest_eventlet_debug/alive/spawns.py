"""Note where greenthreads are spawned and timeouts started, while dumps or leaks are asked for."""

from __future__ import annotations

import sys
from typing import Any

from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.handler_errors import put_off

#: An attribute of greenlets, and of the timers of timeouts: the code and line that spawned or
#: started them, where that was watched.
SITE = "_eventlet_debug_spawned"


class SpawnWatch(FunctionWatch):
    """Wraps what every spawn of eventlet goes through.

    That is ``GreenThread.__init__()`` and ``greenthread._spawn_n()``: ``spawn()`` itself has been
    imported into other modules by then. And ``Timeout.start()``, through which each timeout goes.
    Each costs about 2 us more.
    """

    def __init__(self) -> None:
        super().__init__()
        self._library: tuple[str, ...] = ()

    def _wrap_all(self) -> None:
        module = sys.modules.get("eventlet.greenthread")
        kind = getattr(module, "GreenThread", None)
        path = getattr(module, "__file__", None)
        if not isinstance(kind, type) or type(path) is not str:
            return
        self._library = (folder_of(path), folder_of(__file__))
        self._wrap(kind, "__init__", self._making)
        self._wrap(module, "_spawn_n", self._spawning)
        timeout = getattr(sys.modules.get("eventlet.timeout"), "Timeout", None)
        self._wrap(timeout, "start", self._starting)

    def _making(self, original: Any) -> Any:
        def __init__(greenthread: Any, *args: Any, **kwargs: Any) -> None:
            __tracebackhide__ = True
            original(greenthread, *args, **kwargs)
            self._note(greenthread)

        return __init__

    def _spawning(self, original: Any) -> Any:
        def _spawn_n(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            spawned = original(*args, **kwargs)
            if type(spawned) is tuple:
                self._note(spawned[-1])
            return spawned

        return _spawn_n

    def _starting(self, original: Any) -> Any:
        def start(timeout: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            started = original(timeout, *args, **kwargs)
            timer = getattr(timeout, "__dict__", {}).get("timer")
            if timer is not None:  # it never expires
                self._note(timer)
            return started

        return start

    def _note(self, thing: Any) -> None:
        try:
            frame = outside_of(self._library, sys._getframe(2))
            if frame is not None:
                setattr(thing, SITE, (frame.f_code, frame.f_lineno))
        except Exception as error:
            put_off(error)  # or one with slots; its site stays unknown
