"""Note who takes items from pools of ``eventlet.pools``, while dumps are asked for."""

from __future__ import annotations

import sys
from typing import Any
import weakref

from pytest_eventlet_debug.alive.function_watch import FunctionWatch
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.handler_errors import put_off

#: An attribute of pools: of each item in use its id, which is that of a later one, too, if it was
#: lost; the code and line that got it; and a weak reference to the greenlet. The last one last.
TAKEN = "_eventlet_debug_taken"


class PoolWatch(FunctionWatch):
    """Wraps ``Pool.get()`` and ``Pool.put()``; either costs about 1 us more."""

    def _wrap_all(self) -> None:
        module = sys.modules.get("eventlet.pools")
        path = getattr(module, "__file__", None)
        kind = getattr(module, "Pool", None)
        if type(path) is str:
            library = folder_of(path)
            self._wrap(kind, "get", lambda get: _getting(get, library))
            self._wrap(kind, "put", _putting)


def _getting(original: Any, library: str) -> Any:
    def get(pool: Any) -> Any:
        __tracebackhide__ = True
        item = original(pool)
        try:
            frame = outside_of(library, sys._getframe(1))
            if frame is not None:
                taker = weakref.ref(switches.current())
                taken = vars(pool).setdefault(TAKEN, [])
                taken.append((id(item), frame.f_code, frame.f_lineno, taker))
        except Exception as error:
            put_off(error)  # or a pool with slots; who has the item stays unknown
        return item

    return get


def _putting(original: Any) -> Any:
    def put(pool: Any, item: Any) -> Any:
        __tracebackhide__ = True
        try:
            taken = vars(pool).get(TAKEN, [])
            # Wrapped anew, as by db_pool, it is the one that this greenlet got last.
            same = [each for each in taken if each[0] == id(item)] or [
                each for each in taken if each[3]() is switches.current()
            ]
            taken.remove(same[-1]) if same else taken.clear()
        except Exception as error:
            put_off(error)
        return original(pool, item)

    return put


def holders(pool: Any) -> list[tuple[str, Any]]:
    """Return where each item in use was taken, and the greenlet that took it if it still lives.

    :return: nothing, unless it is known of all of them.
    """
    taken = vars(pool).get(TAKEN, [])
    if len(taken) != getattr(pool, "current_size", None):
        return []
    return [(Frames().at(code, line).where, reference()) for _, code, line, reference in taken]
