"""A file that a program writes to its end keeps its beginning and its end, and loses its middle.

strace knows no limit. While a file grows beyond the limit, the disk space of its middle is given
back (fallocate(2), ``FALLOC_FL_PUNCH_HOLE``), and writing goes on where it was. When all is
written, the hole is closed.
"""

from __future__ import annotations

import os

_FALLOC_FL_KEEP_SIZE = 1
_FALLOC_FL_PUNCH_HOLE = 2

#: Holes begin and end at pages, or the file system fills in zeros and frees nothing.
PAGE = 1 << 12
_COPY_BYTES = 1 << 20


class TraceLimit:
    """Half of the limit is for the beginning, half for the end.

    :param path: the file.
    :param limit: bytes.
    :param begin: what lies before is none of its business, and stays.
    """

    def __init__(self, path: str, limit: int, begin: int = 0) -> None:
        self._path = path
        self._half = max(limit // 2 // PAGE, 1) * PAGE
        self._first = -(-begin // PAGE) * PAGE + self._half
        self._punched_to = self._first

    def look(self) -> None:
        """Free the middle of the file if it has grown beyond the limit by an eighth.

        :raises OSError: the file system cannot do that.
        """
        size = os.stat(self._path).st_size
        until = (size - self._half) // PAGE * PAGE
        if until - self._punched_to > self._half // 4:
            fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                punch(fd, self._punched_to, until - self._punched_to)
            except OSError as error:
                why = "--strace-limit is reached, and holes are not supported here"
                raise OSError(error.errno, f"{why}: {error.strerror}") from None
            finally:
                os.close(fd)
            self._punched_to = until

    def close(self) -> None:
        """Close the hole, if there is one, once nobody writes any more.

        A line in its place says how many bytes are left out; the lines before and after it
        are whole.

        :raises OSError: the file cannot be read or written.
        """
        self.look()
        if self._punched_to == self._first:
            return
        from pytest_eventlet_debug.recordings import marks  # few traces are that long

        with open(self._path, "r+b", buffering=0) as file:
            fd = file.fileno()
            begin = _line_before(fd, self._first)
            end = _line_after(fd, os.fstat(fd).st_size - self._half)
            mark = marks.left_out(end - begin)
            os.pwrite(fd, mark, begin)
            move_end(fd, end, begin + len(mark))


def punch(fd: int, offset: int, size: int) -> None:
    """Free the disk space of a part of a file, which reads as zeros then.

    :raises OSError: the file system cannot do that.
    """
    import ctypes  # slow to import, and few traces are that long

    libc = ctypes.CDLL(None, use_errno=True)
    fallocate = getattr(libc, "fallocate64", None) or libc.fallocate  # musl has one for both
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    if fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(size)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _line_before(fd: int, offset: int) -> int:
    """Return where the line that *offset* is in begins."""
    start = max(offset - _COPY_BYTES, 0)
    return start + os.pread(fd, offset - start, start).rfind(b"\n") + 1


def _line_after(fd: int, offset: int) -> int:
    """Return where the first line begins that begins behind *offset*."""
    return offset + os.pread(fd, _COPY_BYTES, offset).find(b"\n") + 1


def move_end(fd: int, source: int, target: int) -> None:
    """Move the end of a file, from *source* on, towards its beginning, and cut what is left."""
    while data := os.pread(fd, _COPY_BYTES, source):
        source += len(data)
        while data:
            written = os.pwrite(fd, data, target)
            target += written
            data = data[written:]
    os.truncate(fd, target)
