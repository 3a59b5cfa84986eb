"""What fails in our own code must not fail the test that it runs in.

A test may have patched anything that our code calls, for good even, and a mock of its may
raise what pytest takes for a failure or a skip. So every hook of ours that runs around a test
stands behind a :class:`Shield`.
"""

from __future__ import annotations

from collections.abc import Callable
import types
from typing import Final

import pytest

from pytest_eventlet_debug.system.handler_errors import put_off

#: Not KeyboardInterrupt, nor pytest.exit() or eventlet's Timeout: these are not about our code.
FAILURES: Final = (Exception, pytest.fail.Exception, pytest.skip.Exception)


class Shield:
    """A context manager that lets no failure out.

    What a signal handler of the test's raises is one, too, but comes out in the end, see
    :mod:`~pytest_eventlet_debug.system.handler_errors`.

    :param note: is told of one, in one line; ``None`` where there is nobody to tell.
    :param about: whose failure it is, such as ``strace``.
    :param told: exceptions whose message tells all, without their type.
    """

    def __init__(
        self,
        note: Callable[[str], object] | None = None,
        about: str = "",
        told: tuple[type[BaseException], ...] = (OSError,),
    ) -> None:
        self._note = note
        self._about = f"{about}: " if about else ""
        self._told = told
        #: What failed, if something did; kept no longer than *note* needs it.
        self.error: BaseException | None = None

    def __enter__(self) -> Shield:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> bool:
        if not isinstance(error, FAILURES):
            return False
        self.error = error
        if self._note is not None:
            self._note(self._about + _words(error, self._told))
        self.error = None
        put_off(error)
        return True


def _words(error: BaseException, told: tuple[type[BaseException], ...]) -> str:
    """Say in one line what an exception says, with its type unless that is among *told*."""
    try:
        words = " ".join(str(error).split())
    except FAILURES:
        words = ""
    if isinstance(error, told) and words:
        return words
    name = type(error).__name__
    return f"{name}: {words}" if words else name
