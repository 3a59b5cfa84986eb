"""A strace that stays attached from test to test writes one file: each test gets its piece of it.

To attach and to detach takes some milliseconds, more than most tests. So strace goes on, and the
test process works under it between two tests as well. Its file has no name, and so is never left
behind. Of a long trace the disk space of what is copied is given back.
"""

from __future__ import annotations

import contextlib
import errno
import os

from pytest_eventlet_debug.helper.marks_in_memory import MarksInMemory
from pytest_eventlet_debug.helper.marks_in_memory import Merging
from pytest_eventlet_debug.helper.trace_limit import PAGE
from pytest_eventlet_debug.helper.trace_limit import TraceLimit
from pytest_eventlet_debug.helper.trace_limit import punch
from pytest_eventlet_debug.system import files

_COPY_BYTES = 1 << 20
#: More than strace writes of our last request, and what other threads do meanwhile.
_TAIL_BYTES = 1 << 14


def create_source(directory: str) -> int:
    """Return a descriptor of a new file without a name, for strace to write to.

    :param directory: on whose file system it is.
    :raises OSError: it cannot be made.
    """
    path = os.path.join(directory, f".strace.{os.getpid()}")
    fd = files.create(path, readable=True)
    os.unlink(path)
    return fd


def end_before(source: int, pid: int, words: bytes) -> int | None:
    """Return where the line of a request begins that ends a piece, or ``None`` if it is not there.

    strace has not written all of it then, and perhaps cannot, for the disk is full.

    :param pid: who makes the request.
    :param words: what the line holds, as strace writes it.
    """
    size = os.fstat(source).st_size
    start = max(size - _TAIL_BYTES, 0)
    tail = os.pread(source, size - start, start)
    line = tail.rfind(b"\n", 0, max(tail.rfind(words), 0)) + 1
    return start + line if words in tail and tail.startswith(b"%d " % pid, line) else None


def holds(source: int, start: int, words: bytes) -> bool:
    """Say whether strace has written some words from *start* on."""
    while data := os.pread(source, _COPY_BYTES, start):
        if words in data:
            return True
        if len(data) < _COPY_BYTES:
            break
        start += len(data) - len(words)
    return False


class TracePiece:
    """What strace writes from now on, to be a file of its own.

    :param source: the file that strace writes to.
    :param path: the file to be made.
    :param append: whether to keep what it holds, and to add to it.
    :param limit: bytes of which the beginning and the end are kept; ``None`` for no limit.
    :param request: where in the source to look for the request for this piece, and what its line
        holds, for the test process has gone on since; ``None`` where it waits.
    :param marks: those that are not in the source.
    :raises OSError: the file cannot be made.
    """

    def __init__(
        self,
        source: int,
        path: str,
        append: bool,
        limit: int | None,
        request: tuple[int, bytes] | None = None,
        marks: MarksInMemory | None = None,
    ) -> None:
        self._source = source
        self._words = b""
        if request is not None:
            self._at, self._words = request
            self._in_line = False
        else:
            self._at = os.fstat(source).st_size
            # The call that asks for this piece may be half written.
            self._in_line = self._at > 0 and os.pread(source, 1, self._at - 1) != b"\n"
        self._freed = self._at
        self._merging = None if marks is None else Merging(marks)
        # Not by strace, which would follow a link that the test lays there.
        self._target = files.open_to_append(path) if append else files.create(path)
        begin = os.fstat(self._target).st_size
        self._limit = TraceLimit(path, limit, begin) if limit is not None else None
        self._failed = False
        self.path = path

    def copy(self, until: int | None = None, marks_until: int | None = None) -> None:
        """Copy what is new.

        :param until: the end of the piece in the source, by default that of the source.
        :param marks_until: where the marks end that are in memory, by default all.
        :raises OSError: there is no room for it, or the limit cannot be kept.
        """
        if self._failed:
            return
        end = os.fstat(self._source).st_size if until is None else until
        if self._merging is not None:
            self._merging.look(marks_until)  # what was written by then has its marks now
        if self._words and not self._find_request(end):
            return
        while data := os.pread(self._source, min(_COPY_BYTES, max(end - self._at, 0)), self._at):
            if self._merging is not None and (until is None or self._at + len(data) < end):
                data = self._merging.begun(data)
                if not data:
                    break
            self._at += len(data)
            if self._at - self._freed >= _COPY_BYTES:
                self._free()
            if self._in_line:
                _, found, data = data.partition(b"\n")
                self._in_line = not found
            self._write(data if self._merging is None else self._merging.merge(data))
        if self._merging is not None:
            self._write(self._merging.rest(settled=until is None))
        if self._limit is not None:
            self._limit.look()

    def _find_request(self, end: int) -> bool:
        """Go to the end of the line that asks for this piece; say whether it is there."""
        while data := os.pread(self._source, min(_COPY_BYTES, max(end - self._at, 0)), self._at):
            found = data.find(self._words)
            if found >= 0:
                line_end = data.find(b"\n", found)
                self._at += found if line_end < 0 else line_end + 1
                if line_end < 0:
                    return False
                self._words = b""
                return True
            if len(data) < _COPY_BYTES:
                break
            self._at += len(data) - len(self._words)
        return False

    def _write(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self._target, data) :]
            except OSError as error:
                if error.errno != errno.ENOSPC or self._freed == self._at:
                    self._failed = True  # what comes later would follow on a gap
                    raise
                self._free()  # the copy has room where it was

    def _free(self) -> None:
        """Give the disk space back of what is copied, where the file system can do that."""
        begin, self._freed = self._freed // PAGE * PAGE, self._at
        with contextlib.suppress(OSError):
            punch(self._source, begin, self._at - begin)

    def finish(self, until: int | None = None, marks_until: int | None = None) -> None:
        """Copy what is left; the file is complete then. The parameters are those of :meth:`copy`.

        :raises OSError: as :meth:`copy` does.
        """
        try:
            self.copy(os.fstat(self._source).st_size if until is None else until, marks_until)
            if self._limit is not None:
                self._limit.close()
        finally:
            os.close(self._target)
