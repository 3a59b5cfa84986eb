"""What a trace says of the child processes of a test, gathered for the findings on them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator

from msgspec.structs import replace

from pytest_eventlet_debug.recordings.findings.channels import End
from pytest_eventlet_debug.recordings.findings.channels import Held
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.findings.child_greenthreads import ForkedGreenthreads
from pytest_eventlet_debug.recordings.findings.child_streams import StandardStreams
from pytest_eventlet_debug.recordings.findings.child_threads import ChildThreads
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.own_waits import OwnWaits
from pytest_eventlet_debug.recordings.findings.own_waits import Wait
from pytest_eventlet_debug.recordings.findings.own_waits import own
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Syscall


class ChildFacts:
    """The children, what they did last, and what the test process waits for.

    :ivar children: by their process ids the calls that started them.
    :ivar main: the first thread of the test process, ``own`` all that are known.
    :ivar held: which ends of channels the test process holds.
    :ivar killers: by their process ids the calls by which children ended themselves.
    :ivar excused: those to which others have sent a signal.
    :ivar is_over: whether the test process has ended, or only shows what is alive.
    :ivar was_killed: whether it ended by ``SIGKILL``, as a test that hangs does.
    :ivar last_ns: when the last was seen of it, nanoseconds since the epoch.
    :ivar until_ns: when somebody looked at it, if it goes on.
    """

    def __init__(self, about: About) -> None:
        self.until_ns = about.until_ns
        self.processes = Processes(about.pid)
        self.children = self.processes.children()
        self.held = Held()
        self.own: set[int] = set()
        self.main: int | None = None
        self.threads = ChildThreads()
        self.waits = OwnWaits(self.processes)
        self.streams = StandardStreams(self.processes)
        self.greenthreads = ForkedGreenthreads(self.processes)
        self.killers: dict[int, Syscall] = {}
        self.excused: set[int] = set()
        self.is_over = False
        self.was_killed = False
        self.last_ns = 0

    def name(self, pid: int) -> str:
        name = self.processes.describe(pid, None)
        start = self.children.get(self.processes.process(pid) or pid)
        return f"{name}, started{own(start.where)}," if start is not None and start.at else name

    def family(self, pid: int) -> Iterator[int]:
        """Yield a process and those that it descends from, up to the test's."""
        process = self.processes.process(pid)
        starts = self.children
        while process is not None and process != self.main:
            yield process
            start = starts.get(process)
            process = self.processes.process(start.pid) if start is not None else None

    def ends(self, pid: int) -> dict[str, End]:
        """Return what a process has used, its threads included."""
        process = self.processes.process(pid)
        found: dict[str, End] = {}
        for other, thread in self.threads.items():
            if self.processes.process(other) == process:
                found.update(thread.ends)
        return found

    def has_ended(self, process: int | None) -> bool:
        """Return whether the trace has the end of a process."""
        thread = self.threads.get(process or 0)
        return thread is not None and thread.ended is not None

    def holder(self, wait: Wait) -> tuple[int, int, End] | None:
        """Return a child of the test's that ended, and one of its own that keeps a pipe open."""
        end = end_of(wait.shown)
        for pid, held in self.streams.writers(end) if end is not None else ():
            *_, first = self.family(pid)
            start = self.children[first]
            was_made_for_it = bool(held.side) or wait.line > start.line
            if was_made_for_it and self.has_ended(first) and not self.has_ended(pid):
                return first, pid, held
        return None


def finding(title: str, evidence: Evidence, counts: dict[str, float]) -> Finding:
    """Return a finding on a child process."""
    return Finding("child", title, (evidence,), counts=counts)


def how_it_ended(ended: Exit) -> str:
    """Return how a process ended, for the end of a phrase."""
    if ended.signal is not None:
        return f"was killed by {ended.signal}"
    return f"ended with status {ended.status}"


def merged(found: Iterable[tuple[object, Finding]]) -> Iterator[Finding]:
    """Yield the first of the findings that are alike, with how many more there are.

    :param found: findings, each with what those that are alike have in common.
    """
    alike: dict[object, list[Finding]] = {}
    for key, each in found:
        alike.setdefault(key, []).append(each)
    for first, *others in alike.values():
        more = f", and {len(others)} more like it" if others else ""
        yield replace(first, title=first.title + more)
