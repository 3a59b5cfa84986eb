"""Locks that processes hold as long as they live, each on a file of its own.

POSIX's record locks: they end with the process however it ends, and a forked copy of it, which
may live on, does not have them. They also end when the process closes any descriptor of the
file, so that a descriptor, once open, stays open.
"""

from __future__ import annotations

import errno
import fcntl
from pathlib import Path
import posix

from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import unpatched

_lockf = fcntl.lockf
_held: dict[tuple[int, int], int] = {}


def hold(path: Path, *, shared: bool) -> bool:
    """Lock a file for this process, until it ends; say whether that was possible.

    :param path: made if it is not there.
    :param shared: whether processes that hold it already do not matter.
    :raises OSError: the file cannot be opened.
    """
    fd = _descriptor(path)
    try:
        if not shared:
            _lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # From now on beside others, which join.
        _lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        # Else the file system has no locks, and all go on as if they were alone.
        if error.errno in (errno.EACCES, errno.EAGAIN):
            _close(fd)
            return False
    return True


def descriptors() -> set[int]:
    """Return the descriptors that keep this process's locks."""
    return set(_held.values())


def _descriptor(path: Path) -> int:
    flags = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC
    try:
        status = posix.stat(path)
        known = _held.get((status.st_dev, status.st_ino))
    except FileNotFoundError:
        known = None
    if known is not None:
        return known
    fd = unpatched.move_up(posix.open(path, flags, files.FILE_MODE))
    posix.fchmod(fd, files.FILE_MODE)  # the umask may have taken our own rights
    status = posix.fstat(fd)
    _held[status.st_dev, status.st_ino] = fd
    return fd


def _close(fd: int) -> None:
    status = posix.fstat(fd)
    _held.pop((status.st_dev, status.st_ino), None)
    posix.close(fd)
