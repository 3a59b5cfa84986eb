"""Locks that processes hold as long as they live, on a file of their run's.

Each of its bytes is a lock of its own: the first is for the processes that run tests.

POSIX's record locks: they end with the process however it ends, and a forked copy of it, which
may live on, does not have them. They also end when the process closes any descriptor of the
file, so that a descriptor, once open, stays open.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
import posix
import struct

from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.high_descriptors import move_up

#: The byte for the processes of the run, as ``lockf()`` takes it: a length and where it begins.
_RUN = (1, 0)

#: Seconds between looks at whether others have ended.
_LOOK_SECONDS = 0.005

#: ``struct flock`` of Linux: kind, whence, start, length and process.
_FLOCK = struct.Struct("hhqqi")

_lockf = fcntl.lockf
_fcntl = fcntl.fcntl
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
            _lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, *_RUN)
        # From now on beside others, which join.
        _lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB, *_RUN)
    except OSError as error:
        # Else the file system has no locks, and all go on as if they were alone.
        if _is_held(error):
            _close(fd)
            return False
    return True


def is_held(path: Path) -> bool:
    """Say whether another process that runs tests holds a lock on a file.

    :param path: not one that this process holds a lock on: it would lose that.
    """
    try:
        # Without O_NONBLOCK a fifo of that name would wait for a writer.
        flags = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_NOFOLLOW | posix.O_CLOEXEC
        fd = posix.open(path, flags)
    except OSError:
        return False
    try:
        return _others_hold(fd, _RUN)
    except OSError:
        return False  # the file system has no locks
    finally:
        posix.close(fd)


def await_others(path: Path, place: tuple[int, int], seconds: float) -> None:
    """Wait until no other process has a lock, or for so long at most.

    :param place: the range of the file that is the lock, as ``lockf()`` takes it.
    """
    try:
        fd = _descriptor(path, create=False)
        deadline = unpatched.monotonic() + seconds
        while _others_hold(fd, place) and unpatched.monotonic() < deadline:
            unpatched.wait_readable([], _LOOK_SECONDS)
    except OSError:
        pass  # there is no such file, or the file system has no locks


def _others_hold(fd: int, place: tuple[int, int]) -> bool:
    """Say so without locking it even for a moment: a run that just begins would be turned away."""
    length, start = place
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind: int = _FLOCK.unpack(_fcntl(fd, fcntl.F_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def _is_held(error: OSError) -> bool:
    return error.errno in (errno.EACCES, errno.EAGAIN)


def descriptors() -> set[int]:
    """Return the descriptors that keep this process's locks."""
    return set(_held.values())


def _descriptor(path: Path, *, create: bool = True) -> int:
    flags = posix.O_RDWR | posix.O_NOFOLLOW | posix.O_CLOEXEC
    flags |= posix.O_CREAT if create else 0
    try:
        status = posix.stat(path)
        known = _held.get((status.st_dev, status.st_ino))
    except FileNotFoundError:
        known = None
    if known is not None:
        return known
    fd = move_up(posix.open(path, flags, files.FILE_MODE))
    posix.fchmod(fd, files.FILE_MODE)  # the umask may have taken our own rights
    status = posix.fstat(fd)
    _held[status.st_dev, status.st_ino] = fd
    return fd


def _close(fd: int) -> None:
    status = posix.fstat(fd)
    _held.pop((status.st_dev, status.st_ino), None)
    posix.close(fd)
