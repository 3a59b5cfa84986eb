"""Which sockets and pipes keep no call waiting, because they are nonblocking."""

from __future__ import annotations

from typing import ClassVar

from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.parts import PAIRS
from pytest_eventlet_debug.recordings.findings.parts import ends_of_pair
from pytest_eventlet_debug.recordings.trace_events import Syscall

_CALLS = names(
    """read readv write writev send sendto sendmsg recv recvfrom recvmsg accept accept4 connect"""
)
_DUPLICATES = names("dup dup2 dup3")


class Nonblocking:
    """Follows how the sockets and pipes of one process are set.

    What was opened before the trace counts as blocking until the process sets it.
    """

    #: What :meth:`follow` is to see; anything else changes nothing.
    CALLS: ClassVar = names("ioctl fcntl socket accept accept4 close") | PAIRS | _DUPLICATES

    def __init__(self) -> None:
        self._fds: set[int] = set()

    def covers(self, call: Syscall) -> bool:
        """Say whether a call returned at once, if only it had a CPU."""
        return call.name in _CALLS and call.fd in self._fds

    def follow(self, call: Syscall) -> None:
        """Take note of one of :data:`CALLS` that the process made."""
        if call.errno is not None:
            return
        if call.name == "close":
            self._note(call.fd, nonblocking=False)
        elif call.name == "ioctl":
            if ", FIONBIO, " in call.args:
                self._note(call.fd, nonblocking=not call.args.endswith("[0]"))
        elif call.name in _DUPLICATES or ", F_DUPFD" in call.args:
            self._note(call.value, nonblocking=call.fd in self._fds)
        elif call.name == "fcntl":
            if ", F_SETFL, " in call.args:
                self._note(call.fd, nonblocking="O_NONBLOCK" in call.args)
        else:
            for fd in ends_of_pair(call) if call.name in PAIRS else (call.value,):
                self._note(fd, nonblocking="_NONBLOCK" in call.args)

    def _note(self, fd: int | None, *, nonblocking: bool) -> None:
        if fd is None:
            return
        if nonblocking:
            self._fds.add(fd)
        else:
            self._fds.discard(fd)
