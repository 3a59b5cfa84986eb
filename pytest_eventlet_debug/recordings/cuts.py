"""Traces that are not whole, for the disk was full or strace died in the middle of a line."""

from __future__ import annotations

from pathlib import Path
import posix
import re

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.system import files

# The longest line that strace writes with 256 characters of a string is far shorter.
_TAIL_BYTES = 1 << 16

_TIME = lazily(rb"^\d+ +(\d+)\.(\d{6}) ", re.MULTILINE)


def is_cut(directory: Path) -> bool:
    """Say whether the trace in a directory ends within a line, or is empty on a full disk."""
    try:
        tail = _tail(directory / STRACE_FILE)
    except OSError:
        return False  # nothing was traced
    if not tail:
        return posix.statvfs(directory).f_bavail == 0
    return not tail.endswith(b"\n")


def last_ns(directory: Path) -> int | None:
    """Return when the last whole line of a trace was written, in nanoseconds since the epoch.

    ``None`` where there is none.
    """
    whole = _tail(directory / STRACE_FILE).rpartition(b"\n")[0]
    times = _TIME.findall(whole)
    return int(times[-1][0] + times[-1][1]) * 1000 if times else None


def _tail(path: Path) -> bytes:
    fd = files.open_to_read(path)
    try:
        size = posix.fstat(fd).st_size
        return posix.pread(fd, _TAIL_BYTES, max(size - _TAIL_BYTES, 0))
    finally:
        posix.close(fd)
