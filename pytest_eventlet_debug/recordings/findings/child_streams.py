"""Which pipes and connections child processes have as their standard streams.

These are what a program's own children inherit: a pipe does not end as long as one has it.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.channels import End
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.trace_events import Syscall

_STREAMS = (0, 1, 2)
_MOST = 2048
_REPLACES = names("dup2 dup3")

#: The calls that :meth:`StandardStreams.see` takes.
CALLS = _REPLACES | {"close"}


class StandardStreams:
    """Follows what the children of the test process do with descriptors 0 to 2.

    :param processes: knows who started whom, once the trace has ended.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._changes: list[tuple[int, int, int, End | None]] = []

    def see(self, call: Syscall) -> None:
        """Take note of a call of a child."""
        if call.errno is not None:
            return
        end = None
        fd = call.fd if call.name == "close" else call.value
        if call.name != "close":
            source = end_of(call.args)
            if source is not None and fd is not None:
                shown = f"{fd}{source.shown[len(str(source.fd)) :]}"
                end = replace(source, fd=fd, shown=shown)
        if fd in _STREAMS and len(self._changes) < _MOST:
            self._changes.append((call.line, call.pid, fd, end))

    def writers(self, reader: End) -> Iterator[tuple[int, End]]:
        """Yield the children that could write to the other end of a channel, with their end."""
        if len(self._changes) == _MOST:
            return  # it is not known what they did with it
        for process in self._processes.children():
            for fd in _STREAMS:
                end = self._find(process, fd, None)
                if end is None or end.channel != reader.channel:
                    continue
                if end.side != reader.side if reader.side else fd != 0:
                    yield process, end
                    break

    def _find(self, process: int, fd: int, before: int | None) -> End | None:
        """Return what a process had as a standard stream, by default at its end."""
        while True:
            changes = [
                (line, end)
                for line, pid, number, end in self._changes
                if number == fd
                and self._processes.process(pid) == process
                and (before is None or line < before)
            ]
            if changes:
                return max(changes, key=lambda each: each[0])[1]
            start = self._processes.children().get(process)
            parent = self._processes.process(start.pid) if start is not None else None
            if start is None or parent is None or parent == self._processes.main:
                return None
            process, before = parent, start.line
