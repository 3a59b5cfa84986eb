"""Note a coroutine that a test made and nobody awaited, while dumps are asked for.

An ``async def`` function that is called as any other only makes a coroutine, as where
``eventlet.spawn()`` or a thread calls it: nothing of it runs, and nothing raises.
"""

from __future__ import annotations

import inspect
import sys
import types
from typing import Any
import weakref

from pytest_eventlet_debug.alive.callers import is_dropping
from pytest_eventlet_debug.alive.function_watch import FirstSeenWatch
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.spawns import SITE
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.handler_errors import put_off

_WARN = "_warn_unawaited_coroutine"
#: Coroutines that greenthreads returned, in one test.
_MOST = 20


class UnawaitedWatch(FirstSeenWatch):
    """Stands before what Python calls of ``warnings`` for a coroutine that was never awaited.

    And before ``Event.send()``, by which a greenthread ends; it costs 0.3 us more.
    """

    def __init__(self) -> None:
        super().__init__()
        #: What greenthreads of this test returned: the coroutine, its id, its code, and in words
        #: which greenthread it was.
        self._returned: list[tuple[weakref.ref[Any], int, types.CodeType, str]] = []

    def told(self) -> str:
        """Return what was never awaited in this test, or ``""``."""
        waiting = (_say(each, by) for ref, *_, by in self._returned if _is_new(each := ref()))
        return self._first or next(waiting, "")

    def _forget(self) -> None:
        super()._forget()
        self._returned.clear()

    def _wrap_all(self) -> None:
        event = getattr(sys.modules.get("eventlet.event"), "Event", None)
        self._wrap(event, "send", self._sending)
        module = sys.modules.get("warnings")
        original = getattr(module, _WARN, None)
        if self._originals and type(original) is types.FunctionType:
            self._originals.append((module, _WARN, original))
            setattr(module, _WARN, self._before(original))

    def _before(self, original: Any) -> Any:
        """Return what notes a coroutine, and then has *original* called as if by who let it go.

        The warning is about the line that calls that, so there must be no frame of ours.
        """

        class Noted:
            __init__ = staticmethod(original)

            def __new__(cls, coroutine: Any) -> Any:
                try:
                    if not self._first:
                        self._first = self._let_go(coroutine, sys._getframe(1))
                except Exception as error:
                    put_off(error)  # who let it go stays unknown
                return object.__new__(cls)

        return Noted

    def _sending(self, original: Any) -> Any:
        def send(event: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            try:
                if args and type(args[0]) is types.CoroutineType and len(self._returned) < _MOST:
                    greenthread = switches.current()
                    if getattr(greenthread, "_exit_event", None) is event:
                        self._note(args[0], greenthread)
            except Exception as error:
                put_off(error)  # what it has returned stays unknown
            return original(event, *args, **kwargs)

        return send

    def _note(self, coroutine: Any, greenthread: Any) -> None:
        site = getattr(greenthread, SITE, None)
        where = f"spawned at {Frames().at(*site).where} " if type(site) is tuple else ""
        by = f", which a greenthread {where}has returned"
        self._returned.append((weakref.ref(coroutine), id(coroutine), coroutine.cr_code, by))

    def _let_go(self, coroutine: Any, frame: types.FrameType) -> str:
        """Say who made a coroutine that is let go, if that was in this test for sure."""
        if type(coroutine) is not types.CoroutineType:
            return ""
        for reference, number, code, by in self._returned:
            # Its weak references are gone by now.
            if number == id(coroutine) and code is coroutine.cr_code and reference() is None:
                return _say(coroutine, by)
        # Else it may be an earlier test's, which a traceback or a cycle has kept until now.
        if not is_dropping(frame):
            return ""
        at = Frames().describe(frame)
        library = (STANDARD_LIBRARY, of_eventlet() or STANDARD_LIBRARY)
        if frame.f_code.co_filename.startswith(library):
            return _say(coroutine, f", which was returned to {at.function}()")
        return _say(coroutine, f", which was made at {at.where}")


def _is_new(coroutine: Any) -> bool:
    return coroutine is not None and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED


def _say(coroutine: Any, by: str) -> str:
    code = coroutine.cr_code
    where = Frames().at(code, code.co_firstlineno).location.removeprefix(STANDARD_LIBRARY)
    return (
        f"the coroutine {coroutine.__qualname__}() ({where}){by}, was never awaited: none of its "
        "code has run"
    )
