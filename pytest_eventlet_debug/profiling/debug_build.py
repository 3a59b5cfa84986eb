"""Whether this interpreter outlives a profile of greenlets."""

from __future__ import annotations

import sys


def aborts() -> bool:
    """Whether an assertion of the interpreter's ends it when a profiler stops.

    A debug build of Python 3.12 or newer (seen with 3.14.10) asserts that the code which runs has
    the instructions for the profilers of the moment. Python puts these into every frame of a
    thread, but does not know the frames of a suspended greenlet. cProfile ends it as well.
    """
    return sys.version_info >= (3, 12) and hasattr(sys, "gettotalrefcount")
