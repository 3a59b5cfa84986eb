"""Descriptors of the plugin's own, which have high numbers, out of the way of the tests' own."""

from __future__ import annotations

import errno
import fcntl
import posix
import resource

#: Where :func:`move_up` looks for a free descriptor first.
HIGH_DESCRIPTOR = 500


def move_up(fd: int) -> int:
    """Move the descriptor *fd* to a high number and return that number.

    Tests then see the same low numbers as without us. The new descriptor is closed by
    ``exec``. Where ``RLIMIT_NOFILE`` is too low for that, it is placed as high as
    the limit permits; where nothing is free above, *fd* itself is returned.
    """
    lowest = HIGH_DESCRIPTOR
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        lowest = min(lowest, soft - 16)
    if fd >= lowest:
        return fd
    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.EINVAL):
            raise
        return fd
    posix.close(fd)
    return moved
