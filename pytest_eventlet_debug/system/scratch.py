"""Temporary directories that the next run removes where their owner had no time to.

The owner holds a lock on its directory, which ends with it, however that comes about. Only the
standard library is used.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
import shutil
import tempfile

from pytest_eventlet_debug.system.high_descriptors import move_up

#: No other directory of ours begins so: what has no lock is not taken for abandoned.
PREFIX = "pytest-eventlet-debug-scratch-"


class ScratchDirectory:
    """A new directory below ``TMPDIR``; to be removed by its owner or by any later one's.

    :raises OSError: it cannot be made.
    """

    def __init__(self) -> None:
        _remove_abandoned()
        self._lock: int | None = None
        while self._lock is None:  # another process took it for abandoned before it was locked
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
            self._lock = _lock(self.path)

    def __enter__(self) -> Path:
        return self.path

    def __exit__(self, *exception: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove it with all that is in it; do nothing if it is removed."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int | None:
    """Lock a directory and return the descriptor that holds the lock.

    :return: ``None`` where it is another process's, or is no more.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
            return move_up(descriptor)
    except OSError:
        pass
    os.close(descriptor)
    return None


def _remove_abandoned() -> None:
    """Remove the directories of processes of this user's that are no more."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(tempfile.gettempdir())):
            if entry.name.startswith(PREFIX) and _is_own(entry):
                lock = _lock(Path(entry.path))
                if lock is not None:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    os.close(lock)


def _is_own(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.stat(follow_symlinks=False).st_uid == os.geteuid()
    except OSError:
        return False
