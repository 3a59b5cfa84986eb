"""Note who acquires semaphores and locks of eventlet, while dumps are asked for."""

from __future__ import annotations

import sys
import types
from typing import Any
import weakref

from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.handler_errors import put_off

#: An attribute of semaphores: who has acquired them and not released them, as a list of the code
#: and line, and a weak reference to the greenlet. ``None`` for one that is released by those who
#: have not acquired it: as a signal, it has no holder.
ACQUIRED = "_eventlet_debug_acquired"

#: Modules of the standard library that acquire for their callers.
CALLERS = tuple(f"{STANDARD_LIBRARY}{name}" for name in ("threading.py", "logging/", "queue.py"))


class AcquisitionWatch(FunctionWatch):
    """Wraps ``Semaphore.acquire()`` and ``Semaphore.release()``; the two cost 2 us more.

    Patched locks of threads are such semaphores.
    """

    def _wrap_all(self) -> None:
        module = sys.modules.get("eventlet.semaphore")
        path = getattr(module, "__file__", None)
        kind = getattr(module, "Semaphore", None)
        if type(path) is str:
            library = (folder_of(path), folder_of(__file__), *CALLERS)
            self._wrap(kind, "acquire", lambda acquire: _acquiring(acquire, library))
            self._wrap(kind, "release", _releasing)


def _acquiring(original: Any, library: tuple[str, ...]) -> Any:
    is_library: dict[str, bool] = {}

    def acquire(semaphore: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        acquired = original(semaphore, *args, **kwargs)
        try:
            if acquired:
                noted = semaphore.__dict__.setdefault(ACQUIRED, [])
                if noted is not None:
                    caller = sys._getframe(1)
                    frame: types.FrameType | None = caller
                    # As outside_of() does, which would be half of the cost.
                    while frame is not None:
                        name = frame.f_code.co_filename
                        if name not in is_library:
                            is_library[name] = name.startswith(library)
                        if not is_library[name]:
                            break
                        frame = frame.f_back
                    frame = frame or caller
                    by = weakref.ref(switches.current())
                    noted.append((frame.f_code, frame.f_lineno, by))
        except Exception as error:
            put_off(error)  # or one with slots; who holds it stays unknown
        return acquired

    return acquire


def _releasing(original: Any) -> Any:
    def release(semaphore: Any, *args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        try:
            noted = semaphore.__dict__.get(ACQUIRED)
            if not noted:
                semaphore.__dict__[ACQUIRED] = None
            elif len(noted) == 1:
                noted.clear()
            else:
                current = switches.current()
                same = [number for number, each in enumerate(noted) if each[2]() is current]
                del noted[same[-1] if same else 0]
        except Exception as error:
            put_off(error)
        return original(semaphore, *args, **kwargs)

    return release


def is_signal(semaphore: Any) -> bool:
    """Say whether others than those who acquire a semaphore release it."""
    return getattr(semaphore, "__dict__", {}).get(ACQUIRED, ()) is None


def holders(semaphore: Any) -> list[tuple[types.CodeType, int, Any]]:
    """Return where each that holds a semaphore acquired it, and the greenlet if it still lives."""
    noted = getattr(semaphore, "__dict__", {}).get(ACQUIRED) or ()
    return [(code, line, reference()) for code, line, reference in noted]
