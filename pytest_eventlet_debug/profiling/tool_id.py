"""A tool id of ``sys.monitoring`` for a profiler, on Python 3.12 and newer.

cProfile always takes id 2, which stays free for the code under test.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import sys

from pytest_eventlet_debug.profiling.engine import ProfilingError

assert sys.version_info >= (3, 12)

_monitoring = sys.monitoring
_EVENTS = _monitoring.events

#: The tool ids that sys.monitoring leaves without a meaning.
UNNAMED_IDS = (4, 3)

NAME = "pytest-eventlet-debug"

#: The events that cProfile asks for: a call begins, a call ends, and both of those in C.
ASKED = (
    *(_EVENTS.PY_START, _EVENTS.PY_RESUME, _EVENTS.PY_THROW),
    *(_EVENTS.PY_RETURN, _EVENTS.PY_YIELD, _EVENTS.PY_UNWIND),
    *(_EVENTS.CALL, _EVENTS.C_RETURN, _EVENTS.C_RAISE),
)


def find() -> int:
    """Return an id that nobody uses.

    :raises ProfilingError: there is none.
    """
    for tool in UNNAMED_IDS:
        if _monitoring.get_tool(tool) is None:
            return tool
    raise ProfilingError(f"the tool ids {UNNAMED_IDS} of sys.monitoring are in use")


def take(callbacks: Sequence[Callable[..., object]]) -> int:
    """Take such an id and register callbacks under it, which hear nothing yet.

    :param callbacks: one for each of the events ``ASKED``.
    :raises ProfilingError: all ids are in use.
    """
    tool = find()
    _monitoring.use_tool_id(tool, NAME)
    for event, callback in zip(ASKED, callbacks, strict=True):
        _monitoring.register_callback(tool, event, callback)
    return tool


def give_back(tool: int) -> None:
    """Have no more callbacks under an id, and leave it to others."""
    for event in ASKED:
        _monitoring.register_callback(tool, event, None)
    _monitoring.free_tool_id(tool)
