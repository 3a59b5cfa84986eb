"""What a wait asks the kernel for, and what it brings."""

from __future__ import annotations

import re

import msgspec

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

_ONE = rf"\d+(?:{ANNOTATION})?"
_DESCRIPTOR = lazily(rf"((\d+)(?:{ANNOTATION})?)")
_POLLED = lazily(rf"\{{fd=((\d+)(?:{ANNOTATION})?), events=(POLLIN)?", re.ASCII)
_SET = lazily(rf"NULL|\[({_ONE}(?: {_ONE})*)?\]", re.ASCII)
#: With ``data={u32=3, u64=3}`` by strace 6.1 and ``data=0x7fb300000003`` by 7.2, all 64 bits, of
#: which Python sets the lower half.
_EPOLL_EVENT = lazily(r"\{events=([A-Z|]+), data=(?:\{u32=(\d+)|(0x[0-9a-f]+|0)\})", re.ASCII)
_POLL_EVENT = lazily(r"\{fd=(\d+)[^{}]*?, revents=([A-Z|]+)\}", re.ASCII)
_SELECTED = lazily(r"(in|out|except) \[([\d ]+)\]", re.ASCII)

#: Milliseconds, of ``epoll_wait`` and ``poll``.
_MILLISECONDS = lazily(r"(?<!NULL), (\d+)(?:, NULL, 8)?$", re.ASCII)
_SECONDS = lazily(r", \{tv_sec=(\d+), tv_(usec|nsec)=(\d+)\}", re.ASCII)


class Asked(msgspec.Struct, frozen=True):
    """A descriptor whose events a wait asks for."""

    #: The descriptor as strace names it: ``5<TCP:[127.0.0.1:80]>``.
    shown: str
    #: Whether that it can be read is one of them.
    to_read: bool


def tells_all(call: Syscall) -> bool:
    """Say whether a wait is a hub's, and one that tells the kernel of all descriptors."""
    return not call.name.startswith("epoll") and is_hub(call.greenthread)


def timeout_ns(call: Syscall) -> int | None:
    """Return how long a wait for descriptors may take, in nanoseconds; ``None`` for no limit."""
    exact = _SECONDS.search(call.args)
    if exact is not None:
        fraction = int(exact[3]) * (1000 if exact[2] == "usec" else 1)
        return int(exact[1]) * 1_000_000_000 + fraction
    whole = _MILLISECONDS.search(call.args)
    return int(whole[1]) * 1_000_000 if whole is not None else None


def without_timeout(call: Syscall) -> str:
    """Return the arguments of a ``poll`` or ``select`` up to the end of its last list."""
    return call.args[: call.args.rfind("]") + 1]


def asked_for(call: Syscall) -> dict[int, Asked] | None:
    """Return what a wait asks for, ``None`` where strace does not show all of it.

    :param call: a ``poll`` or ``select`` of any kind.
    """
    text = without_timeout(call)
    if "..." in text:
        return None
    if "select" not in call.name:
        return {int(fd): Asked(shown, bool(reads)) for shown, fd, reads in _POLLED.findall(text)}
    found: dict[int, Asked] = {}
    for number, descriptors in enumerate(_SET.findall(text)):
        for shown, fd in _DESCRIPTOR.findall(descriptors):
            found.setdefault(int(fd), Asked(shown, number == 0))
    return found


def events_of(call: Syscall) -> list[tuple[str, int]]:
    """Return what a wait brought: events and the descriptors they are for.

    :param call: an ``epoll_wait``, ``poll`` or ``select`` of any kind.
    """
    if call.name.startswith("epoll"):
        return [
            (events, int(fd) if fd else int(data, 16) & 0xFFFFFFFF)
            for events, fd, data in _EPOLL_EVENT.findall(call.args)
        ]
    ret = call.ret or ""
    if "select" in call.name:
        found = _SELECTED.findall(ret)
        return [(kind, int(fd)) for kind, numbers in found for fd in numbers.split()]
    return [(events, int(fd)) for fd, events in _POLL_EVENT.findall(ret)]
