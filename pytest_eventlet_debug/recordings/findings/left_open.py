"""Say which call opened a descriptor that a test has left behind.

That it was left is known in the test's process alone, where ``--eventlet-leaks`` looks; here
is who opened it. Where the kernel had no descriptor left for a test that fails, the trace alone
says what had them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from collections.abc import Iterator
from typing import ClassVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.openings import descriptor
from pytest_eventlet_debug.recordings.findings.parts import PAIRS
from pytest_eventlet_debug.recordings.findings.protocol import ANY_FAILED
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall

_MOST = 20
#: Places that are named of those that opened what was open when there were no descriptors left, and
#: how many each must have opened.
_MOST_PLACES = 2
_MANY = 5
#: What they return says which file they opened.
_BY_NAME = names("open openat openat2 creat")
_END = lazily(rf"(\d+){ANNOTATION}")


class LeftOpen:
    """The detector of who opened what is left open."""

    kind: ClassVar[Kind] = "left open"

    def __init__(self, trace: Trace) -> None:
        self._left = trace.about.left
        self._processes = trace.processes
        self._openings = trace.openings
        self._passed = trace.about.passed
        self._used_up: Finding | None = None

    def handlers(self) -> Handlers:
        return {} if self._passed else {ANY_FAILED: self._failed}

    def _failed(self, call: Syscall) -> None:
        if call.errno == "EMFILE" and self._used_up is None:
            self._used_up = self._all_open(call)

    def _all_open(self, call: Syscall) -> Finding | None:
        """Say what was open when a call got no descriptor; ``None`` if nothing stands out."""
        process = self._processes.process(call.pid)
        opened = self._openings.open_in(process)
        places = Counter((each.name, each.where) for each in opened).most_common(_MOST_PLACES)
        told = [
            f"{count:,} from {name}(){at or self._threads(opened, name)}"
            for (name, at), count in places
            if count >= _MANY
        ]
        if process != self._processes.main or not told:
            return None
        who = self._processes.describe(call.pid, call.greenthread)
        return Finding(
            self.kind,
            f"there was no descriptor left for {call.name}(){call.where} by {who}: "
            f"still open were {' and '.join(told)}",
            (Evidence(f"{call.name}({call.args}) = -1 EMFILE", STRACE_FILE, call.line),),
        )

    def _threads(self, opened: Iterable[Syscall], name: str) -> str:
        """Say in how many threads other than the test's own a call was made, if in any."""
        main = self._processes.main
        threads = {each.pid for each in opened if each.name == name and each.pid != main}
        return f" in {counted(len(threads), 'thread')}" if threads else ""

    def findings(self) -> Iterable[Finding]:
        if self._used_up is not None:
            yield self._used_up
        yield from self._left_open()

    def _left_open(self) -> Iterator[Finding]:
        for fd in self._left[:_MOST]:
            lives = self._openings.lives(self._processes.main, fd)
            opened = lives[-1].opened if lives and lives[-1].closed is None else None
            if opened is None:
                continue  # it was there before the trace, or came from another process
            who = self._processes.describe(opened.pid, opened.greenthread)
            shown = _returned(opened) or _of_pair(opened, fd)
            yield Finding(
                self.kind,
                f"{shown}, which {who} got from {_call(opened)}{opened.where}",
                (Evidence(f"{_call(opened)} = {opened.ret}", STRACE_FILE, opened.line),),
            )


def _returned(call: Syscall) -> str:
    """Return the descriptor that a call returned as strace names it, if it is its result."""
    return call.ret or "" if call.value is not None and call.value > 0 else ""


def _of_pair(call: Syscall, fd: int) -> str:
    """Return one of the two descriptors that a call has filled in as strace names it."""
    ends = (match[0] for match in _END.finditer(call.args) if match[1] == str(fd))
    return next(ends, str(fd))


def _call(call: Syscall) -> str:
    """Return a call with what it acts on, if that is a descriptor, or else its first arguments."""
    if call.name in _BY_NAME:
        shown = ""
    elif call.name in PAIRS:
        shown = call.args.partition("[")[0].rstrip(", ")
    else:
        shown = descriptor(call)
    if not shown or len(shown) > 100:
        shown = shown[:97] + "..."
    return f"{call.name}({shown})"
