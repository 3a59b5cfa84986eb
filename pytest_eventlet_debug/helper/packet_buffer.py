"""The packets of one recording: in memory while they are few, in a file when they are many.

Most tests send few packets or none. What is in memory is handed to the finisher, which writes
the file once, with its comments. A file is begun for what is more, or is old enough that
losing it with the helper would be a loss; the finisher then writes that anew.

A storm of packets fills a disk within minutes. So a file has a limit; beyond it the disk space
of its middle is given back, as :mod:`.trace_limit` does with traces.
"""

from __future__ import annotations

from collections import deque
import os

from pytest_eventlet_debug.helper.trace_limit import move_end
from pytest_eventlet_debug.helper.trace_limit import punch
from pytest_eventlet_debug.system import files

#: Bytes of packets that are kept in memory, for each recording.
MEMORY_BYTES = 1 << 22


class PacketBuffer:
    """The blocks of one capture.

    :param path: the file, which is made only if it is needed.
    :param head: the blocks that stand before all packets.
    :param limit: bytes of the longest file that is kept whole; ``None`` for any.
    """

    def __init__(self, path: str, head: bytes, limit: int | None) -> None:
        self.problem: str | None = None
        self.packets = 0
        self._path = path
        self._head = head
        self._half = limit // 2 if limit is not None else None
        self._blocks: list[bytes] = []
        self._bytes = 0
        self._fd = -1
        self._written = 0
        #: The parts of the file behind its first half: where each begins, and its packets.
        self._parts: deque[tuple[int, int]] = deque()
        self._hole: tuple[int, int] | None = None
        self.left_out = 0

    @property
    def in_file(self) -> bool:
        """Whether the packets are in the file, or would be if it could be written."""
        return self._written > 0 or self.problem is not None

    @property
    def in_memory(self) -> int:
        """How many bytes are not in the file."""
        return self._bytes

    def add(self, block: bytes) -> None:
        """Take in the block of one packet."""
        self._blocks.append(block)
        self._bytes += len(block)
        self.packets += 1

    def flush(self) -> None:
        """Write what has been added since, if this has a file or is long enough for one."""
        if self._blocks and (self.in_file or self._bytes > MEMORY_BYTES):
            self.save()

    def save(self) -> None:
        """Write all there is, into a file from now on."""
        if self.problem is None:
            try:
                if self._fd < 0:
                    self._fd = files.create(self._path)
                    self._write([self._head])
                self._write(self._blocks)
                self._keep_within_limit()
            except OSError as error:
                self.problem = f"the capture is incomplete: {error}"
        self._blocks.clear()
        self._bytes = 0

    def end(self, tail: bytes) -> None:
        """Add the last block, and close the file, if there is one."""
        self._blocks.append(tail)
        if self.in_file:
            self.save()
            self.close()

    def close(self) -> None:
        """Close the file, if there is one, and the hole in it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            try:
                self._close_hole()
            except OSError as error:
                self.problem = f"the capture is incomplete: {error}"

    def content(self) -> bytes:
        """Return the whole capture; only where it is in memory."""
        return b"".join((self._head, *self._blocks))

    def _write(self, blocks: list[bytes]) -> None:
        if self._half is not None and self._written >= self._half:
            self._parts.append((self._written, len(blocks)))
        whole = memoryview(b"".join(blocks))
        while whole:
            size = os.write(self._fd, whole)
            whole = whole[size:]
            self._written += size

    def _keep_within_limit(self) -> None:
        """Free the middle of the file if it has grown beyond the limit by an eighth."""
        if self._half is None or not self._parts:
            return
        begin = self._hole[0] if self._hole is not None else self._parts[0][0]
        end = self._hole[1] if self._hole is not None else begin
        if self._written - self._half - end <= self._half // 4:
            return
        while len(self._parts) > 1 and self._parts[1][0] <= self._written - self._half:
            self.left_out += self._parts.popleft()[1]
        punch(self._fd, begin, self._parts[0][0] - begin)
        self._hole = begin, self._parts[0][0]

    def _close_hole(self) -> None:
        if self._hole is None:
            return
        fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            begin, end = self._hole
            move_end(fd, end, begin)
        finally:
            os.close(fd)
