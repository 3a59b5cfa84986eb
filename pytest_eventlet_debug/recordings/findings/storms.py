"""Find syscall storms: a thread that repeats the same few calls at full speed for nothing.

The model is the endless ``accept4(...) = -1 EBADF`` of eventlet#912, which people found
by reading straces. A storm repeats exactly; loops that change descriptors on each turn
are not found yet.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import re
from typing import ClassVar
from typing import NamedTuple

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import ANY_CALL
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import Event
from pytest_eventlet_debug.recordings.strace_log import Exit
from pytest_eventlet_debug.recordings.strace_log import Syscall

MAX_PERIOD = 12
"""The longest pattern that is looked for, in calls."""
MIN_REPEATS = 60
MIN_RATE = 1000
"""Calls a second; slower loops are polling with a pause (25 to 350/s in eventlet's tests)."""
MAX_BLOCKED = 0.5
"""The share of its time that a storm may spend blocked; more is waiting, not spinning."""


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_WAITS = _names(
    """epoll_wait epoll_pwait epoll_pwait2 epoll_wait_old poll ppoll ppoll_time64 select
    _newselect pselect6 pselect6_time64 nanosleep clock_nanosleep clock_nanosleep_time64
    pause"""
)
# Blocking, but what they wait for tells calls apart; or ignored below and yet blocking.
_BLOCKING = _WAITS | frozenset({"futex", "futex_time64", "wait4", "waitid", "flock"})

# Bookkeeping of the memory allocator, the interpreter and of signals: it falls between
# the calls of a loop at irregular places and says nothing about progress.
_IGNORED = _names(
    """mmap mmap2 munmap mremap mprotect madvise brk mlock munlock membarrier
    futex futex_time64 get_robust_list set_robust_list rseq restart_syscall
    stat lstat fstat fstat64 stat64 lstat64 newfstatat fstatat64 statx
    rt_sigaction rt_sigprocmask rt_sigreturn sigreturn rt_sigpending sigaltstack
    time times gettimeofday clock_gettime clock_gettime64 clock_getres getrusage
    getpid gettid getppid getuid geteuid getgid getegid uname sysinfo getcpu"""
)

_TRANSFERS = _names(
    """read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
    sendfile sendfile64 splice tee vmsplice copy_file_range getdents getdents64
    getrandom io_getevents io_uring_enter"""
)

# The result of these is a new object. Its number belongs to the key: opening one more is
# progress, getting the same one again (opened, failed, closed) is not.
_CREATORS = _names(
    """socket accept accept4 open openat openat2 creat dup fcntl fcntl64 epoll_create
    epoll_create1 eventfd eventfd2 timerfd_create signalfd4 inotify_init1 memfd_create
    pidfd_open clone clone3 fork vfork wait4"""
)

_FD = re.compile(r"(-?\d+)(?:<(?:(?:anon_inode:\[(\w+)|([\w-]+):\[)|([^<>\"]*)>)?)?(?=\D|$)")
_PATHS = re.compile(r'"(?:[^"\\]|\\.)*"')


@dataclasses.dataclass(frozen=True)
class Storm:
    """A pattern of calls that one thread repeated without getting anywhere."""

    syscall: str
    """The call that tells most: ``accept4(-1) = -1 EBADF``."""
    pattern: tuple[str, ...]
    """All calls of one turn, the one above first."""
    count: int
    """How many turns."""
    duration: float
    """Seconds spent repeating."""
    pid: int
    """Thread id."""
    greenthread: str | None
    """The greenthread that made ``syscall``, such as ``3:serve``; None if not recorded."""
    line: int
    """Number of the storm's first line in the log."""

    def describe(self) -> str:
        """Return the storm in one line, without its place."""
        others = list(dict.fromkeys(call for call in self.pattern if call != self.syscall))
        shown = ", ".join(others[:4])
        if len(others) > 4:
            shown += f" and {len(others) - 4} more"
        return (
            f"{self.syscall} x {self.count:,} in {self.duration:.2f} s"
            + (f" (with {shown})" if shown else "")
            + (f" by greenthread {self.greenthread}" if self.greenthread else "")
            + ("" if self.greenthread else f" by thread {self.pid}")
        )


def find_storms(events: Iterable[Event]) -> list[Storm]:
    """Return the storms of a log, the longest first.

    Runs of one pattern in one thread are added up. Time is linear in the number of
    events; memory does not grow with it.

    :param events: what :func:`~pytest_eventlet_debug.recordings.strace_log.parse` yields.
    """
    detector = Storms(About())
    handlers = detector.handlers()
    for event in events:
        handlers[ANY_CALL if type(event) is Syscall else ANY_OTHER](event)  # type: ignore[arg-type]
    return detector.storms()


class _Step(NamedTuple):
    """One call of the recent past of a thread."""

    key: str
    shown: str
    greenthread: str | None
    line: int
    start_ns: int
    end_ns: int
    blocked_ns: int
    """Time that the thread had been blocked before this call, since its first call."""
    failed: bool
    moved: bool
    waits: bool


_NOTHING = _Step("", "", None, 0, 0, 0, 0, False, False, False)


class _Thread:
    """The recent calls of one thread and, per period, how long they have repeated."""

    def __init__(self, pid: int, found: dict[tuple[int, tuple[str, ...]], Storm]) -> None:
        self._pid = pid
        self._found = found
        self._steps = [_NOTHING] * MAX_PERIOD
        self._keys = [""] * MAX_PERIOD
        self._blocked_ns = 0
        self._repeating = [0] * (MAX_PERIOD + 1)
        self._first = [_NOTHING] * (MAX_PERIOD + 1)

    def add(self, call: Syscall) -> None:
        name = call.name
        blocked = self._blocked_ns
        if name in _BLOCKING and call.duration_ns is not None:
            self._blocked_ns = blocked + call.duration_ns
        if name in _IGNORED or call.state not in ("returned", "resumed"):
            return
        step = _step(call, blocked)
        keys = self._keys
        key = step.key
        repeating = self._repeating
        if key in keys:
            for period in range(1, MAX_PERIOD + 1):
                if keys[-period] == key:
                    if not repeating[period]:
                        self._first[period] = self._steps[-period]
                    repeating[period] += 1
                elif repeating[period]:
                    if repeating[period] >= period * (MIN_REPEATS - 1):
                        self._judge()
                    repeating[period] = 0
        elif any(repeating):
            self.close()
        del keys[0], self._steps[0]
        keys.append(key)
        self._steps.append(step)

    def close(self) -> None:
        """End the run that lasts until now, if any."""
        self._judge()
        self._repeating = [0] * (MAX_PERIOD + 1)

    def _judge(self) -> None:
        # The shortest period is the pattern. A run this long that has a longer period
        # as well has a multiple of it (Fine and Wilf 1965), which ends here too.
        for period in range(1, MAX_PERIOD + 1):
            if self._repeating[period] >= period * (MIN_REPEATS - 1):
                self._record(period, self._repeating[period] + period)
                break
        else:
            return
        self._repeating = [0] * (MAX_PERIOD + 1)

    def _record(self, period: int, calls: int) -> None:
        turn = self._steps[-period:]
        first = self._first[period]
        elapsed_ns = max(turn[-1].end_ns - first.start_ns, 1)
        blocked_ns = self._blocked_ns - first.blocked_ns
        if (
            any(step.moved for step in turn)
            # Short sleeps in a row take less time asleep than strace takes to write them down.
            or all("nanosleep" in step.shown for step in turn)
            or calls * 1_000_000_000 < MIN_RATE * elapsed_ns
            or blocked_ns >= MAX_BLOCKED * elapsed_ns
        ):
            return
        turn = _from_the_telling_call(turn)
        pattern = tuple(step.shown for step in turn)
        storm = Storm(
            turn[0].shown,
            pattern,
            calls // period,
            elapsed_ns / 1e9,
            self._pid,
            turn[0].greenthread,
            first.line,
        )
        known = self._found.get((self._pid, pattern))
        if known is not None:
            storm = dataclasses.replace(
                known,
                count=known.count + storm.count,
                duration=known.duration + storm.duration,
            )
        self._found[self._pid, pattern] = storm


def _step(call: Syscall, blocked_ns: int) -> _Step:
    name = call.name
    value = call.value
    failed = call.errno is not None
    waits = name in _WAITS
    if failed:
        outcome = f"-1 {call.errno}" if value is not None else f"? {call.errno}"
    elif value is None:
        outcome = "?"
    elif value > 0:
        outcome = str(value) if name in _CREATORS else "> 0"
    else:
        outcome = str(value)
    if waits:
        key = f"WAIT = {outcome}"
        shown = f"{name} = {outcome}"
    else:
        key = shown = f"{name}({_object(name, call.args)}) = {outcome}"
    return _Step(
        key,
        shown,
        call.greenthread,
        call.line,
        call.start_ns,
        call.start_ns + (call.duration_ns or 0),
        blocked_ns,
        failed,
        name in _TRANSFERS and value is not None and value > 0,
        waits,
    )


def _object(name: str, args: str) -> str:
    """Return what a call acts on: a descriptor with its kind, or the paths, or all it has."""
    match = _FD.match(args)
    if match is not None:
        number, anonymous, kind, path = match.groups()
        described = anonymous or kind or path
        told = f"{number}<{described}>" if described else number
        # What is done to the epoll descriptor or file matters as much as which it is.
        if name == "epoll_ctl":
            return ", ".join([told, *args.split(", ")[1:2]])
        if '"' in args and name.endswith(("at", "at2")):
            return ", ".join([told, *_PATHS.findall(args)])
        return told
    paths: Sequence[str] = _PATHS.findall(args)
    return ", ".join(paths) if paths else args


def _from_the_telling_call(turn: list[_Step]) -> list[_Step]:
    """Rotate a turn so that it begins with the call that says what is wrong."""

    def rank(position: int) -> tuple[bool, bool, list[str]]:
        step = turn[position]
        rotated = turn[position:] + turn[:position]
        return step.waits, not step.failed, [other.shown for other in rotated]

    start = min(range(len(turn)), key=rank)
    return turn[start:] + turn[:start]


class Storms:
    """The detector of storms."""

    kind: ClassVar[str] = "storm"

    def __init__(self, about: About) -> None:
        self._threads: dict[int, _Thread] = {}
        self._found: dict[tuple[int, tuple[str, ...]], Storm] = {}

    def handlers(self) -> Mapping[str, Callable[[Syscall], None] | Callable[[Event], None]]:
        return {ANY_CALL: self._call, ANY_OTHER: self._other}

    def _call(self, call: Syscall) -> None:
        thread = self._threads.get(call.pid)
        if thread is None:
            thread = self._threads[call.pid] = _Thread(call.pid, self._found)
        thread.add(call)

    def _other(self, event: Event) -> None:
        if type(event) is Exit and event.pid in self._threads:
            self._threads.pop(event.pid).close()

    def storms(self) -> list[Storm]:
        """Return the storms, the longest first."""
        for thread in self._threads.values():
            thread.close()
        return sorted(self._found.values(), key=lambda storm: (-storm.duration, storm.line))

    def findings(self) -> Iterable[Finding]:
        for storm in self.storms():
            yield Finding(
                self.kind,
                storm.describe(),
                tuple(Evidence(call, STRACE_FILE, storm.line) for call in storm.pattern[:1]),
                counts={"calls": storm.count, "seconds": storm.duration},
            )
