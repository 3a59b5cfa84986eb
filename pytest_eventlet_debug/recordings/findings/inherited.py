"""Which child process still has a listener that the test process has closed.

The kernel completes connections for as long as any process has the socket.
"""

from __future__ import annotations

import msgspec

from pytest_eventlet_debug.recordings.findings.own_waits import own
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Syscall


class _Closed(msgspec.Struct, frozen=True):
    """A listener that the test process has closed.

    :param words: what it was, in words.
    """

    fd: int | None
    port: int
    words: str
    listen: Syscall
    close: Syscall


class Inherited:
    """Follows who may have a listener of the test process beside it."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._closed: dict[int, _Closed] = {}
        #: The descriptors that children have closed, and from which number on all.
        self._dropped: dict[tuple[int, int | None], None] = {}
        self._dropped_from: dict[int, int] = {}
        #: Descriptors of which the test process has made others.
        self._copied: set[int | None] = set()
        self._ends: dict[int, int] = {}

    def __bool__(self) -> bool:
        """Whether the test process has closed a listener."""
        return bool(self._closed)

    def close(self, fd: int | None, port: int, words: str, listen: Syscall, close: Syscall) -> None:
        """Note that the test process has closed a listener, the last one of its port."""
        remember(self._closed, port, _Closed(fd, port, words, listen, close))

    def drop(self, call: Syscall) -> None:
        """Note that a child closes a descriptor."""
        process = self._processes.process(call.pid)
        if process is not None and process != self._processes.main:
            remember(self._dropped, (process, call.fd), None)

    def drop_all(self, call: Syscall) -> None:
        """Note that a child closes all descriptors from a number on."""
        first = call.args.partition(",")[0]
        if call.errno is None and first.isdecimal():
            process = self._processes.process(call.pid) or 0
            remember(self._dropped_from, process, int(first))

    def copy(self, call: Syscall) -> None:
        """Note that a process has another descriptor of something."""
        if call.name != "fcntl" or "F_DUPFD" in call.args:
            self._copied.add(call.fd)

    def end(self, event: Exit) -> None:
        """Note the end of a process."""
        remember(self._ends, event.pid, event.line)

    def holder(self, port: int, line: int) -> str:
        """Say in words who has the listener of a port that the test process connects to.

        :param line: of the call that connects.
        :return: ``""`` if it is not closed by then, or not known who has it.
        """
        closed = self._closed.get(port)
        if closed is None or closed.close.line > line or closed.fd in self._copied:
            return ""
        families = [
            members
            for pid, start in self._processes.children().items()
            if self._processes.process(start.pid) == self._processes.main
            and closed.listen.line < start.line < closed.close.line
            and (members := self._family(pid, closed.fd, line))
        ]
        if len(families) != 1:
            return ""
        pid = families[0][0]
        return (
            f"the listener {closed.words}, was closed{own(closed.close.where)} (line "
            f"{closed.close.line}), but {self._processes.describe(pid, None)}, "
            f"started{own(self._processes.children()[pid].where)}, has inherited it and goes on"
        )

    def _family(self, pid: int, fd: int | None, line: int) -> list[int]:
        """Return a process and those that descend from it, without those that have ended."""
        if (pid, fd) in self._dropped or self._dropped_from.get(pid, 1 << 30) <= (fd or 0):
            return []
        found = [pid] if self._ends.get(pid, line) >= line else []
        for each, start in self._processes.children().items():
            if self._processes.process(start.pid) == pid:
                found += self._family(each, fd, line)
        return found
