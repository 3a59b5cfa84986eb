"""Whether an engine works in this interpreter: that in C rests on what is not documented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.clock import make_clock
from pytest_eventlet_debug.profiling.engine import Engine
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.stats import ALL

_found: dict[Callable[[Clock], Engine], str] = {}


def trouble(kind: Callable[[Clock], Engine]) -> str:
    """Profile two greenlets of known behaviour, once in a process with each kind of engine.

    :return: what is wrong, as the beginning of a sentence, or ``""``.
    """
    if kind not in _found:
        _found[kind] = _try(kind)
    return _found[kind]


def _try(kind: Callable[[Clock], Engine]) -> str:
    try:
        callers = _callers(kind(make_clock("run")))
    except ProfilingError:
        return ""  # another profiler is active now: that is for start() to say
    except Exception as error:
        return f"greenlets cannot be profiled here ({type(error).__name__}: {error})"
    expected = {"left": {"one": 2}, "right": {"two": 2}, "one": {}, "two": {}}
    if callers != expected:
        return f"a trial with two greenlets gave wrong callers ({callers})"
    return ""


def _callers(engine: Engine) -> dict[str, dict[str, int]]:
    """Return the calls of each function by its callers, as an engine saw them."""
    import greenlet  # not for those who only load the plugin

    # Compiled, since a profile leaves out the functions of this package.
    names: dict[str, Any] = {}
    exec(compile(_PROGRAM, "<trial>", "exec"), names)
    main = greenlet.getcurrent()
    two = greenlet.greenlet(names["two"])
    one = greenlet.greenlet(names["one"])
    engine.start()
    try:
        one.switch(main)
        two.switch(main)
        one.switch()
        two.switch()
    finally:
        engine.stop()
    found = engine.profile().stats
    return {
        function[2]: {caller[2]: edge[0] for caller, edge in entry[4].items() if caller != ALL}
        for function, entry in found.items()
        if function[0] == "<trial>"
    }


_PROGRAM = """
def left(main):
    main.switch()

def right(main):
    main.switch()

def one(main):
    left(main)
    left(main)

def two(main):
    right(main)
    right(main)
"""
