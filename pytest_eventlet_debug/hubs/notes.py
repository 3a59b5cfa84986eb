"""What is noted of loops, tasks, greenlets and events while dumps are asked for."""

from __future__ import annotations

from typing import Final

from pytest_eventlet_debug.hubs.tracebacks import shown

#: An attribute of a loop: what first left its ``run_until_complete()``, in words.
LEFT: Final = "_eventlet_debug_left"

#: An attribute of a loop: the code and line that called its ``stop()`` last, where that was
#: watched; ``None`` for a callback of its own.
STOPPED: Final = "_eventlet_debug_stopped"

#: An attribute of tasks and greenlets: the code and line that cancelled or killed them.
ENDED: Final = "_eventlet_debug_ended"

#: An attribute of executors and loops: the code and line that shut the executor down, where that
#: was watched.
SHUT: Final = "_eventlet_debug_shut"

#: An attribute of events: the code and line that sent them, where that was watched.
SENT: Final = "_eventlet_debug_sent"


def noted(thing: object, name: str) -> str:
    """Return the place that was noted of a thing, such as `` at test_x.py:3 in f``."""
    site = getattr(thing, name, None)
    return f" at {shown(*site)}" if type(site) is tuple else ""
