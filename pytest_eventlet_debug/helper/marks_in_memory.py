"""Marks that the test process makes in memory, and where they belong in what strace writes.

A mark that is a system call costs as much as any traced call. So the test process puts most of
them into memory that it shares with the helper (``profiling/marks.c``), each with its time. A
thread makes its next call after its last mark, and strace notes when, by the same clock: a mark
belongs before the first line whose time is not earlier. Both are compared in microseconds, for
strace writes no more. Between a mark and the next call of its thread lie two switches of context,
which take longer than that.
"""

from __future__ import annotations

from collections import deque
import mmap
import re
import struct
import time

from pytest_eventlet_debug.helper.protocol import MARKS_BYTES
from pytest_eventlet_debug.helper.protocol import MARKS_ROOM
from pytest_eventlet_debug.patterns import lazily

_HEADER = struct.Struct("=QQ")
_READ = struct.Struct("=Q")
_RECORD = struct.Struct("=QII")

#: The beginning of a line of strace's, with its time.
_LEADER = lazily(rb"^\d+ +(\d+\.\d{6}) ", re.MULTILINE)

_ESCAPED = lazily(rb"[^ !#-\[\]-~]")

#: Seconds after which strace has surely written what happened.
_SETTLED_SECONDS = 0.05


class MarksInMemory:
    """The marks of one test process.

    :param fd: the memory, a file of ``MARKS_BYTES`` bytes.
    """

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, MARKS_BYTES)

    @property
    def end(self) -> int:
        """Where the next mark will be."""
        written, _ = _HEADER.unpack_from(self._memory)
        return int(written)

    def drop(self) -> None:
        """Forget all that is there."""
        _READ.pack_into(self._memory, _READ.size, self.end)

    def take(self, end: int | None = None) -> list[tuple[bytes, bytes]]:
        """Return the marks that were made since the last time, each as its time and its line.

        :param end: that of the last one to be taken; ``None`` for all.
        """
        written, read = _HEADER.unpack_from(self._memory)
        end = written if end is None else end
        data = self._bytes(read, end)
        found = []
        at = 0
        while at < len(data):
            time_ns, thread, size = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            found.append(_line(time_ns, thread, data[at : at + size]))
            at += -(-size // 8) * 8
        _READ.pack_into(self._memory, _READ.size, end)
        return found

    def _bytes(self, begin: int, end: int) -> bytes:
        first, last = begin % MARKS_ROOM, end % MARKS_ROOM
        ring = _HEADER.size
        if first <= last and end - begin < MARKS_ROOM:
            return self._memory[ring + first : ring + last]
        return self._memory[ring + first : ring + MARKS_ROOM] + self._memory[ring : ring + last]


def _line(time_ns: int, thread: int, path: bytes) -> tuple[bytes, bytes]:
    """Return the time and the line that strace would write of a call that makes a mark."""
    when = b"%d.%06d" % divmod(time_ns // 1000, 1_000_000)
    shown = _ESCAPED.sub(_escape, path)
    call = b'%-5d %b access("%b", F_OK) = -1 ENOENT (No such file or directory) <0.000000>\n'
    return when, call % (thread, when, shown)


def _escape(match: re.Match[bytes]) -> bytes:
    return b"\\%03o" % match[0][0] if match[0] not in b'"\\' else b"\\" + match[0]


class Merging:
    """Puts marks between the lines of a trace, which comes in parts.

    :param marks: where they are.
    """

    def __init__(self, marks: MarksInMemory) -> None:
        self._marks = marks
        self._pending: deque[tuple[bytes, bytes]] = deque()
        self._in_line = False

    def look(self, end: int | None = None) -> None:
        """Take note of the marks that there are.

        To be called when it is known what is to be merged, for that may be about any of them.

        :param end: as for :meth:`MarksInMemory.take`.
        """
        self._pending.extend(self._marks.take(end))

    def begun(self, data: bytes) -> bytes:
        """Leave out the beginning of a last line that does not tell its time yet."""
        last = data.rfind(b"\n") + 1
        if last == len(data) or (last == 0 and self._in_line) or _LEADER.match(data, last):
            return data
        return data[:last]

    def merge(self, data: bytes) -> bytes:
        """Return a part of the trace with the marks that belong into it."""
        pending = self._pending
        parts: list[bytes] = []
        begin = 0
        if pending:
            when = pending[0][0]
            for leader in _LEADER.finditer(data):
                stamp = leader[1]
                if stamp < when or (self._in_line and not leader.start()):
                    continue
                parts.append(data[begin : (begin := leader.start())])
                while pending and pending[0][0] <= stamp:
                    parts.append(pending.popleft()[1])
                if not pending:
                    break
                when = pending[0][0]
        parts.append(data[begin:])
        if data:
            self._in_line = not data.endswith(b"\n")
        return b"".join(parts)

    def rest(self, *, settled: bool) -> bytes:
        """Return the marks that no line follows, where a line may begin.

        :param settled: only those that are so old that no thread's line is missing before them.
        """
        if self._in_line:
            return b""
        until = b"%.6f" % (time.time() - _SETTLED_SECONDS) if settled else b"~"
        parts = []
        while self._pending and self._pending[0][0] <= until:
            parts.append(self._pending.popleft()[1])
        return b"".join(parts)
