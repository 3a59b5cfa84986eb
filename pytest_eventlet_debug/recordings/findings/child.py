"""Say which child processes ended badly or got stuck, and what the test still expects of them.

A child that ends in silence leaves a test that waits for its answer, and one that writes into a
pipe that nobody reads waits for the test, which may wait for it. Both show in the trace alone.

Many tests start what fails on purpose. So nothing is told of a test that passes, nor of a child
that another process of the test sent a signal, or whose program could not be started, which the
one that started it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from itertools import chain
from itertools import islice
from typing import ClassVar

from msgspec.structs import replace

from pytest_eventlet_debug import dump_limits
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.call_names import STARTS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.channels import WRITES
from pytest_eventlet_debug.recordings.findings.channels import End
from pytest_eventlet_debug.recordings.findings.channels import Held
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.findings.child_greenthreads import ForkedGreenthreads
from pytest_eventlet_debug.recordings.findings.child_streams import CALLS as STREAM_CALLS
from pytest_eventlet_debug.recordings.findings.child_streams import StandardStreams
from pytest_eventlet_debug.recordings.findings.child_threads import CALLS
from pytest_eventlet_debug.recordings.findings.child_threads import DATA
from pytest_eventlet_debug.recordings.findings.child_threads import TRANSFERS
from pytest_eventlet_debug.recordings.findings.child_threads import ChildThread
from pytest_eventlet_debug.recordings.findings.child_threads import ChildThreads
from pytest_eventlet_debug.recordings.findings.child_waits import WAITS
from pytest_eventlet_debug.recordings.findings.child_waits import ParentWaits
from pytest_eventlet_debug.recordings.findings.child_waits import Wait
from pytest_eventlet_debug.recordings.findings.child_waits import is_waiting
from pytest_eventlet_debug.recordings.findings.child_waits import own
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Signal
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: A child that waits for less may well go on.
STUCK_NS = 1_000_000_000
_MOST = 5
_SHOWN = 40

_KILLS = names("kill tkill tgkill pidfd_send_signal")
_CALLS = CALLS | WAITS | _KILLS | STARTS | POLLS | names("pipe pipe2 socketpair fcntl close")

#: What a hung test writes first when it is told to show what is alive; all after it is the dump's.
_SHOWS_ALIVE = dump_limits.BEGIN.rstrip()
_SHARED = lazily(rf"(\d+)(?:{ANNOTATION})?, EPOLL_CTL_ADD, (\d+(?:{ANNOTATION})?)")
_NUMBER = lazily(r"-?\d+")
_OF_PIDFD = lazily(r"\d+<pid:(\d+)>")


class Child:
    """The detector of child processes that end badly or get stuck."""

    kind: ClassVar[Kind] = "child"

    def __init__(self, about: About) -> None:
        self._passed = about.passed
        self._until_ns = about.until_ns
        self._processes = Processes(about.pid)
        self._children = self._processes.children()
        self._start_handlers = self._processes.handlers()
        self._held = Held()
        self._held_handlers = self._held.handlers()
        self._own: set[int] = set()
        self._main: int | None = None
        self._threads = ChildThreads()
        self._waits = ParentWaits(self._processes)
        self._streams = StandardStreams(self._processes)
        self._greenthreads = ForkedGreenthreads(self._processes)
        self._killers: dict[int, Syscall] = {}
        self._excused: set[int] = set()
        self._is_over = False
        self._was_killed = False
        self._last_ns = 0

    def handlers(self) -> Handlers:
        if self._passed:
            return {}
        return {**dict.fromkeys(_CALLS, self._call), ANY_OTHER: self._other}

    def _other(self, event: Event) -> None:
        if self._is_over:
            if type(event) is Exit and event.pid == self._main:
                self._was_killed = event.signal == "SIGKILL"
            return
        if type(event) is Phase and self._main is None:
            self._main = event.pid
            self._own.add(event.pid)
        elif type(event) is Switch:
            if event.pid == self._main:
                self._greenthreads.of_test(event)
                self._waits.ran(event)
            elif event.pid not in self._own:
                self._greenthreads.of_child(event)
        elif type(event) is Signal:
            self._last_ns = event.time_ns
        elif type(event) is Exit:
            self._last_ns = event.time_ns
            if event.pid == self._main:
                self._is_over = True
                self._was_killed = event.signal == "SIGKILL"
            elif event.pid not in self._own and event.superseded_by is None:
                self._threads.at(event.pid).ended = event

    def _call(self, call: Syscall) -> None:
        name, pid = call.name, call.pid
        if self._main is None:
            return
        if self._is_over:
            # What has not returned is in the trace where its thread ends.
            if is_waiting(call) and call.start_ns < self._last_ns:
                if pid in self._own:
                    self._waits.stick(call)
                else:
                    self._threads.at(pid).stuck = call
            return
        self._last_ns = max(self._last_ns, call.start_ns)
        if name in self._start_handlers:
            self._start_handlers[name](call)
            self._started(call)
        if name in _KILLS:
            self._kill(call)
        elif name in WAITS:
            self._waits.wait(call)
        if pid in self._own:
            self._of_test(call)
            return
        self._threads.at(pid).stuck = call if is_waiting(call) else None
        self._greenthreads.called(call)
        if name in STREAM_CALLS:
            self._streams.see(call)
        if name in CALLS:
            self._threads.see(call)

    def _started(self, call: Syscall) -> None:
        thread = call.value or 0
        if call.pid in self._own and "CLONE_THREAD" in call.args and thread > 0:
            self._own.add(thread)
            self._threads.forget(thread)

    def _of_test(self, call: Syscall) -> None:
        name, pid = call.name, call.pid
        if name == "write" and pid == self._main and _SHOWS_ALIVE in call.args:
            self._is_over = True
            return
        handler = self._held_handlers.get(name)
        if handler is not None and (self._children or name not in TRANSFERS):
            handler(call)
        self._waits.register(call)
        if self._children:
            self._waits.see(call)

    def _kill(self, call: Syscall) -> None:
        """Take note of who sends whom a signal. Who gets one of another process ends on purpose."""
        match = _OF_PIDFD.match(call.args) or _NUMBER.search(call.args)
        if match is None or call.errno is not None or "SIG" not in call.args:
            return
        target = int(match[match.re.groups])
        if target == call.pid:
            self._killers.setdefault(target, call)  # a handler sends it once more
            return
        for pid in (target,) if target > 0 else tuple(self._threads):
            thread = self._threads.get(pid)
            if thread is None or thread.ended is None:
                self._excused.add(pid)

    def findings(self) -> Iterable[Finding]:
        if not self._children:
            return
        waits = list(self._waits.for_data(self._main))
        found = chain(
            self._stuck_children(waits),
            self._taking_children(waits),
            self._holding_children(waits),
            _merged(self._sharing_children()),
            self._ended_children(waits),
            _merged(self._forked_greenthreads()),
        )
        yield from islice(found, _MOST)

    def _stuck_children(self, waits: list[Wait]) -> Iterator[Finding]:
        """Tell of children that wait for the test process."""
        for pid, thread in self._threads.items():
            call = thread.stuck
            end = end_of(call.args) if call is not None and call.name in TRANSFERS else None
            if call is None or end is None or self._processes.process(pid) == self._main:
                continue
            until_ns = self._last_ns
            if thread.ended is not None:
                until_ns = thread.ended.time_ns
            elif self._until_ns is not None and not self._is_over:
                until_ns = self._until_ns  # nothing else need be in the trace since
            waited_ns = until_ns - call.start_ns
            if waited_ns < STUCK_NS:
                continue
            writes = call.name in WRITES
            others = self._held.readers(end) if writes else self._held.writers(end)
            other = next(iter(others), None)
            expected = self._expected(pid, call, end, waits)
            if other is None or not (writes or expected):
                continue
            lack = "did not read from it" if writes else "wrote nothing into it"
            state = "is full" if writes else "is empty"
            yield self._finding(
                f"{self._name(pid)} waited for {waited_ns / 1e9:.2f} s in "
                f"{call.name}({end.shown}){own(call.where)}, which {state}: the test process has "
                f"its other end, {other.shown}, and {lack}{expected}",
                Evidence(f"{call.name}({end.shown})", STRACE_FILE, call.line),
                {"seconds": waited_ns / 1e9},
            )

    def _taking_children(self, waits: list[Wait]) -> Iterator[Finding]:
        """Tell of children that read what the test process waits for, from the same end."""
        for wait in waits:
            end = end_of(wait.shown)
            for pid, thread in self._threads.items():
                call = thread.took.get(end.channel) if end is not None else None
                took = end_of(call.args) if call is not None else None
                if call is None or took is None or end is None or took.side != end.side:
                    continue
                if wait.end is not None and wait.end.line < call.line:
                    continue
                amount = counted(call.value or 0, "byte")
                yield self._finding(
                    f"{self._name(pid)} read {amount} from {took.shown}"
                    f"{own(call.where)}, an end that the test process has, too; {wait.who} waited "
                    f"in vain for {wait.shown}{own(wait.where)} (line {wait.line})",
                    Evidence(f"{call.name}({took.shown})", STRACE_FILE, call.line),
                    {"bytes": float(call.value or 0)},
                )
                break

    def _holding_children(self, waits: list[Wait]) -> Iterator[Finding]:
        """Tell of children that have inherited the other end of what the test process reads."""
        for wait in waits:
            first, holder, held = self._holder(wait) or (0, 0, None)
            thread = self._threads.get(first)
            if held is None or thread is None or thread.ended is None:
                continue
            yield self._finding(
                f"{wait.who} waited in vain for {wait.shown}{own(wait.where)} (line {wait.line}): "
                f"{self._name(first)} {_how(thread.ended)}, but "
                f"{self._processes.describe(holder, None)} descends from it, has inherited the "
                f"other end as {held.shown}, and goes on",
                Evidence(f"+++ {_how(thread.ended)} +++", STRACE_FILE, thread.ended.line),
                {},
            )

    def _holder(self, wait: Wait) -> tuple[int, int, End] | None:
        """Return a child of the test's that ended, and one of its own that keeps a pipe open."""
        end = end_of(wait.shown)
        for pid, held in self._streams.writers(end) if end is not None else ():
            *_, first = self._family(pid)
            start = self._children[first]
            was_made_for_it = bool(held.side) or wait.line > start.line
            if was_made_for_it and self._has_ended(first) and not self._has_ended(pid):
                return first, pid, held
        return None

    def _forked_greenthreads(self) -> Iterator[tuple[object, Finding]]:
        """Tell of greenthreads of the test process that go on in a child."""
        for pid, switch, call in self._greenthreads.find():
            where = own(call.where) if call is not None else ""
            yield (
                (self._children[pid].at, switch.greenthread, where),
                self._finding(
                    f"{self._name(pid)} runs a copy of greenthread {switch.greenthread} of the "
                    f"test process since the fork{where}",
                    Evidence(f"greenthread {switch.greenthread}", STRACE_FILE, switch.line),
                    {},
                ),
            )

    def _sharing_children(self) -> Iterator[tuple[object, Finding]]:
        """Tell of children that have their hub poll with the epoll set of the test's."""
        for pid, start in self._children.items():
            thread = self._threads.get(pid)
            call = thread.shares if thread is not None else None
            match = _SHARED.match(call.args) if call is not None else None
            if call is None or match is None or start.pid not in self._own:
                continue
            yield (
                (start.at, call.at),
                self._finding(
                    f"{self._name(pid)} shares the epoll set {match[1]} of the test process since "
                    f"the fork: it adds {match[2]}{own(call.where)}, whose events come to both of "
                    "them",
                    Evidence(f"epoll_ctl({match[0]})", STRACE_FILE, call.line),
                    {},
                ),
            )

    def _expected(self, pid: int, since: Syscall, end: End, waits: list[Wait]) -> str:
        """Say what the test process expects of a child, for the end of a phrase."""
        call = self._waits.for_an_end(set(self._family(pid)), since)
        if call is not None:
            who = self._processes.describe(call.pid, call.greenthread)
            return f"; {who} waited for the child to end{own(call.where)} (line {call.line})"
        ends = self._ends(pid)
        for wait in waits:
            other = end_of(wait.shown)
            if other is not None and other.channel != end.channel and other.channel in ends:
                return f"; {wait.who} waited for {wait.shown}{own(wait.where)} (line {wait.line})"
        return ""

    def _family(self, pid: int) -> Iterator[int]:
        """Yield a process and those that it descends from, up to the test's."""
        process = self._processes.process(pid)
        starts = self._children
        while process is not None and process != self._main:
            yield process
            start = starts.get(process)
            process = self._processes.process(start.pid) if start is not None else None

    def _ends(self, pid: int) -> dict[str, End]:
        """Return what a process has used, its threads included."""
        process = self._processes.process(pid)
        found: dict[str, End] = {}
        for other, thread in self._threads.items():
            if self._processes.process(other) == process:
                found.update(thread.ends)
        return found

    def _ended_children(self, waits: list[Wait]) -> Iterator[Finding]:
        """Tell of children that ended, those for which the test waits first."""
        ended = []
        alike: dict[tuple[object, ...], int] = {}
        for pid, start in self._children.items():
            thread = self._threads.get(pid)
            if thread is None or thread.ended is None or not self._may_tell(pid, thread):
                continue
            wait = self._awaited(pid, start, waits)
            is_direct = start.pid in self._own
            is_bad = thread.ended.status != 0 and pid not in self._excused
            if wait is not None or (is_bad and is_direct):
                ended.append((wait is None, self._waits.reaped(pid) is not None, pid, wait))
                key = self._likeness(pid, thread)
                alike[key] = alike.get(key, 0) + 1
        for _, _, pid, wait in sorted(ended, key=lambda each: each[:3]):
            count = alike.pop(self._likeness(pid, self._threads.at(pid)), 0)
            if count:
                yield self._tell_end(pid, self._threads.at(pid), wait, count - 1)

    def _likeness(self, pid: int, thread: ChildThread) -> tuple[object, ...]:
        """Return what children that ended for the same reason have in common."""
        ended, start = thread.ended, self._children[pid]
        how = (ended.status, ended.signal) if ended is not None else None
        return how, start.at, _last_line(thread.said)

    def _may_tell(self, pid: int, thread: ChildThread) -> bool:
        if thread.failed and not thread.executed:
            return False
        killed = thread.ended is not None and thread.ended.signal == "SIGKILL"
        return not (killed and self._was_killed and pid not in self._killers)

    def _awaited(self, pid: int, start: Syscall, waits: list[Wait]) -> Wait | None:
        """Return the test's wait for a channel that a child used, if no other process has it."""
        for wait in waits:
            end = end_of(wait.shown)
            if end is None or (end.side and wait.line < start.line):
                continue  # an asyncio loop's socket pair to itself is inherited, too
            if self._holder(wait) is not None:
                continue
            users = {
                self._processes.process(other)
                for other, each in self._threads.items()
                if end.channel in each.ends and not each.has_same(end)
            }
            users.discard(self._main)
            if pid in users and all(self._has_ended(user) for user in users):
                return wait
        return None

    def _has_ended(self, process: int | None) -> bool:
        thread = self._threads.get(process or 0)
        return thread is not None and thread.ended is not None

    def _tell_end(self, pid: int, thread: ChildThread, wait: Wait | None, more: int) -> Finding:
        ended = thread.ended
        assert ended is not None
        how = _how(ended)
        killer = self._killers.get(pid) if ended.signal else None
        place = own(killer.where) if killer is not None else ""
        if ended.signal is None and thread.exiting is not None:
            # What a library calls on behalf of the line that forked is in every child.
            place = thread.exiting.where if ", from " not in thread.exiting.where else ""
        line = _last_line(thread.said)
        last = thread.last
        if line:
            after = f' after it had written "{line}"'
        elif last is not None:
            after = f" after {_transfer(last)} (line {last.line})"
        else:
            after = ""
        others = f", and {more} more like it" if more else ""
        status = {"status": float(ended.status)} if ended.status is not None else {}
        return self._finding(
            f"{self._name(pid)} {how}{place}{after}{self._consequence(pid, thread, wait)}{others}",
            Evidence(f"+++ {how} +++", STRACE_FILE, ended.line),
            status,
        )

    def _consequence(self, pid: int, thread: ChildThread, wait: Wait | None) -> str:
        reaped, missed = self._waits.reaped(pid), self._waits.missed(pid)
        missing = ""
        if missed is not None:
            who = self._processes.describe(missed.pid, missed.greenthread)
            missing = f"{who} got ECHILD{own(missed.where)} (line {missed.line})"
        unreaped = "; nobody waited for the child" if reaped is None else ""
        if reaped is None and missed is not None:
            unreaped = f"; its status was not kept, and {missing} in place of it"
        if wait is not None:
            return (
                f"; {wait.who} waited in vain for {wait.shown}{own(wait.where)} "
                f"(line {wait.line}), which no other process used{unreaped}"
            )
        for channel in self._ends(pid):
            call = self._waits.broken(channel)
            if call is not None and _returned_ns(call) >= thread.closed_ns:
                who = self._processes.describe(call.pid, call.greenthread)
                end = end_of(call.args)
                what = f"got {call.errno}" if call.errno else "read the end of file"
                return (
                    f"; {who} then {what} from {end.shown if end else ''}{own(call.where)} "
                    f"(line {call.line}){unreaped}"
                )
        if reaped is not None:
            who = self._processes.describe(reaped.pid, reaped.greenthread)
            rest = f", so that {missing} in place of the status" if missing else ""
            return f"; {who} waited for it{own(reaped.where)} (line {reaped.line}){rest}"
        return unreaped

    def _name(self, pid: int) -> str:
        name = self._processes.describe(pid, None)
        start = self._children.get(self._processes.process(pid) or pid)
        return f"{name}, started{own(start.where)}," if start is not None and start.at else name

    def _finding(self, title: str, evidence: Evidence, counts: dict[str, float]) -> Finding:
        return Finding(self.kind, title, (evidence,), counts=counts)


