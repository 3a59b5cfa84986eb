"""Count the calls of a test, and compare the counts of one test on several hubs.

Only what says something about the test itself is compared. Waits and registrations, and the
sockets with which a loop wakes itself, are each hub's own way; files and memory are those of
imports, which the first test on a hub pays for. Time counts where the hub slept until a timer
was due: unlike the wall clock, and unlike waiting for others, it does not grow with the load of
the machine. It does while a child process runs, whose end a greenthread asks for between sleeps,
and while another thread works, such as one of ``eventlet.tpool``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Final

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.call_names import STARTS
from pytest_eventlet_debug.recordings.findings.call_names import WAITS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.loop_pairs import LoopPairs
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.model import Tally
from pytest_eventlet_debug.recordings.findings.parts import PAIRS
from pytest_eventlet_debug.recordings.findings.parts import Parts
from pytest_eventlet_debug.recordings.findings.polls import timeout_ns
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

KIND: Final[Kind] = "hub cost"

MIN_CALLS = 20
#: Calls on one hub for each on another; a retry more or less is no difference.
MIN_RATIO = 4.0
MIN_SECONDS = 0.3
MIN_SECONDS_RATIO = 2.0
#: How much of the longer sleep must show in the time that the test took.
MIN_SECONDS_SHARE = 0.7
#: What the longer hub must have more of: a missed wake-up is a sleep that the other has not.
LONG_SLEEP_NS = 100_000_000
#: How much of a difference must be one socket's for that to be named.
MIN_OBJECT_SHARE = 0.8
#: A thread that made a call in this last part of a sleep was working when it ended.
WORKING_SHARE = 0.1
MIN_CPU_SECONDS = 0.5
#: A CPU that others use too makes caches cold: a third more says nothing.
MIN_CPU_RATIO = 3.0
MIN_ALL_CALLS = 2_000
#: All calls but those of imports and the hub's own: each turn of the asyncio hub is a wait.
MIN_ALL_RATIO = 10.0

_COMPARED = names(
    """socket socketpair bind listen accept accept4 connect shutdown getsockname getpeername
    sendto sendmsg recvfrom recvmsg setsockopt getsockopt pipe pipe2 eventfd2
    fork vfork clone clone3 execve wait4 waitid kill tgkill"""
)
_ON_SOCKETS = names(
    "bind listen accept accept4 connect shutdown close getsockname getpeername"
) | names("sendto sendmsg recvfrom recvmsg setsockopt getsockopt")
#: What the first test that imports a module pays for, and what is each hub's own way to wait.
_OF_IMPORTS_OR_HUBS = names(
    """epoll_ctl open openat stat lstat fstat newfstatat statx lseek read close getdents64 readlink
    readlinkat access faccessat faccessat2 fcntl ioctl getcwd mmap munmap mremap mprotect madvise
    brk futex rt_sigaction rt_sigprocmask getrandom clock_gettime clock_nanosleep gettid getpid"""
).union(WAITS)
_MOST_OBJECTS = 1024


class Tallying:
    """Counts while a trace passes by; takes part in a detection by its handlers.

    :ivar counts: the calls so far, by name. Whoever passes the trace adds to them: that is
        cheaper than to hand every call over.
    :ivar before: the event that passed before the one that is handed over; set by them, too.
    """

    def __init__(self, about: About) -> None:
        self.counts: defaultdict[str, int] = defaultdict(int)
        self.before: Event | None = None
        self._about = about
        self._main: int | None = None
        self._in_call = False
        self._calls: dict[str, int] = {}
        self._parts = Parts()
        self._loop_pairs = LoopPairs()
        self._objects: dict[str, dict[str, int]] = {}
        self._first_ns = 0
        self._last_ns = 0
        self._slept_ns = 0
        self._long_sleeps = 0
        self._longest_ns = 0
        self._line: int | None = None
        self._children: set[int] = set()

    def handlers(self) -> Handlers:
        return {
            **dict.fromkeys(_ON_SOCKETS | PAIRS | LoopPairs.CALLS, self._on_socket),
            **dict.fromkeys(WAITS, self._wait),
            **dict.fromkeys(STARTS, self._started),
            "wait4": self._reaped,
            ANY_OTHER: self._other,
        }

    def end(self, last_ns: int) -> None:
        """Take note that the trace has ended.

        :param last_ns: when the last call began, nanoseconds since the epoch.
        """
        self._leave_call(last_ns)

    def _on_socket(self, call: Syscall) -> None:
        if not self._in_call:
            return
        made = self._loop_pairs.made(call)
        if made:
            self._leave_out(made)
        if call.pid != self._main:
            return
        part = self._parts.follow(call)
        if part is not None:
            counts = self._objects.get(part)
            if counts is None:
                if len(self._objects) == _MOST_OBJECTS:
                    return
                counts = self._objects[part] = {}
            counts[call.name] = counts.get(call.name, 0) + 1

    def _leave_out(self, calls: Sequence[Syscall]) -> None:
        """Uncount the calls that made the pair of a loop."""
        for call in calls:
            self.counts[call.name] -= 1
        if calls[0].pid == self._main:
            for part in self._parts.forget_pair(calls[0]):
                self._objects.pop(part, None)

    def _wait(self, call: Syscall) -> None:
        duration_ns = call.duration_ns
        if (
            not duration_ns
            or call.value != 0
            or not self._in_call
            or self._children
            or call.pid != self._main
            or not is_hub(call.greenthread)
            or self._others_work(call.pid, call.start_ns + duration_ns, duration_ns)
        ):
            return
        asked_ns = timeout_ns(call)
        if asked_ns is not None:  # what it took longer, it waited for a CPU
            duration_ns = min(duration_ns, asked_ns)
        self._slept_ns += duration_ns
        self._long_sleeps += duration_ns >= LONG_SLEEP_NS
        if duration_ns > self._longest_ns:
            self._longest_ns, self._line = duration_ns, call.line

    def _others_work(self, pid: int, end_ns: int, duration_ns: int) -> bool:
        before = self.before
        return (
            type(before) is Syscall
            and before.pid != pid
            and before.start_ns > end_ns - WORKING_SHARE * duration_ns
        )

    def _started(self, call: Syscall) -> None:
        if call.value and call.value > 0 and "CLONE_THREAD" not in call.args:
            self._children.add(call.value)

    def _reaped(self, call: Syscall) -> None:
        if call.value == 0:  # asked for in a loop: how often, the child decides
            self.counts[call.name] -= 1
        # Of one that ended before the call that started it had returned there is no other sign.
        self._children.discard(call.value or 0)

    def _other(self, event: Event) -> None:
        if type(event) is Exit:
            self._children.discard(event.pid)
        elif type(event) is Phase:
            self._leave_call(event.time_ns)
            self._in_call = event.phase == "call"
            if self._in_call:
                self._first_ns = event.time_ns
                self.counts.clear()
            self._main = event.pid

    def _leave_call(self, time_ns: int) -> None:
        if self._in_call:
            self._in_call = False
            self._last_ns = time_ns
            self._calls = dict(self.counts)

    def tally(self) -> Tally:
        """Return the figures, once the trace has ended."""
        seconds = max(self._last_ns - self._first_ns, 0) / 1e9
        cpu = self._about.cpu.get("call")
        slept = self._slept_ns / 1e9
        return Tally(self._calls, self._objects, seconds, slept, self._line, cpu, self._long_sleeps)


def compare(tallies: Mapping[str, Tally]) -> list[Finding]:
    """Say what one test cost more on one hub than on another, most telling first.

    :param tallies: of one test that ended alike on all these hubs, by the hub's name.
    """
    if len(tallies) < 2:
        return []
    calls = list(_calls(tallies))
    return [*_slept(tallies), *_cpu(tallies), *(calls or _all_calls(tallies))]


def _slept(tallies: Mapping[str, Tally]) -> Iterator[Finding]:
    most = max(tallies, key=lambda hub: tallies[hub].slept)
    least = min(tallies, key=lambda hub: tallies[hub].slept)
    long, short = tallies[most], tallies[least]
    more = long.slept - short.slept
    if more < MIN_SECONDS or long.slept < MIN_SECONDS_RATIO * short.slept:
        return
    if long.seconds - short.seconds < MIN_SECONDS_SHARE * more:
        return  # there it waited as long with events between
    if long.long_sleeps and short.long_sleeps and long.long_sleeps <= short.long_sleeps:
        return  # it slept as often, and for a time that is drawn at random perhaps
    evidence = Evidence("the longest of its sleeps", STRACE_FILE, long.line)
    yield Finding(
        KIND,
        f"slept {long.slept:.1f} s on {most}, {short.slept:.1f} s on {least}",
        (evidence,),
        "seen once",
        {"seconds": more},
        hub=most,
    )


def _cpu(tallies: Mapping[str, Tally]) -> Iterator[Finding]:
    used = {hub: tally.cpu for hub, tally in tallies.items() if tally.cpu is not None}
    if len(used) < 2:
        return
    most, least = max(used, key=used.__getitem__), min(used, key=used.__getitem__)
    more = used[most] - used[least]
    if more >= MIN_CPU_SECONDS and used[most] >= MIN_CPU_RATIO * used[least]:
        yield Finding(
            KIND,
            f"used {used[most]:.1f} s of CPU on {most}, {used[least]:.1f} s on {least}",
            certainty="seen once",
            counts={"seconds": more},
            hub=most,
        )


def _calls(tallies: Mapping[str, Tally]) -> Iterator[Finding]:
    found = []
    for name in _COMPARED.intersection(*[set().union(*(each.calls for each in tallies.values()))]):
        counts = {hub: tally.calls.get(name, 0) for hub, tally in tallies.items()}
        if _differ(counts):
            found.append((max(counts.values()) - min(counts.values()), name, counts))
    for difference, name, counts in sorted(found, reverse=True):
        part, of_part = _telling_part(tallies, name, difference)
        title = f"{name} on {part}: {_shown(of_part)}" if part else f"{name} {_shown(counts)}"
        yield Finding(
            KIND,
            title,
            certainty="seen once",
            counts={"calls": difference},
            hub=_by_count(counts)[0],
        )


def _differ(counts: Mapping[str, int]) -> bool:
    most, least = max(counts.values()), min(counts.values())
    return most >= MIN_CALLS and most >= MIN_RATIO * max(least, 1)


def _telling_part(
    tallies: Mapping[str, Tally], name: str, difference: int
) -> tuple[str, dict[str, int]]:
    """Return the one socket that a call is made on so much oftener on one hub, if it is one."""
    for part in dict.fromkeys(part for tally in tallies.values() for part in tally.objects):
        counts = {hub: tally.objects.get(part, {}).get(name, 0) for hub, tally in tallies.items()}
        more = max(counts.values()) - min(counts.values())
        if _differ(counts) and more >= MIN_OBJECT_SHARE * difference:
            return part, counts
    return "", {}


def _all_calls(tallies: Mapping[str, Tally]) -> Iterator[Finding]:
    """Say where a hub makes many times the calls, if those of no one kind tell it already."""
    counts = {
        hub: sum(count for name, count in tally.calls.items() if name not in _OF_IMPORTS_OR_HUBS)
        for hub, tally in tallies.items()
    }
    most, least = max(counts.values()), min(counts.values())
    if most < MIN_ALL_CALLS or most < MIN_ALL_RATIO * max(least, 1):
        return
    hub = _by_count(counts)[0]
    calls = {name: n for name, n in tallies[hub].calls.items() if name not in _OF_IMPORTS_OR_HUBS}
    name = max(calls, key=calls.__getitem__)
    yield Finding(
        KIND,
        f"system calls: {_shown(counts)}, of which {calls[name]:,} {name}",
        certainty="seen once",
        counts={"calls": most - least},
        hub=hub,
    )


def _by_count(counts: Mapping[str, int]) -> list[str]:
    return sorted(counts, key=lambda hub: (-counts[hub], hub))


def _shown(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{counts[hub]:,} on {hub}" for hub in _by_count(counts))
