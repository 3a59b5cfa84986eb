"""Signals to a process that has started others, and is not to leave them behind."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
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
    with _handled(handlers):
        yield


class _Ending(BaseException):
    """A signal has come that ends this process."""


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Let SIGTERM and SIGHUP leave the block as an exception does, and then end this process."""

    def leave(number: int, frame: object) -> None:
        for each in handlers:  # timeout(1) sends two
            signal.signal(each, signal.SIG_IGN)
        raise _Ending(number)

    handlers: dict[int, Any] = {signal.SIGTERM: leave, signal.SIGHUP: leave}
    with _handled(handlers):
        try:
            yield
        except _Ending as ending:
            (number,) = ending.args
            signal.signal(number, signal.SIG_DFL)
            posix.kill(posix.getpid(), number)


@contextlib.contextmanager
def _handled(handlers: Mapping[int, Any]) -> Iterator[None]:
    """Handle those signals that nobody else minds."""
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
