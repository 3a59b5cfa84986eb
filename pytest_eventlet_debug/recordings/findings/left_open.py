"""Say which call opened a descriptor that a test has left behind.

That it was left is known in the test's process alone, where ``--eventlet-leaks`` looks; here
is who opened it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.openings import Openings
from pytest_eventlet_debug.recordings.findings.openings import descriptor
from pytest_eventlet_debug.recordings.findings.parts import PAIRS
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall

_MOST = 20
#: What they return says which file they opened.
_BY_NAME = names("open openat openat2 creat")
_END = lazily(rf"(\d+){ANNOTATION}")


class LeftOpen:
    """The detector of who opened what is left open."""

    kind: ClassVar[Kind] = "left open"

    def __init__(self, about: About) -> None:
        self._left = about.left
        self._processes = Processes(about.pid)
        self._openings = Openings(self._processes)

    def handlers(self) -> Handlers:
        if not self._left:
            return {}
        return {**self._processes.handlers(), **self._openings.handlers()}

    def findings(self) -> Iterable[Finding]:
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
    return f"{call.name}({shown if len(shown) <= 100 else shown[:97] + '...'})"
