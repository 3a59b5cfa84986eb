"""The garbage collector, kept from work that is in vain."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import gc
from typing import Any

try:
    from pytest_eventlet_debug.system import _collector
except ImportError:

    def freeze_since(marker: list[Any], /) -> bool:
        """Freeze nothing."""
        return False

    def last_frozen() -> int:
        """Return that nothing was frozen, as nobody has reason to ask."""
        return 0

else:
    freeze_since = _collector.freeze_since
    last_frozen = _collector.last_frozen

# Taken here, before a test can patch it.
_get_freeze_count = gc.get_freeze_count

# Python 3.12 freezes some objects of its own as it starts.
_FROZEN_AT_START = _get_freeze_count()

#: What was frozen last by :func:`made_to_stay`.
_marker: list[Any] | None = None


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking the heap time and again while much is made."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def made_to_stay() -> Iterator[None]:
    """Pause the collector, and have it never walk what is made meanwhile, such as modules of ours.

    A test that calls ``gc.collect()`` would wait for that, every time, and the suites of eventlet
    and greenlet do so after each test. It is as if ``gc.freeze()`` had been called for these
    objects alone.
    """
    global _marker
    with collector_paused():
        marker: list[Any] = []
        try:
            yield
        finally:
            # What a conftest has frozen by now must stay known to be.
            if not hides_others() and freeze_since(marker):
                _marker = marker


def frozen_state() -> int:
    """Return a number that changes as objects are frozen, or given back to the collector."""
    # To count the frozen ones takes longer than most of what is done after a test.
    return _get_freeze_count() if _marker is None else last_frozen()


def hides_others() -> bool:
    """Say whether ``gc.freeze()`` keeps objects of others from who looks for them."""
    state = frozen_state()
    return state > _FROZEN_AT_START if _marker is None else state not in (0, id(_marker))
