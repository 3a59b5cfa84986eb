"""Who makes a call: threads of the test process, and its child processes with their programs."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import cut
from pytest_eventlet_debug.recordings.findings.call_names import STARTS
from pytest_eventlet_debug.recordings.strace_log import unescape
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: Characters of a command line that are shown.
_SHOWN = 80

_QUOTED = lazily(r'"((?:[^"\\]|\\.)*)"')


class Processes:
    """Learns from a trace which thread belongs to which process.

    A thread of unknown origin is the test process's own: strace finds only such ones when it
    attaches. Ask at the end of the trace: a child's first calls come before the ``clone``
    that made it returns.

    :param pid: the test process, ``None`` if it is not known.
    :ivar main: the same; whoever follows a trace may set it to the first thread there.
    """

    def __init__(self, pid: int | None) -> None:
        self.main = pid
        self._process: dict[int, int] = {}
        self._starts: dict[int, Syscall] = {}
        self._programs: dict[int, str] = {}

    def handlers(self) -> Mapping[str, Callable[[Syscall], None]]:
        """Return what to call by the names of calls, as a detector does."""
        starters = dict.fromkeys(STARTS, self._started)
        return {**starters, "execve": self._executed}

    def process(self, thread: int) -> int | None:
        """Return the process that a thread belongs to, as far as the trace has told."""
        return self._process.get(thread, self.main)

    def children(self) -> Mapping[int, Syscall]:
        """Return the processes that were started, each with the call that did it."""
        return self._starts

    def describe(self, thread: int, greenthread: str | None) -> str:
        """Name who made a call: a greenthread of the test process, a thread, a child."""
        process = self.process(thread)
        if process == self.main:
            return f"greenthread {greenthread}" if greenthread else f"thread {thread}"
        program = self._programs.get(process or thread)
        name = f"child process {process}" + (f" ({program})" if program else "")
        return f"{name}, greenthread {greenthread}" if greenthread else name

    def _started(self, call: Syscall) -> None:
        if not call.value or call.value < 0:
            return
        parent = self.process(call.pid)
        if "CLONE_THREAD" in call.args:
            if parent is not None and parent != self.main:
                self._process[call.value] = parent
            return
        self._process[call.value] = call.value
        self._starts[call.value] = call
        if parent in self._programs and call.value not in self._programs:
            self._programs[call.value] = self._programs[parent]

    def _executed(self, call: Syscall) -> None:
        if call.errno is not None:
            return
        path, *words = (unescape(each) for each in _QUOTED.findall(call.args))
        line = " ".join(" ".join([path, *words[1:]]).split())
        self._programs[call.pid] = cut(line, _SHOWN)
