"""Signals to a process that has started others, and is not to leave them behind."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import posix
import signal
from typing import Any

#: What handles the signals that nobody else minds.
_USUAL = (signal.SIG_DFL, signal.default_int_handler)


@contextlib.contextmanager
def minded(clean_up: Callable[[], None], interrupt: Callable[[], None]) -> Iterator[None]:
    """Clean up on SIGTERM and SIGHUP before they end this process, unless it handles them.

    :param interrupt: is called on Ctrl-C.
    """

    def end(number: int, frame: object) -> None:
        clean_up()
        signal.signal(number, signal.SIG_DFL)
        posix.kill(posix.getpid(), number)

    handlers: dict[int, Any] = {
        signal.SIGTERM: end,
        signal.SIGHUP: end,
        signal.SIGINT: lambda number, frame: interrupt(),
    }
    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not the main thread
        for number, handler in handlers.items():
            if signal.getsignal(number) in _USUAL:
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
