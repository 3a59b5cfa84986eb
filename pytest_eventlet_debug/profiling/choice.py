"""Which engine serves here; only that one is imported."""

from __future__ import annotations

from collections.abc import Callable

from pytest_eventlet_debug.profiling import trial
from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.clock import ClockName
from pytest_eventlet_debug.profiling.clock import make_clock
from pytest_eventlet_debug.profiling.engine import Engine
from pytest_eventlet_debug.profiling.engine import EngineName
from pytest_eventlet_debug.profiling.greenlet_engine import GreenletEngine


def make_engine(name: EngineName = "greenlet", clock: ClockName = "run") -> Engine:
    """Return a new engine.

    :param name: ``greenlet`` for one call stack for each greenlet, ``plain`` for cProfile.
    :param clock: what to measure; the plain engine has no say in whose time it is.
    """
    return engine_kind(name)(make_clock(clock))


def engine_kind(name: EngineName) -> Callable[[Clock], Engine]:
    """Return what makes the engines that an option asks for.

    The engine in C rests on details of CPython, and so on a trial, once in a process.
    """
    if name == "plain":
        from pytest_eventlet_debug.profiling.plain import PlainEngine

        return PlainEngine
    native = native_engine()
    if native is not None and not trial.trouble(native):
        return native
    from pytest_eventlet_debug.profiling.fallback import FallbackEngine

    return FallbackEngine


def trouble_of_native() -> str:
    """Say what is wrong with the engine in C, or ``""``; also where there is none."""
    native = native_engine()
    return trial.trouble(native) if native is not None else ""


def native_engine() -> type[GreenletEngine] | None:
    """Return the engine in C; ``None`` where there was no compiler to build it."""
    try:
        from pytest_eventlet_debug.profiling.native import NativeEngine
    except ImportError:
        return None
    return NativeEngine
