"""Find DNS answers that a resolver drops, as they do not match its query. See RFC 5452, 9.1."""

from __future__ import annotations

import ipaddress
import struct

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.packets import Endpoint

_HEADER = struct.Struct("!HHHHHH")
_TYPE_AND_CLASS = struct.Struct("!HH")
_RESPONSE = 0x8000
#: What a query may have set: that recursion is desired, and what is signed.
_QUERY_FLAGS = 0x0130
_OPCODE = 0x7800
_TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
}

#: Clients, and queries of each, whose answers may still come.
_CLIENTS = 1024
_QUERIES = 32


class _Message(msgspec.Struct, frozen=True):
    """A query, or an answer that repeats its question."""

    id: int
    is_answer: bool
    #: Name and type: ``example.org A``.
    question: str


class _Query(msgspec.Struct, frozen=True):
    message: _Message
    server: Endpoint


class DnsExchange:
    """Compares the answers that clients get over UDP with their queries."""

    def __init__(self) -> None:
        self._queries: dict[Endpoint, list[_Query]] = {}

    def see(self, source: Endpoint, target: Endpoint, data: bytes) -> str | None:
        """Take in a datagram.

        :return: what is wrong with it, if it answers a query of the target's, but for one thing.
        """
        message = _read(data)
        if message is None:
            return None
        if not message.is_answer:
            if not ipaddress.ip_address(target.address).is_multicast:  # anybody may answer that
                self._asked(source, _Query(message, target))
            return None
        answer = _Query(message, source)
        queries = self._queries.get(target, [])
        if answer in (
            replace(query, message=replace(query.message, is_answer=True)) for query in queries
        ):
            return None
        wrong = (_difference(query, answer) for query in reversed(queries))
        return next((text for text in wrong if text is not None), None)

    def refused(self, source: Endpoint, target: Endpoint, data: bytes) -> str | None:
        """Return the question of a query that has been seen and that no socket took."""
        message = _read(data)
        known = self._queries.get(source, ())
        if message is None or _Query(message, target) not in known:
            return None
        return message.question

    def _asked(self, client: Endpoint, query: _Query) -> None:
        known = self._queries.get(client)
        if known is None:
            known = []
            remember(self._queries, client, known, _CLIENTS)
        known.append(query)
        del known[:-_QUERIES]


def asked_name(data: bytes) -> str | None:
    """Return the name that a datagram asks for; ``None`` if it is no DNS query."""
    message = _read(data)
    return None if message is None or message.is_answer else message.question.rpartition(" ")[0]


def _difference(query: _Query, answer: _Query) -> str | None:
    """Say in what an answer differs from a query, if that is one of three things."""
    asked, told = query.message, answer.message
    same_id, same_question = asked.id == told.id, asked.question == told.question
    same_server = query.server == answer.server
    what = f"answered the DNS query for {asked.question}"
    if same_server and same_question:
        return f"{what} with the id {told.id} instead of {asked.id}"
    if same_id and same_question:
        return f"{what}, which had been sent to {query.server}"
    if same_id and same_server:
        return f"{what} with the question {told.question}"
    return None


def _read(data: bytes) -> _Message | None:
    """Return what a datagram asks or answers; ``None`` if it is not DNS with one question."""
    if len(data) < _HEADER.size:
        return None
    number, flags, questions, answers, authorities, additional = _HEADER.unpack_from(data)
    is_answer = bool(flags & _RESPONSE)
    if questions != 1 or flags & _OPCODE:
        return None
    if not is_answer and (answers or authorities or additional > 1 or flags & ~_QUERY_FLAGS):
        return None
    labels, at = [], _HEADER.size
    while at < len(data) and data[at]:
        length = data[at]
        label = data[at + 1 : at + 1 + length]
        if length > 63 or len(label) < length:
            return None
        labels.append(label.decode("ascii", "backslashreplace").lower())
        at += 1 + length
    at += 1
    end = at + _TYPE_AND_CLASS.size
    if not labels or end > len(data) or (not is_answer and not additional and end != len(data)):
        return None
    type_, class_ = _TYPE_AND_CLASS.unpack_from(data, at)
    if class_ != 1:
        return None
    return _Message(number, is_answer, f"{'.'.join(labels)} {_TYPES.get(type_, f'type {type_}')}")
