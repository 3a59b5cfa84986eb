"""What a signal handler raises while code of ours runs is meant for the test.

Python runs a handler between any two instructions, and so amid a callback or a hook of ours,
which lets no exception out. An alarm that should end a test would be lost there, and the test run
for ever. So it is raised again as soon as our code has returned, by a handler that stands in the
place of the test's until then. Where that could not be compiled, it is lost.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
from collections.abc import Iterator
from functools import partial
import signal
import sys
import types
from typing import Any

from pytest_eventlet_debug.system.code_places import OURS

try:
    from pytest_eventlet_debug.system import _handlers
except ImportError:  # it was not compiled
    _handlers = None  # type: ignore[assignment]

# Taken here, before a test can patch them.
_getsignal = _signal.getsignal
_interrupt: Any = _thread.interrupt_main
_set_handler = _signal.signal
# Of the real-time signals, most are mere numbers.
_signals: list[int] = sorted(signal.valid_signals())


def put_off(error: BaseException) -> bool:
    """Have what a signal handler raised in our code raised when that has returned.

    :param error: just caught, by our code.
    :return: False if no handler that is installed raised it.
    """
    traceback = error.__traceback__
    if traceback is None or traceback.tb_next is None or _handlers is None:
        return False  # whoever caught it has raised it, as a rule
    numbers = {code: number for number, code in handled()}
    while traceback is not None:
        number = numbers.get(traceback.tb_frame.f_code)
        if number is not None:
            restore = partial(_set_handler, number, _getsignal(number))
            entered = _outermost(sys._getframe(1))
            error.__traceback__ = traceback
            _set_handler(number, _handlers.Postponed(number, entered, restore, error))
            _interrupt(number)
            return True
        traceback = traceback.tb_next
    return False


def handled() -> Iterator[tuple[int, types.CodeType]]:
    """Yield the signals that a function of Python's handles, with its code, by their numbers."""
    for number in _signals:
        handler = _getsignal(number)
        if type(handler) is types.MethodType:
            handler = handler.__func__
        if type(handler) is types.FunctionType:
            yield number, handler.__code__


def _outermost(frame: types.FrameType) -> types.FrameType:
    """Return the frame by which our code was entered."""
    while (outer := frame.f_back) is not None and outer.f_code.co_filename.startswith(OURS):
        frame = outer
    return frame
