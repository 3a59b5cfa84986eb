"""One CPU for strace and for the main thread of the test process, while that is traced.

A traced call is three to five times cheaper so than on two. Tests can see it in their
``os.sched_getaffinity(0)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import os


class OneCpu:
    """The CPU that one strace shares with the process that it traces.

    :param tracee: the id of that process.
    """

    def __init__(self, tracee: int) -> None:
        self._tracee = tracee
        #: The CPU, and those that the tracee had before; ``None`` where nothing is shared.
        self._shared: tuple[int, set[int]] | None = None

    @contextlib.contextmanager
    def shared(self) -> Iterator[None]:
        """Put the tracee on the CPU that it used last, and what is started meanwhile as well."""
        ours = self._take()
        try:
            yield
        finally:
            if ours is not None:
                _set_affinity(0, ours)

    def _take(self) -> set[int] | None:
        """Have the tracee and this process use one CPU; return the CPUs that this one had.

        :return: ``None`` where that cannot be.
        """
        try:
            with open(f"/proc/{self._tracee}/stat", "rb") as stat:
                # proc(5): field 39 is the processor, counted from behind the last ")".
                cpu = int(stat.read().rpartition(b")")[2].split()[36])
            before, ours = os.sched_getaffinity(self._tracee), os.sched_getaffinity(0)
        except (OSError, ValueError, IndexError):
            return None
        if len(before) < 2 or cpu not in before or not _set_affinity(self._tracee, {cpu}):
            return None
        self._shared = cpu, before
        _set_affinity(0, {cpu})
        return ours

    def leave(self, threads: Iterable[int]) -> None:
        """Give threads that are on that CPU back those that the tracee had before."""
        if self._shared is None:
            return
        cpu, before = self._shared
        for thread in threads:
            try:
                if os.sched_getaffinity(thread) == {cpu}:
                    _set_affinity(thread, before)
            except OSError:
                pass  # it has ended


def _set_affinity(thread: int, cpus: set[int]) -> bool:
    try:
        os.sched_setaffinity(thread, cpus)
    except OSError:
        return False  # a slower trace, no more
    return True
