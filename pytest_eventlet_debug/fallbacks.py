"""Say once in a process that a part of the plugin does less in this Python than it should.

Some parts rest on what CPython does not promise. Each of them tries that first, and goes
without where it is not as expected: see "Python 3.14" in ``docs/architecture.rst``.
"""

from __future__ import annotations

import sys
import warnings

from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.warning_types import EventletFallbackWarning

# Taken here, before a test can patch it.
_warn_explicit = warnings.warn_explicit

_said: set[str] = set()


def warn(words: str) -> None:
    """Give an :class:`EventletFallbackWarning`, if this process has not given the same one.

    :param words: what does not work, why, and what happens instead; begins a sentence.
    """
    if words in _said:
        return
    _said.add(words)
    with Shield():  # -W error, but what does not work here is no fault of the test's
        # It is no line of code that this is about.
        _warn_explicit(EventletFallbackWarning(words), None, sys.executable, 0)
