"""The garbage collector, kept from work that is in vain."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import gc


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