def _merged(found: Iterable[tuple[object, Finding]]) -> Iterator[Finding]:
    """Yield the first of the findings that are alike, with how many more there are."""
    alike: dict[object, list[Finding]] = {}
    for key, finding in found:
        alike.setdefault(key, []).append(finding)
    for first, *others in alike.values():
        more = f", and {len(others)} more like it" if others else ""
        yield replace(first, title=first.title + more)


def _how(ended: Exit) -> str:
    if ended.signal is not None:
        return f"was killed by {ended.signal}"
    return f"ended with status {ended.status}"


def _returned_ns(call: Syscall) -> int:
    return call.start_ns + (call.duration_ns or 0)


def _last_line(said: str) -> str:
    """Return the last line of an output, as one to print; nothing if strace has cut it."""
    line = said.rstrip().rpartition("\n")[2].strip()
    if line.endswith("..."):
        return ""
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
    return shown if len(shown) <= 2 * _SHOWN else f"{shown[: 2 * _SHOWN]}..."


def _transfer(call: Syscall) -> str:
    """Return a transfer with the beginning of its data: ``read(16<pipe:[42]>, "poison")``."""
    end, data = end_of(call.args), DATA.search(call.args)
    shown = f', "{data[1][:_SHOWN]}"' if data is not None else ""
    more = "..." if data is not None and (data[2] or len(data[1]) > _SHOWN) else ""
    return f"{call.name}({end.shown if end else ''}{shown}{more})"
