"""Run tests under several eventlet hubs and record what each test does.

PYTEST_DONT_REWRITE: a child process imports this package before pytest does, which pytest
would otherwise warn of, and under ``-W error`` not start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_eventlet_debug.warning_types import EventletDebugWarning
    from pytest_eventlet_debug.warning_types import EventletFallbackWarning
    from pytest_eventlet_debug.warning_types import EventletLeakWarning
    from pytest_eventlet_debug.warning_types import EventletStallWarning

__all__ = [
    "EventletDebugWarning",
    "EventletFallbackWarning",
    "EventletLeakWarning",
    "EventletStallWarning",
    "__version__",
]

__version__ = "1.0.0rc1"


def __getattr__(name: str) -> object:
    # The helper process imports this package where there is no pytest.
    if name in __all__:
        from pytest_eventlet_debug import warning_types

        return getattr(warning_types, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
