"""What children of the test process did last, as far as findings tell of it."""

from __future__ import annotations

from collections.abc import ItemsView
from collections.abc import Iterator

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import EPOLL_SETS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.channels import COPIES
from pytest_eventlet_debug.recordings.findings.channels import DATA
from pytest_eventlet_debug.recordings.findings.channels import READS
from pytest_eventlet_debug.recordings.findings.channels import WRITES
from pytest_eventlet_debug.recordings.findings.channels import End
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.strace_log import unescape
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Syscall

_MOST = 512
_ENDS = 32
_SAID = 500

#: How much later than the kernel closes its descriptors strace may tell of a process that it was
#: killed.
_REPORTED_NS = 50_000_000

TRANSFERS = READS | WRITES

#: The calls that :meth:`ChildThreads.see` takes.
CALLS = TRANSFERS | COPIES | EPOLL_SETS | names("execve exit_group epoll_ctl")

#: Standard error, or a file without a name, as pytest captures output in.
_OUTPUT = lazily(r"2<|\d+<[^<>]*>\(deleted\)")
_REGISTERED = lazily(rf"(\d+)(?:{ANNOTATION})?, EPOLL_CTL_(ADD|DEL), (\d+)")


class ChildThread:
    """What a thread of another process than the test's did last."""

    __slots__ = (
        *("added", "ended", "ends", "executed", "exiting", "failed", "last", "polls", "removes"),
        *("said", "shares", "stuck", "took"),
    )

    def __init__(self) -> None:
        #: The ends of pipes and connections that it used, by their channels.
        self.ends: dict[str, End] = {}
        #: Its last calls that read something, by the channels.
        self.took: dict[str, Syscall] = {}
        #: Its last transfer of data that was not output.
        self.last: Syscall | None = None
        #: The epoll sets that it made.
        self.polls: set[int] = set()
        #: The last that it wrote as output.
        self.said = ""
        #: Its first call that adds something to an epoll set that it did not make, the descriptors
        #: that it added so, and its first call that removes another one.
        self.shares: Syscall | None = None
        self.added: set[int] = set()
        self.removes: Syscall | None = None
        #: The call in which it waits.
        self.stuck: Syscall | None = None
        #: The call by which it ended.
        self.exiting: Syscall | None = None
        #: Whether it became another program, and whether it could not.
        self.executed = False
        self.failed = False
        self.ended: Exit | None = None

    def has_same(self, end: End) -> bool:
        """Say whether it used the same end of a channel, and not the other one."""
        used = self.ends.get(end.channel)
        if used is None:
            return False
        return used.side == end.side if end.side else end.channel in self.took

    @property
    def closed_ns(self) -> int:
        """From when on its process may have closed its descriptors, for it ended; in ns."""
        if self.exiting is not None:
            return self.exiting.start_ns
        return self.ended.time_ns - _REPORTED_NS if self.ended is not None else 0


class ChildThreads:
    """The threads of all processes but the test's."""

    def __init__(self) -> None:
        self._threads: dict[int, ChildThread] = {}

    def __iter__(self) -> Iterator[int]:
        return iter(self._threads)

    def items(self) -> ItemsView[int, ChildThread]:
        """Return them by their ids, in the order in which they were seen first."""
        return self._threads.items()

    def get(self, pid: int) -> ChildThread | None:
        """Return one, if it was seen."""
        return self._threads.get(pid)

    def at(self, pid: int) -> ChildThread:
        """Return one, seen now if it was not before; of too many the oldest goes."""
        thread = self._threads.get(pid)
        if thread is None:
            thread = ChildThread()
            remember(self._threads, pid, thread, _MOST)
        return thread

    def forget(self, pid: int) -> None:
        """Forget one that has turned out to be the test's."""
        self._threads.pop(pid, None)

    def see(self, call: Syscall) -> None:
        """Take note of a call of one."""
        thread = self.at(call.pid)
        name = call.name
        if name == "execve":
            thread.executed |= call.errno is None
            thread.failed |= call.errno is not None
        elif name == "exit_group":
            thread.exiting = call
        elif name in TRANSFERS:
            self._transferred(thread, call)
        elif name in EPOLL_SETS and call.value is not None:
            thread.polls.add(call.value)
        elif name == "epoll_ctl" and call.errno is None:
            self._registered(thread, call)
        elif name in COPIES:
            self._note(thread, call)

    @staticmethod
    def _registered(thread: ChildThread, call: Syscall) -> None:
        match = _REGISTERED.match(call.args)
        if match is None or int(match[1]) in thread.polls or thread.executed:
            return
        if match[2] == "ADD":
            thread.shares = thread.shares or call
            thread.added.add(int(match[3]))
        elif int(match[3]) not in thread.added:
            thread.removes = thread.removes or call

    def _transferred(self, thread: ChildThread, call: Syscall) -> None:
        is_output = call.name in WRITES and _OUTPUT.match(call.args) is not None
        if is_output and (data := DATA.search(call.args)) is not None:
            thread.said = (thread.said + unescape(data[1]) + (data[2] or ""))[-_SAID:]
        if self._note(thread, call) and (call.value or 0) > 0 and not is_output:
            thread.last = call
            end = end_of(call.args)
            if call.name in READS and end is not None:
                thread.took[end.channel] = call

    @staticmethod
    def _note(thread: ChildThread, call: Syscall) -> bool:
        end = end_of(call.args)
        if end is None or (end.channel not in thread.ends and len(thread.ends) == _ENDS):
            return False
        thread.ends[end.channel] = end
        return True
