"""Tell which AMQP methods ask for an answer, and which answer them. See AMQP 0-9-1, 1.8 and 4.2."""

from __future__ import annotations

from collections.abc import Iterator
import struct

import msgspec

#: What a client sends first.
PROTOCOL = b"AMQP\0"

#: Type, channel and size of a frame; an octet follows what it carries.
_FRAME = struct.Struct("!BHI")
HEADER_SIZE = _FRAME.size
_METHOD_FRAME = 1
#: Class and number.
_METHOD = struct.Struct("!HH")

_GET = (60, 70)
_EXCHANGE_UNBIND = (40, 40)
#: What clients wait for an answer to, by class. Its number is the next one, as a rule.
_ANSWERED = {
    10: (40, 50),  # connection: open, close
    20: (10, 20, 40),  # channel: open, flow, close
    40: (10, 20, 30, 40),  # exchange: declare, delete, bind, unbind
    50: (10, 20, 30, 40, 50),  # queue: declare, bind, purge, delete, unbind
    60: (10, 20, 30, 70, 110),  # basic: qos, consume, cancel, get, recover
    85: (10,),  # confirm: select
    90: (10, 20, 30),  # tx: select, commit, rollback
}


class Method(msgspec.Struct, frozen=True):
    """A method that one side tells the other to carry out."""

    channel: int
    of_class: int
    number: int

    @property
    def is_answered(self) -> bool:
        return self.number in _ANSWERED.get(self.of_class, ())

    def answers(self, request: Method) -> bool:
        if (self.channel, self.of_class) != (request.channel, request.of_class):
            return False
        asked = (request.of_class, request.number)
        numbers = {request.number + 1}
        if asked == _GET:
            numbers.add(72)  # the queue is empty
        elif asked == _EXCHANGE_UNBIND:
            numbers = {51}
        return self.number in numbers


def methods(data: bytes) -> Iterator[Method]:
    """Yield the methods in what was sent, or read, from the beginning of a frame on."""
    at = 0
    while len(data) >= at + HEADER_SIZE + _METHOD.size:
        kind, channel, size = _FRAME.unpack_from(data, at)
        at += HEADER_SIZE
        if kind == _METHOD_FRAME:
            yield Method(channel, *_METHOD.unpack_from(data, at))
        at += size + 1
