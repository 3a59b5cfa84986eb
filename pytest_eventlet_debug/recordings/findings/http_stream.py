"""Follow HTTP/1 messages in the bytes of one direction, as far as it takes to tell contradictions.

RFC 9112, section 6: a message is as long as its ``Content-Length`` says, or ends with an empty
chunk, or when the connection does. Where it is not certain what follows (an upgrade, a tunnel,
a body that waits for ``100 Continue``, a head that is not whole in its first 64 KiB, bytes that
were not captured), nothing is said.
"""

from __future__ import annotations

import re

from pytest_eventlet_debug.patterns import lazily

_MOST_HEAD = 1 << 16
_MOST_LINE = 1 << 10
_PROTOCOL = b"HTTP/1."

#: What a message begins with, as far as it has come.
_BEGINNING = lazily(rb"[A-Z]{1,10}(?:[ /]|\Z)")
_START = lazily(rb"(?:([A-Z]{3,10}) (\S+) HTTP/1\.[01]|HTTP/1\.[01] (\d{3})[^\r\n]*)\r?\n")
_LENGTH = lazily(rb"\n[Cc]ontent-[Ll]ength:[ \t]*(\d{1,15})[ \t]*\r?\n")
_CHUNKED = lazily(rb"\ntransfer-encoding:[ \t]*chunked[ \t]*\r?\n", re.IGNORECASE)
#: What follows such a request depends on the answer to its head.
_OPEN = lazily(rb"\n(?:upgrade|expect):", re.IGNORECASE)
_END = lazily(rb"\r?\n\r?\n")
_SIZE = lazily(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;.*)?\r?\Z")


class HttpStream:
    """The messages that one side of a connection sends.

    :ivar lost: whether it is not known any more where a message begins.
    :ivar requests: how many of them are requests.
    """

    def __init__(self) -> None:
        self.lost = False
        self.requests = 0
        self._head = b""
        self._what = ""
        self._left = 0
        self._said = 0
        #: Of a chunked body: what has come of a line that gives a size; ``None`` without one.
        self._line: bytes | None = None
        self._trailer = False
        self._chunked = False

    @property
    def is_between(self) -> bool:
        """Whether the last message is whole, and no other has begun."""
        return not self.lost and not self._head and not self._left and self._line is None

    def feed(self, data: bytes, method: str = "") -> str | None:
        """Take in the bytes that come next.

        :param method: of the request that an answer is for.
        :return: what is wrong with them, in a few words, or ``None``.
        """
        while data and not self.lost:
            if self._line is not None:
                data, wrong = self._chunk_line(data)
                if wrong is not None:
                    self.lost = True
                    return wrong
            elif self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                if self._chunked and not self._left:
                    self._line = b""
            elif self._has_surplus(data):
                self.lost = True
                said = "ends with its last chunk" if self._chunked else f"says {self._length}"
                return f"{self._what} {said}, and {len(data):,} bytes more came"
            else:
                data = self._begin(self._head + data, method)
        return None

    @property
    def _length(self) -> str:
        return f"Content-Length: {self._said:,}"

    def _has_surplus(self, data: bytes) -> bool:
        """Say whether more follows an answer than it may have."""
        is_answer = self._what.startswith("the answer") and not self._head
        return is_answer and data[:7] != _PROTOCOL[: len(data)]

    def broken_off(self) -> str | None:
        """Say what is missing if nothing more comes."""
        if self.lost or self.is_between or self._head:
            return None
        if self._chunked:
            return f"{self._what} is chunked, and no last chunk came"
        return f"{self._what} says {self._length}, and {self._said - self._left:,} bytes came"

    def missing(self) -> str | None:
        """Say what has not come yet of a message whose length is known."""
        return self.broken_off() if self._left and not self._chunked else None

    def _begin(self, data: bytes, method: str) -> bytes:
        """Read a message's head; return what follows it."""
        self._head, self._what = b"", ""
        end = _END.search(data)
        start = _START.match(data)
        if end is None:
            self._head = data
            is_other = _BEGINNING.match(data) is None or (start is None and b"\n" in data)
            self.lost = is_other or len(data) > _MOST_HEAD
            return b""
        head = data[: end.end()]
        length, chunked = _LENGTH.findall(head), _CHUNKED.search(head)
        if start is None or _OPEN.search(head) or len(length) > 1 or method == "CONNECT":
            self.lost = True
            return b""
        rest = data[end.end() :]
        verb, path, status = start.groups()
        if status is not None:
            if status == b"101":
                self.lost = True
            if method in ("HEAD", "") or status[:1] == b"1" or status in (b"204", b"304"):
                self.lost = self.lost or not method
                return rest
            self._what = f"the answer {status.decode()}"
            if chunked is None and not length:
                self.lost = True  # it ends with the connection
        else:
            self.requests += 1
            self._what = f"{verb.decode()} {path[:60].decode('ascii', 'replace')}"
            self.lost = verb == b"CONNECT"
        self._chunked = chunked is not None
        self._line = b"" if chunked is not None else None
        self._trailer = False
        self._left = self._said = int(length[0]) if length and chunked is None else 0
        return rest

    def _chunk_line(self, data: bytes) -> tuple[bytes, str | None]:
        """Read the line between two chunks; return what follows it, and what is wrong with it."""
        line, newline, rest = data.partition(b"\n")
        line = (self._line or b"") + line
        if not newline:
            self._line = line
            self.lost = len(line) > _MOST_LINE
            return b"", None
        self._line = b""
        if self._trailer:
            if line in (b"", b"\r"):
                self._line = None
            return rest, None
        size = _SIZE.match(line)
        if size is None:
            return rest, f"{self._what} is chunked, and a chunk's size is {ascii(line[:20])[1:]}"
        self._trailer = int(size[1], 16) == 0
        if not self._trailer:
            self._left, self._line = int(size[1], 16) + 2, None  # a line end follows the chunk
        return rest, None
