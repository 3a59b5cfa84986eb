"""Find calls that held the hub: one greenthread waits in the kernel, and all others with it.

A call counts if it blocks the test process's main thread and is not the hub's own wait.
That alone harms nobody. So others must have had something to do meanwhile: directly after
the call the hub finds events that others had asked for before, or it runs a greenthread whose
timer was due while the call went on. A call in which the recording ends is told as well, unless
the process died as soon as it had begun.

Libraries in C often wait in short calls, to see signals in between, and programs sleep in a loop.
Such calls add up, where each timed out and no other greenthread ran between them.

On a busy machine any call may take long, as the thread has no CPU. A call on a nonblocking socket
or pipe never waits; and where the trace tells how long the thread lacked a CPU, that does not
count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
import os
import sys
from typing import ClassVar

import msgspec

from pytest_eventlet_debug import dump_limits
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.call_names import SLEEPS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.dns_exchange import asked_name
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.nonblocking import Nonblocking
from pytest_eventlet_debug.recordings.findings.polls import events_of
from pytest_eventlet_debug.recordings.findings.polls import timeout_ns
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.stalls import BEGAN
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.strace_log import unescape
from pytest_eventlet_debug.recordings.trace_events import TEST_LABEL
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub
from pytest_eventlet_debug.system.high_descriptors import HIGH_DESCRIPTOR
from pytest_eventlet_debug.system.switches import OLDER

#: A call that takes less may as well have waited for the disk or the processor.
MIN_NS = 200_000_000
#: A wait that takes less found its events there.
AT_ONCE_NS = 1_000_000
#: A wait that times out sooner is one of a loop that does something else in between.
_SLICE_NS = 5_000_000
_MOST = 20
_DELAYS = 64

_CALLS = SLEEPS | names(
    """read readv pread64 write writev pwrite64 send sendto sendmsg recv recvfrom recvmsg splice
    accept accept4 connect flock fcntl futex futex_time64 wait4 waitid open openat"""
)
#: What it sends to have the recording ended, as strace shows it.
_OWN_LAST_WORDS = '\\"strace-stop\\"'

#: Begins what the kernel answers for a call that a signal has interrupted: ``ERESTARTSYS`` for a
#: read, ``ERESTARTNOHAND`` for a sleep, ``ERESTART_RESTARTBLOCK`` for a wait with a timeout, all of
#: which go on after it, and ``EINTR`` for an epoll set, which is asked again. See signal(7).
_INTERRUPTED = ("ERESTART", "EINTR")
_NUMBER = lazily(r"(\d+)")
#: How a call ends that was not allowed to wait.
_WOULD_WAIT = frozenset(("EAGAIN", "EINPROGRESS", "EALREADY"))
#: How ``--eventlet-blocked`` asks for how long the thread of the tests lacked a CPU in all.
_DELAY = lazily(r"\d+</proc/(\d+)/task/\1/schedstat>, \"\d+ (\d+) ")
_OBJECT = lazily(rf"\d+(?!x)(?:{ANNOTATION})?")
_POLLED = lazily(rf"\[\{{fd=(\d+(?:{ANNOTATION})?)")
_STRING = lazily(r'"((?:[^"\\]|\\.)*)"')
#: How the annotation of a socket ends that is connected to a DNS server.
_DNS = ":53]>"
_PATH = lazily(rf'(?:AT_FDCWD(?:{ANNOTATION})?, )?("(?:[^"\\]|\\.)*")')


class _Wait(msgspec.Struct):
    """A call that waits, or several that are alike, with no other greenthread between them."""

    #: The first of them.
    call: Syscall
    ns: int = 0
    count: int = 0
    #: When the last of them ended.
    end_ns: int = 0
    #: The host name whose address it waits for, or ``""``.
    name: str = ""

    def add(self, start_ns: int, duration_ns: int) -> None:
        self.ns += duration_ns
        self.count += 1
        self.end_ns = start_ns + duration_ns

    def __str__(self) -> str:
        times = f" x {self.count:,}" if self.count > 1 else ""
        lookup = f", to look up {self.name}," if self.name else ""
        return f"{shown(self.call)}{times}{lookup}{self.call.where}"


class _Block(msgspec.Struct, frozen=True):
    """A wait that held the hub, and what shows that it mattered."""

    wait: _Wait
    others: str
    #: For how long the thread had lacked a CPU in all before it; ``None`` where nobody asked.
    delay_ns: int | None


class Blocked:
    """The detector of calls that hold the hub."""

    kind: ClassVar[Kind] = "blocked"

    def __init__(self, trace: Trace) -> None:
        self._main: int | None = None
        self._registrations = trace.registrations
        self._nonblocking = Nonblocking()
        self._has_others = False
        self._until_ns = trace.about.until_ns
        #: What the greenthread that runs waited in last, by calls that timed out.
        self._row: _Wait | None = None
        #: The socket that a host name was asked for through last, and the name.
        self._asked = ("", "")
        self._pending: _Wait | None = None
        self._readied: list[str] = []
        self._next: str | None = None
        self._interrupted: Syscall | None = None
        #: When it began to show what is alive, if it hangs.
        self._shown_ns: int | None = None
        self._unfinished: Syscall | None = None
        self._in_phase = False
        self._delays: deque[tuple[int, int]] = deque(maxlen=_DELAYS)
        self._delay_after: int | None = None
        self._found: list[_Block] = []
        self._unproven: list[_Block] = []

    def handlers(self) -> Handlers:
        return {
            **dict.fromkeys(_CALLS, self._call),
            **dict.fromkeys(Nonblocking.CALLS, self._set),
            "sendto": self._sent,
            "sendmmsg": self._sent,
            **dict.fromkeys(SLEEPS, self._sleep),
            **dict.fromkeys(POLLS, self._wait),
            ANY_OTHER: self._other,
        }

    def _set(self, call: Syscall) -> None:
        if call.name in _CALLS:
            self._call(call)
        if call.pid == self._main:
            self._nonblocking.follow(call)

    def _sent(self, call: Syscall) -> None:
        if call.name in _CALLS:
            self._call(call)
        if _DNS in call.args and call.pid == self._main:
            socket, sent = _OBJECT.match(call.args), _STRING.search(call.args)
            if socket is not None and sent is not None:
                name = asked_name(os.fsencode(unescape(sent[1])))
                self._asked = (socket[0], name or "")

    def _call(self, call: Syscall) -> None:
        if call.name == "pread64" and (delay := _DELAY.match(call.args)) is not None:
            self._lacked(call.start_ns, int(delay[2]))
            return
        duration_ns = call.duration_ns
        if self._interrupted is not None or self._row is not None or call.errno is not None:
            self._note_interruption(call)
        if duration_ns is not None and duration_ns < _SLICE_NS and self._unfinished is None:
            return
        if duration_ns is None:
            if _is_standstill(call):
                self._unfinished = self._interrupted if self._shown_ns is not None else None
            elif call.value is None and self._shown_ns is None and self._counts(call):
                self._unfinished = self._interrupted or call
        elif self._unfinished is not None and call.pid == self._main:
            self._unfinished = None  # it went on: what strace lost is not the end
        elif self._counts(call):
            self._waited(call, duration_ns)

    def _waited(self, call: Syscall, duration_ns: int) -> None:
        """Add a call to those before it that it goes on with, or keep it if it is long."""
        timed_out = _timed_out(call)
        if not timed_out and duration_ns < MIN_NS:
            return
        if self._row is not None and not _are_alike(self._row.call, call):
            self._row = None
        wait = self._row if timed_out and self._row is not None else self._wait_of(call)
        if timed_out:
            self._row = wait
        wait.add(call.start_ns, duration_ns)
        if wait.ns >= MIN_NS and wait is not self._pending:
            self._decide()
            self._pending, self._readied, self._next = wait, [], None
            self._delay_after = None

    def _wait_of(self, call: Syscall) -> _Wait:
        socket, name = self._asked
        return _Wait(call, name=name if socket and f"fd={socket}" in call.args else "")

    def _lacked(self, time_ns: int, delay_ns: int) -> None:
        """Keep what lasted long enough even without the time that the thread had no CPU."""
        self._found += [each for each in self._unproven if _lasted(each, delay_ns)]
        self._unproven = []
        self._delays.append((time_ns, delay_ns))
        if self._delay_after is None:
            self._delay_after = delay_ns

    def _note_interruption(self, call: Syscall) -> None:
        """Remember the call that a signal ended, if it is the one to show what is alive.

        That is written at once, before any other call. The calls after it are the dump's own. A
        call that the kernel, or Python, makes again after a signal is still the same wait.
        """
        if call.pid != self._main:
            return
        is_interrupted = (call.errno or "").startswith(_INTERRUPTED)
        if dump_limits.TITLE in call.args:
            self._shown_ns = call.start_ns
        elif _is_standstill(call):
            if call.duration_ns is not None:  # the test goes on
                self._interrupted = self._shown_ns = None
        elif self._goes_on(call):
            if is_interrupted:
                self._shown_ns = None
        elif is_interrupted and self._counts(call):
            self._interrupted, self._shown_ns = call, None
        elif self._shown_ns is None and not _is_own(call):
            self._interrupted = None

    def _goes_on(self, call: Syscall) -> bool:
        before = self._interrupted
        return before is not None and (before.name, before.args) == (call.name, call.args)

    def _counts(self, call: Syscall) -> bool:
        if call.pid != self._main or not self._in_phase or is_hub(call.greenthread):
            return False
        if call.errno in _WOULD_WAIT or self._nonblocking.covers(call):
            return False
        return call.greenthread is not None and not _is_own(call)

    def _wait(self, call: Syscall) -> None:
        if call.pid != self._main:
            return
        if not is_hub(call.greenthread):
            self._call(call)
        elif self._pending is not None:
            self._note_ready(self._pending.call, call)
            if self._readied or not _returns_at_once(call):
                self._decide()

    def _sleep(self, call: Syscall) -> None:
        """Take the sleep of a hub without listeners for the wait that it is."""
        self._call(call)
        is_of_hub = call.pid == self._main and is_hub(call.greenthread)
        if is_of_hub and not _returns_at_once(call):
            self._decide()

    def _note_ready(self, block: Syscall, call: Syscall) -> None:
        """Note whose events a wait finds there at once that had been asked for before."""
        if not _returns_at_once(call):
            return
        for events, fd in events_of(call):
            known = self._registrations.find(call.pid, fd, call.line)
            if known is None or known.line > block.line:
                continue
            if known.greenthread not in (None, block.greenthread):
                self._readied.append(f"{events} on {known.shown} for {known.greenthread}")

    def _other(self, event: Event) -> None:
        if type(event) is Phase:
            self._in_phase = True
            self._main = event.pid  # as the trace calls it, whatever its own namespace does
            self._interrupted = self._row = None
        elif type(event) is Switch and event.pid == self._main:
            self._interrupted = self._row = None
            self._switched(event)
        elif type(event) is Exit and event.pid == self._main:
            call = self._unfinished
            if call is not None and event.time_ns - call.start_ns < MIN_NS:
                self._unfinished = None  # it had hardly begun

    def _switched(self, event: Switch) -> None:
        name = event.greenthread
        self._has_others = self._has_others or name != TEST_LABEL
        if is_hub(name):
            return
        pending = self._pending
        if pending is not None:
            if name == pending.call.greenthread:
                self._decide()
            elif self._next is None and _was_due(event, pending):
                self._next = name

    def _decide(self) -> None:
        """Keep the pending block if somebody had something to do meanwhile."""
        wait, self._pending = self._pending, None
        if wait is None or len(self._found) + len(self._unproven) >= _MOST:
            return
        if self._readied:
            others = f"there was {self._readied[0]}"
        elif self._next is not None:
            others = f"{self._next} was to run"
        else:
            return
        before = (ns for time_ns, ns in reversed(self._delays) if time_ns <= wait.call.start_ns)
        block = _Block(wait, others, next(before, None))
        if self._delay_after is None:
            self._unproven.append(block)
        elif _lasted(block, self._delay_after):
            self._found.append(block)

    def findings(self) -> Iterable[Finding]:
        self._decide()
        for block in sorted([*self._found, *self._unproven], key=lambda each: -each.wait.ns):
            call, seconds = block.wait.call, block.wait.ns / 1e9
            yield Finding(
                self.kind,
                f"greenthread {call.greenthread} held the hub for {seconds:.2f} s in "
                f"{block.wait} while {block.others}",
                (Evidence(shown(call), STRACE_FILE, call.line),),
                counts={"seconds": seconds, BEGAN: call.start_ns / 1e9},
            )
        last = self._last_wait()
        if last is not None:
            call = last.call
            so_far = f", for {last.ns / 1e9:.2f} s," if last.count > 1 else ""
            consequence = ", so that no other could run" if self._has_others else ""
            yield Finding(
                self.kind,
                f"greenthread {call.greenthread} was still in {last}{so_far} when the "
                f"recording ended{consequence}",
                (Evidence(shown(call), STRACE_FILE, call.line),),
            )

    def _last_wait(self) -> _Wait | None:
        """Return what the greenthread that ran last had not come out of as the trace ended."""
        row, call = self._row, self._unfinished
        seen_ns = self._shown_ns or self._until_ns
        if row is not None and row.ns >= MIN_NS:
            if call is not None and _are_alike(row.call, call):
                return row
            if call is None and seen_ns is not None and seen_ns - row.end_ns < MIN_NS:
                return row
        if call is None or (self._until_ns or sys.maxsize) - call.start_ns < MIN_NS:
            return None  # it has hardly begun
        return self._wait_of(call)


def _was_due(switch: Switch, wait: _Wait) -> bool:
    """Say whether what runs after a wait was to run for a good part of it, and is of account.

    The test itself waits for the others as a rule, and what an earlier test has left is not its.
    """
    name = switch.greenthread
    if name == TEST_LABEL or name.endswith(OLDER):
        return False
    due_ns = switch.time_ns - switch.late_ns
    return switch.late_ns > 0 and wait.end_ns - due_ns >= MIN_NS // 2


def _returns_at_once(call: Syscall) -> bool:
    """Say whether a wait found its events there, or was not allowed to wait."""
    return (call.duration_ns or 0) < AT_ONCE_NS or timeout_ns(call) == 0


def _lasted(block: _Block, delay_ns: int) -> bool:
    """Say whether a call took long, whatever part of it the thread may have lacked a CPU.

    :param delay_ns: for how long it had lacked one when it was asked next.
    """
    if block.delay_ns is None:
        return True
    return block.wait.ns - (delay_ns - block.delay_ns) >= MIN_NS


def _timed_out(call: Syscall) -> bool:
    """Say whether a call waited for as long as it was told to, and nothing came."""
    is_wait = call.name in POLLS or call.name in SLEEPS
    return call.errno == "ETIMEDOUT" or (is_wait and call.value == 0)


def _are_alike(call: Syscall, other: Syscall) -> bool:
    """Say whether two calls of one greenthread wait for the same, at the same place."""
    return (shown(call), call.where) == (shown(other), other.where)


def _is_standstill(call: Syscall) -> bool:
    """Say whether a hung test has been told to show what is alive, and to wait for its end."""
    return call.name == "poll" and call.args.startswith("[], 0, -1")


def _is_own(call: Syscall) -> bool:
    if _OWN_LAST_WORDS in call.args:
        return True
    match = _NUMBER.match(call.args)
    return match is not None and int(match[1]) >= HIGH_DESCRIPTOR and "<" in call.args[:12]


def shown(call: Syscall) -> str:
    """Return a call with what it acts on: ``read(9<pipe:[42]>)``, ``openat("/tmp/fifo")``."""
    path = _PATH.match(call.args) if call.name.startswith("open") else None
    if path is not None:
        return f"{call.name}({path[1]})"
    polled = _POLLED.match(call.args)
    if polled is not None:
        return f"{call.name}({polled[1]})"
    match = _OBJECT.match(call.args)
    return f"{call.name}({match[0] if match is not None else ''})"
