"""Pipes and connections, by which processes talk to each other, and who holds their ends."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.system.high_descriptors import HIGH_DESCRIPTOR

READS = names("read readv recv recvfrom recvmsg")
WRITES = names("write writev send sendto sendmsg")
#: Calls that give a descriptor another number.
COPIES = names("dup dup2 dup3")

#: What a transfer transfers, and whether strace has cut it.
DATA = lazily(r'"((?:[^"\\]|\\.)*)"(\.\.\.)?')

#: Characters of data that are shown.
_SHOWN = 40

#: Channels of which it is known who holds their ends.
_MOST = 1024

_ONE = r"(\d{1,10})<(pipe|UNIX|TCP)[\w-]*:\[((?:->|[^>])*)\]>"
_END = lazily(_ONE)
_PAIR = lazily(rf"\[({_ONE}), ({_ONE})\]")


class End(msgspec.Struct, frozen=True):
    """A descriptor that is an end of a pipe or of a connection."""

    fd: int
    #: The descriptor as strace names it: ``16<pipe:[42]>``.
    shown: str
    #: The same for both ends.
    channel: str
    #: Which of the two ends of a connection; empty for a pipe, of which strace does not tell.
    side: str


def end_of(text: str) -> End | None:
    """Return the end that arguments begin with; ``None`` if it is none, or this plugin's own."""
    match = _END.match(text)
    if match is None or int(match[1]) >= HIGH_DESCRIPTOR:
        return None
    fd, kind, body = match.groups()
    if kind == "pipe":
        return End(int(fd), match[0], f"pipe {body}", "")
    local, arrow, remote = body.partition("->")
    if not arrow:
        return None
    remote = remote.partition(",")[0]  # the path of a named socket
    return End(int(fd), match[0], " ".join((kind, *sorted((local, remote)))), local)


def transfer(call: Syscall) -> str:
    """Return a transfer with the beginning of its data: ``read(16<pipe:[42]>, "poison")``."""
    end, shown = end_of(call.args), data_of(call)
    return f"{call.name}({end.shown if end else ''}{f', {shown}' if shown else ''})"


def data_of(call: Syscall) -> str:
    """Return the beginning of a transfer's data, as strace quotes it; nothing without any."""
    data = DATA.search(call.args)
    if data is None:
        return ""
    is_cut = data[2] or len(data[1]) > _SHOWN
    shown = data[1][:_SHOWN].rstrip("\\") if len(data[1]) > _SHOWN else data[1]
    return f'"{shown}"{"..." if is_cut else ""}'


class Held:
    """Which ends of channels a process holds, and to which end of a pipe each belongs."""

    def __init__(self) -> None:
        self._ends: dict[str, dict[int, tuple[End, bool | None]]] = {}
        self._channels: dict[int, str] = {}
        #: What was closed of a channel, and when, in nanoseconds since the epoch.
        self._closings: dict[str, list[tuple[End, bool | None, int]]] = {}

    def handlers(self) -> Mapping[str, Callable[[Syscall], None]]:
        """Return what to call, with the process's own calls, by their names."""
        return {
            **dict.fromkeys(("pipe", "pipe2", "socketpair"), self._made),
            **dict.fromkeys(READS, self._read),
            **dict.fromkeys(WRITES, self._wrote),
            **dict.fromkeys((*COPIES, "fcntl"), self._copied),
            "close": self._closed,
        }

    def readers(self, writer: End, until_ns: int) -> Iterator[End]:
        """Yield the ends at which what is written to the other one could be read.

        :param until_ns: the time, nanoseconds since the epoch, at which they had not been closed.
        """
        for end, writes in self._held(writer.channel, until_ns):
            if writes is False if not end.side else end.side != writer.side:
                yield end

    def writers(self, reader: End, until_ns: int) -> Iterator[End]:
        """Yield the ends from which something could be written to the other one.

        :param until_ns: the time, nanoseconds since the epoch, at which they had not been closed.
        """
        for end, writes in self._held(reader.channel, until_ns):
            if writes is True if not end.side else end.side != reader.side:
                yield end

    def _held(self, channel: str, until_ns: int) -> Iterator[tuple[End, bool | None]]:
        yield from self._ends.get(channel, {}).values()
        for end, writes, time_ns in self._closings.get(channel, ()):
            if time_ns >= until_ns:
                yield end, writes

    def _made(self, call: Syscall) -> None:
        match = _PAIR.search(call.args)
        if match is None or call.errno is not None:
            return
        first, second = end_of(match[1]), end_of(match[5])
        if first is not None and second is not None:
            self._add(first, writes=False)
            self._add(second, writes=True)

    def _read(self, call: Syscall) -> None:
        self._used(call, writes=False)

    def _wrote(self, call: Syscall) -> None:
        self._used(call, writes=True)

    def _used(self, call: Syscall, *, writes: bool) -> None:
        end = end_of(call.args)
        if end is not None and call.errno != "EBADF":
            self._add(end, writes=writes)

    def _copied(self, call: Syscall) -> None:
        if call.value is None or call.value < 0:
            return
        if call.name == "fcntl" and "F_DUPFD" not in call.args:
            return
        end = end_of(call.args)
        if end is None:
            self._forget(call.value)
            return
        known = self._ends.get(end.channel, {}).get(end.fd)
        shown = f"{call.value}{end.shown[len(str(end.fd)) :]}"
        copy = replace(end, fd=call.value, shown=shown)
        self._add(copy, writes=known[1] if known is not None else None)

    def _add(self, end: End, *, writes: bool | None) -> None:
        if self._channels.get(end.fd) != end.channel:
            self._forget(end.fd)  # closed by the call that gave its number away
        known = self._ends.get(end.channel)
        if known is None:
            if len(self._ends) == _MOST:
                for fd in self._ends.pop(next(iter(self._ends))):
                    del self._channels[fd]
            known = self._ends[end.channel] = {}
        known[end.fd] = end, writes
        self._channels[end.fd] = end.channel

    def _closed(self, call: Syscall) -> None:
        fd = call.fd
        if call.errno is None and fd is not None:
            channel = self._channels.get(fd, "")
            known = self._ends.get(channel, {}).get(fd)
            if known is not None:
                before = self._closings.get(channel, [])[-1:]
                remember(self._closings, channel, [*before, (*known, call.start_ns)], _MOST)
            self._forget(fd)

    def _forget(self, fd: int) -> None:
        channel = self._channels.pop(fd, None)
        if channel is not None:
            known = self._ends[channel]
            del known[fd]
            if not known:
                del self._ends[channel]
