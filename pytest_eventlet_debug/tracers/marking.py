"""How marks get into a trace: in memory that the helper reads, or each by a system call."""

from __future__ import annotations

import posix
from typing import TYPE_CHECKING
import weakref

from pytest_eventlet_debug.helper.protocol import MARKS_BYTES
from pytest_eventlet_debug.helper.protocol import MARKS_ROOM
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracers.helper_client import Helper

if TYPE_CHECKING:
    from pytest_eventlet_debug.profiling._native import Marks


#: As ``profiling/marks.c`` has it.
_HELD_SECONDS = 0.1


class Marking:
    """Makes the marks of one thread.

    :param memory: where they are made in memory; ``None`` where each is a system call.
    """

    def __init__(self, memory: Marks | None = None) -> None:
        self.memory = memory
        # A switch of greenthreads calls this: no Python between it and C. It returns whether this
        # has made no mark for 0.1 s.
        self.make = _Calls().make if memory is None else memory.make

    def begin(self) -> None:
        """Make marks of this thread from now on."""
        if self.memory is not None:
            self.memory.begin()


#: By helper, for each reads one memory.
_shared: weakref.WeakKeyDictionary[Helper, Marking] = weakref.WeakKeyDictionary()


def shared_with(helper: Helper) -> Marking:
    """Return how to make marks that *helper* puts into the trace, in memory if that can be.

    :raises TracerError: the helper is gone.
    """
    marking = _shared.get(helper)
    if marking is None:
        marking = _shared[helper] = Marking(_share(helper))
    return marking


def _share(helper: Helper) -> Marks | None:
    try:
        from pytest_eventlet_debug.profiling._native import Marks
    except ImportError:  # nothing was compiled
        return None
    try:
        fd = files.memory_file("eventlet-debug-marks")
        try:
            posix.ftruncate(fd, MARKS_BYTES)
            memory = Marks(fd, MARKS_ROOM)
            helper.give("strace-marks", fd)
        finally:
            posix.close(fd)
    except OSError:
        return None
    return memory


class _Calls:
    """Makes marks by system calls, as ``Marks`` of ``profiling/marks.c`` does in memory."""

    def __init__(self) -> None:
        self._made = unpatched.monotonic()

    def make(self, path: bytes) -> bool:
        """Make a mark; return whether this made none for 0.1 s."""
        posix.access(path, 0)
        before, self._made = self._made, unpatched.monotonic()
        return self._made - before > _HELD_SECONDS
