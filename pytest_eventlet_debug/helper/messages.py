"""Messages between a test process and its helper, both sides of them.

A message to the helper holds requests, one from it the answers that were given together. Requests
are two JSON lists: of what each asks for, ``[sequence, command, bytes of data]``, and of its
arguments. Their data follows behind a zero byte, or, if that of a single request is long, in a
descriptor that is passed with the message. Answers are a list of ``[sequence, error or null,
values]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import json
from typing import Any
from typing import NamedTuple

#: Bytes of the longest message in either direction.
MESSAGE_BYTES = 1 << 16

#: The sequence number of a request that nobody waits for.
NO_ANSWER = 0

# Taken here, before a test can patch them.
_encode = json.JSONEncoder().encode
_decode = json.JSONDecoder().decode


class Request(NamedTuple):
    """One thing that the helper is asked for, as it is sent.

    :param head: its sequence number, its command and the bytes of its data.
    """

    head: str
    arguments: str
    data: bytes

    @property
    def size(self) -> int:
        """Bytes that it takes in a message, at most."""
        return len(self.head) + len(self.arguments) + len(self.data) + len("[[],[]]\0")


def request(
    sequence: int, command: str, arguments: dict[str, object], data: bytes = b""
) -> Request:
    """Return a request that can be sent.

    :param sequence: names it in the answer, or :data:`NO_ANSWER`.
    :param arguments: what JSON can hold.
    """
    return Request(_encode([sequence, command, len(data)]), _encode(arguments), data)


def message(requests: Sequence[Request]) -> bytes:
    """Return the message that holds requests.

    What each asks for comes first of all, for strace shows no more than the beginning.
    """
    heads = ",".join(each.head for each in requests)
    arguments = ",".join(each.arguments for each in requests)
    text = f"[[{heads}],[{arguments}]]\0".encode("ascii")
    return b"".join([text, *(each.data for each in requests)])


def requests(message: bytes) -> Iterator[tuple[int, str, dict[str, Any], bytes]]:
    """Yield sequence number, command, arguments and data of the requests in a message."""
    head, _, data = message.partition(b"\0")
    for (sequence, command, size), arguments in zip(*_decode(head.decode("ascii")), strict=True):
        yield sequence, command, arguments, data[:size]
        data = data[size:]


def answer_message(answers: Sequence[tuple[int, str | None, dict[str, object]]]) -> bytes:
    """Return the message that holds answers: of each the sequence number, error and values."""
    return _encode(answers).encode("ascii")


def answers(message: bytes) -> Iterator[tuple[int, str | None, dict[str, Any]]]:
    """Yield sequence number, error and values of the answers in a message."""
    yield from _decode(message.decode("ascii"))
