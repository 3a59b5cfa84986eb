"""Which descriptors a process has open, and what the kernel calls them."""

from __future__ import annotations

import os
import posix
import stat
import sys

DIRECTORY = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


def target(fd: int, directory: str = DIRECTORY) -> str | None:
    """Return what the kernel calls it: a path, ``socket:[1]``; ``None`` if it is not open.

    :param directory: as for :class:`OpenDescriptors`.
    """
    try:
        return os.fsdecode(posix.readlink(f"{directory}/{fd}"))
    except (OSError, ValueError):
        return None


class OpenDescriptors:
    """Lists the descriptors that are open, and asks what the kernel calls them once for each.

    What it keeps are dictionaries of numbers and texts, which the garbage collector does not
    count: it takes tuples of those out of its lists as it meets them, and a test that counts
    objects would find fewer than there were.

    :param directory: where the kernel lists those of a process; its own by default.
    """

    def __init__(self, directory: str = DIRECTORY) -> None:
        self._directory = directory
        self._identities: dict[int, str] = {}
        self._words: dict[int, str] = {}

    def look(self) -> dict[int, str]:
        """Return all open descriptors with what the kernel calls them."""
        try:
            numbers = [int(name) for name in posix.listdir(self._directory)]
        except (OSError, ValueError):
            return {}
        identities: dict[int, str] = {}
        found: dict[int, str] = {}
        for number in numbers:
            identity = self._identity(number)
            is_known = identity is not None and self._identities.get(number) == identity
            words = self._words.get(number) if is_known else target(number, self._directory)
            if identity is not None:
                identities[number] = identity
            # The one that read the directory is closed by now.
            if words is not None:
                found[number] = words
        self._identities, self._words = identities, found
        return dict(found)

    def _identity(self, fd: int) -> str | None:
        """Return what tells the file behind a descriptor from others; ``None`` if nothing does."""
        try:
            if self._directory == DIRECTORY:
                status = posix.fstat(fd)
            else:
                status = posix.stat(f"{self._directory}/{fd}")
        except OSError:
            return None
        if not stat.S_IFMT(status.st_mode):
            return None  # those without an inode, such as an epoll set, have one together
        return f"{status.st_dev} {status.st_ino} {status.st_mode} {status.st_ctime_ns}"
