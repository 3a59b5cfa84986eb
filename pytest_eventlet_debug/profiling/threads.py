"""Notice when a second thread of the operating system starts."""

from __future__ import annotations

import _thread
from collections.abc import Callable
import sys
from typing import Any

#: Where threads are started from. The second is eventlet's copy that it does not patch;
#: eventlet.tpool uses it.
_MODULES = ("threading", "__original_module_threading", "_thread")

_NAMES = (
    *("_start_new_thread", "_start_joinable_thread"),
    *("start_new_thread", "start_new", "start_joinable_thread"),
)

_Builtin = type(_thread.start_new_thread)

_watchers: list[Callable[[], None]] = []
_replaced: list[tuple[object, str, object, object]] = []


def several() -> bool:
    """Say whether there is more than one thread now."""
    return len(sys._current_frames()) > 1


def watch(callback: Callable[[], None]) -> None:
    """Call *callback* before a thread starts, in the thread that starts it."""
    _watchers.append(callback)
    if _replaced:
        return
    for module in map(sys.modules.get, _MODULES):
        for name in _NAMES:
            original = getattr(module, name, None)
            if type(original) is _Builtin:
                ours = _telling(original)
                setattr(module, name, ours)
                _replaced.append((module, name, original, ours))


def unwatch(callback: Callable[[], None]) -> None:
    """Call *callback* no more, if it would have been."""
    if callback in _watchers:
        _watchers.remove(callback)
    if _watchers:
        return
    while _replaced:
        module, name, original, ours = _replaced.pop()
        if getattr(module, name, None) is ours:
            setattr(module, name, original)


def _telling(original: Callable[..., Any]) -> Callable[..., Any]:
    def start_thread(*args: Any, **kwargs: Any) -> Any:
        for callback in list(_watchers):
            callback()
        return original(*args, **kwargs)

    return start_thread
