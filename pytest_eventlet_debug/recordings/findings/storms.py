"""Find syscall storms: a thread that makes the same few calls at full speed for nothing.

The model is the endless ``accept4(...) = -1 EBADF`` of eventlet#912, which people found
by reading straces. A *run* is a stretch of one thread's calls in which no byte moves and
few kinds of calls come again and again, in whatever order; so a loop that takes another
descriptor in each turn is found too. Three kinds come of it:

- ``storm``: the calls do no good; most telling is the one that fails.
- ``hub busy``: the hub polls and wakes nobody.
- ``spin``: one greenthread gives way without ever waiting for something.
"""

from __future__ import annotations

from collections.abc import Iterable
import re
from typing import ClassVar
from typing import Literal

import msgspec

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.call_names import SLEEPS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.protocol import ANY_CALL
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.registrations import Addition
from pytest_eventlet_debug.recordings.findings.registrations import Additions
from pytest_eventlet_debug.recordings.findings.registrations import Registration
from pytest_eventlet_debug.recordings.findings.registrations import Registrations
from pytest_eventlet_debug.recordings.findings.registrations import events_of
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import HUB_LABEL
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: Kinds of calls in a run; loops over two or three descriptors have up to 16.
MAX_KINDS = 24
#: How often the most frequent call of a run comes.
MIN_REPEATS = 60
MIN_CALLS_PER_KIND = 20
#: Calls a second; strace takes up to a millisecond for each call on a socket.
MIN_RATE = 200
#: The share of its time that a run may spend blocked; more is waiting, not spinning.
MAX_BLOCKED = 0.5
#: The share of the turns in which a call is made, or a greenthread runs, to count as a part.
MIN_SHARE = 0.1
#: The share of the hub's polls after which a greenthread runs; before a timer is due, the ``poll``
#: hub polls some 15 times without waiting, as its timeout is whole milliseconds.
MIN_WOKEN_SHARE = 0.02
#: How often it has to run for that; once or twice is the beginning or the end.
MIN_WOKEN = 5
MIN_RUN_SECONDS = 0.02
#: All runs of one pattern.
MIN_SECONDS = 0.1
#: A test may well call ``sleep(0)`` one or two thousand times.
MIN_SPIN_TURNS = 10_000
_MOST_PATTERNS = 256

#: Greenthreads that are named where it is not known which of them it was.
_MOST_NAMED = 3


_WAITS = SLEEPS | POLLS
_BLOCKING = _WAITS | frozenset(("wait4", "waitid", "flock"))

# Bookkeeping of the memory allocator, the interpreter and of signals: it falls between
# the calls of a loop at irregular places and says nothing about progress.
_IGNORED = names(
    """mmap mmap2 munmap mremap mprotect madvise brk mlock munlock membarrier
    futex futex_time64 get_robust_list set_robust_list rseq restart_syscall
    stat lstat fstat fstat64 stat64 lstat64 newfstatat fstatat64 statx
    rt_sigaction rt_sigprocmask rt_sigreturn sigreturn rt_sigpending sigaltstack
    time times gettimeofday clock_gettime clock_gettime64 clock_getres getrusage
    getpid gettid getppid getuid geteuid getgid getegid uname sysinfo getcpu"""
)

_TRANSFERS = names(
    """read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2
    send sendto sendmsg sendmmsg recv recvfrom recvmsg recvmmsg recvmmsg_time64
    sendfile sendfile64 splice tee vmsplice copy_file_range getdents getdents64
    getrandom io_getevents io_uring_enter"""
)

# The result of these is a new object. Its number belongs to the key: opening one more is
# progress, getting the same one again (opened, failed, closed) is not.
_CREATORS = names(
    """socket accept accept4 open openat openat2 creat dup fcntl fcntl64 epoll_create
    epoll_create1 eventfd eventfd2 timerfd_create signalfd4 inotify_init1 memfd_create
    pidfd_open clone clone3 fork vfork wait4"""
)

# What these name beside their descriptor tells calls apart.
_WHOLE = names("connect bind epoll_ctl")

_Role = Literal["wait", "blocking", "ignored", "transfer", "whole"]
#: What a call is to a run; the first that holds.
_ROLES: dict[str, _Role] = {
    **dict.fromkeys(_WHOLE, "whole"),
    **dict.fromkeys(_TRANSFERS, "transfer"),
    **dict.fromkeys(_BLOCKING, "blocking"),
    **dict.fromkeys(_WAITS, "wait"),
    **dict.fromkeys(_IGNORED, "ignored"),
}

# A line that a loop prints about its trouble is no progress.
_PRINTED = ("1", "2")
#: argparse asks for the size of the terminal for each line of help.
_STANDARD = ("0", "1", "2")

_CONTROLLED = lazily(r"\S+, EPOLL_CTL_\w+, -?\d+")
_PATHS = lazily(r'"(?:[^"\\]|\\.)*"')
_DESCRIPTOR = lazily(rf"-?\d+(?:{ANNOTATION})?")

_SOCKET_ERROR = lazily(r"SO_ERROR, \[(E[A-Z]+)\]")

_USUAL_ERRORS = frozenset(("EAGAIN", "EINPROGRESS", "EALREADY", "EINTR"))

_Key = tuple[str, object, object]


class _Kind:
    """Calls of one kind in a run: the first, the last, how many, and of waits one amid them."""

    __slots__ = ("amid", "count", "first", "last")

    def __init__(self, call: Syscall) -> None:
        self.count = 0
        self.first = call
        self.last = call
        self.amid = call


class _Thread:
    """The present run of one thread.

    :ivar early: its calls as long as they are too few for a storm, ``None`` from then on: most
        runs end before, and cost next to nothing.
    """

    __slots__ = ("blocked_ns", "early", "kinds", "ran")

    def __init__(self) -> None:
        self.early: list[Syscall] | None = []
        self.kinds: dict[_Key, _Kind] = {}
        self.blocked_ns = 0
        self.ran: dict[str | None, int] = {}

    def clear(self) -> None:
        if self.early is None:
            self.early = []
            self.kinds = {}
            self.blocked_ns = 0
        else:
            self.early.clear()
        if self.ran:
            self.ran = {}


class _Caught(msgspec.Struct, frozen=True):
    """What a storm's wait brought again and again, and who had asked for it."""

    events: str
    fd: int
    registration: Registration | None
    addition: Addition | None
    #: Whether a call of the storm acts on the descriptor.
    served: bool
    #: The descriptor as the wait names it, where that does.
    shown: str
    #: Of a wait that brought it.
    line: int
    #: Whether that is the first of these waits.
    since: bool

    def describe(self) -> str:
        known = self.registration
        parts = [f"{self.events} on {known.shown if known else self.shown}"]
        if known is None:
            parts.append(self._since())
        else:
            whose = f"greenthread {known.greenthread}, " if known.greenthread else ""
            parts.append(f"registered by {whose}line {known.line}{known.at}")
        return ", ".join([*parts, "nobody acts on it"])

    def _since(self) -> str:
        """Return where it comes and, if they are few, who may have had the hub poll for it."""
        added = self.addition
        if added is None or not 0 < len(added.greenthreads) <= _MOST_NAMED:
            return f"{'since' if self.since else 'as in'} line {self.line}"
        names = " and ".join(added.greenthreads)
        return f"polled for since line {added.line}, after greenthread {names} had run"


class Storm(msgspec.Struct):
    """Calls that one thread repeated without getting anywhere; equal runs are one."""

    kind: Kind
    #: The call that tells most: ``accept4(-1) = -1 EBADF``.
    syscall: str
    #: All calls that came again and again, the one above first.
    pattern: tuple[str, ...]
    #: How often that call came.
    count: int
    #: Seconds spent repeating.
    duration: float
    #: Thread id.
    pid: int
    #: The greenthread that made ``syscall``, such as ``3:serve``; None if not recorded.
    greenthread: str | None
    #: Number of the line in the log where ``syscall`` came first.
    line: int
    caught: tuple[_Caught, ...] = ()
    #: Whom to name: a greenthread, a thread, or a child process with its program.
    who: str = ""
    #: The line of Python that made ``syscall`` last, for the end of a phrase.
    at: str = ""

    @property
    def may_be_progress(self) -> bool:
        """Whether others may get on meanwhile: greenthreads, or tasks of an asyncio loop.

        Waits without labels do not tell, nor do those of a loop that is no hub.
        """
        if self.kind != "storm":
            return self.kind == "spin"
        only_waits = all(not call.partition(" = ")[0].endswith(")") for call in self.pattern)
        in_vain = all(call.endswith(" = 0") for call in self.pattern)
        return only_waits and (self.greenthread is None or in_vain)

    def describe(self) -> str:
        """Return the storm in one line, without its place."""
        unserved = [each.describe() for each in self.caught if not each.served]
        caught = "".join(f": {each}" for each in unserved[:1])
        if len(unserved) > 1:
            caught += f", and {len(unserved) - 1} more"
        if self.kind == "hub busy":
            return (
                f"the hub polled {self.count:,} times in {self.duration:.2f} s and woke nobody"
                + caught
            )
        if self.kind == "spin":
            return (
                f"{self.who} gave way {self.count:,} times in {self.duration:.2f} s without "
                f"waiting for anything{caught}"
            )
        others = list(dict.fromkeys(call for call in self.pattern if call != self.syscall))
        shown = ", ".join(others[:4])
        if len(others) > 4:
            shown += f" and {len(others) - 4} more"
        return (
            f"{self.syscall} x {self.count:,} in {self.duration:.2f} s{self.at}"
            + (f" (with {shown})" if shown else "")
            + f" by {self.who}{caught}"
        )


class Storms:
    """The detector of storms."""

    kind: ClassVar[Kind] = "storm"

    def __init__(self, about: About) -> None:
        self._processes = Processes(about.pid)
        self._registrations = Registrations()
        self._additions = Additions()
        self._threads: dict[int, _Thread] = {}
        self._found: dict[object, Storm] = {}

    def handlers(self) -> Handlers:
        return {
            **self._processes.handlers(),
            **self._registrations.handlers(),
            ANY_CALL: self._call,
            ANY_OTHER: self._other,
        }

    def _call(self, call: Syscall) -> None:
        name = call.name
        role = _ROLES.get(name)
        if role == "ignored":
            return
        if role == "wait" and name in POLLS:
            self._additions.waited(call)
        thread = self._threads.get(call.pid)
        if thread is None:
            thread = self._thread(call.pid)
        early = thread.early
        if early is None:
            self._count(call, thread, role)
        elif role == "transfer" and call.value and call.value > 0:
            if call.args.partition("<")[0] not in _PRINTED:
                thread.clear()
        else:
            early.append(call)
            if len(early) == MIN_REPEATS:
                thread.early = None
                for each in early:
                    self._count(each, thread, _ROLES.get(each.name))

    def _count(self, call: Syscall, thread: _Thread, role: _Role | None) -> None:
        """Add a call to the thread's run."""
        name, args, value, errno = call.name, call.args, call.value, call.errno
        kinds = thread.kinds
        object_: object
        if role == "wait":
            thread.blocked_ns += call.duration_ns or 0
            object_ = None
            name = "WAIT"
        elif role == "whole":
            object_ = _whole(name, args)
        else:
            object_ = args
            if args[0:1] in _FIRST_OF_NUMBER:
                object_ = args.partition("<")[0]
            if name == "ioctl" and object_ in _STANDARD:
                return
            if role == "blocking":
                thread.blocked_ns += call.duration_ns or 0
        outcome: object
        if errno is not None:
            outcome = errno
        elif value is None:
            return
        elif name == "getsockopt" and (found := _SOCKET_ERROR.search(args)):
            outcome = found[1]
        elif value > 0:
            if role == "transfer":
                if object_ not in _PRINTED:
                    self._end(call.pid, thread)
                return
            outcome = value if name in _CREATORS else True
        else:
            outcome = value
        key = (name, object_, outcome)
        kind = kinds.get(key)
        if kind is None:
            if len(kinds) == MAX_KINDS:
                self._end(call.pid, thread)
                thread.early = None
                kinds = thread.kinds
            kind = kinds[key] = _Kind(call)
        kind.count += 1
        kind.last = call
        if role == "wait" and kind.count & (kind.count - 1) == 0:
            kind.amid = call  # in the second half, wherever the run ends

    def _thread(self, pid: int) -> _Thread:
        if self._processes.main is None:
            self._processes.main = pid
        thread = self._threads[pid] = _Thread()
        return thread

    def _other(self, event: Event) -> None:
        if type(event) is Switch:
            thread = self._threads.get(event.pid) or self._thread(event.pid)
            thread.ran[event.greenthread] = thread.ran.get(event.greenthread, 0) + 1
            self._additions.ran(event.pid, event.greenthread)
        elif type(event) is Exit and event.pid in self._threads:
            self._end(event.pid, self._threads.pop(event.pid))

    def _end(self, pid: int, thread: _Thread) -> None:
        """Judge the run that ends here, and begin another."""
        for kind in thread.kinds.values():
            if kind.count >= MIN_REPEATS:
                self._judge(pid, thread)
                break
        thread.clear()

    def _judge(self, pid: int, thread: _Thread) -> None:
        kinds = thread.kinds
        calls = sum(kind.count for kind in kinds.values())
        first = min((kind.first for kind in kinds.values()), key=lambda call: call.line)
        last = max((kind.last for kind in kinds.values()), key=lambda call: call.line)
        seconds = (last.start_ns + (last.duration_ns or 0) - first.start_ns) / 1e9
        if (
            seconds < MIN_RUN_SECONDS
            or calls < MIN_CALLS_PER_KIND * len(kinds)
            or calls < MIN_RATE * seconds
            or thread.blocked_ns >= MAX_BLOCKED * seconds * 1e9
            # Short sleeps in a row take less time asleep than strace takes to write them down.
            or all(kind.first.name in SLEEPS for kind in kinds.values())
        ):
            return
        self._record(pid, thread, seconds)

    def _record(self, pid: int, thread: _Thread, seconds: float) -> None:
        kinds = sorted(_frequent(thread.kinds).items(), key=_rank)
        telling = kinds[0][1]
        others = _others(thread.ran, [kind for _, kind in kinds])
        name = _name(kinds, others)
        if name == "hub busy" and _wakes(thread.ran, telling.count):
            name = None  # there are timers that come due
        if name is None:
            return
        pattern = tuple(_shown(key, kind.last) for key, kind in kinds)
        storm = Storm(
            name,
            pattern[0],
            pattern,
            telling.count,
            seconds,
            pid,
            next(iter(others)) if name == "spin" else telling.last.greenthread,
            telling.first.line,
            self._caught(pid, thread),
            at=telling.last.where if name == "storm" else "",
        )
        same = (pid, name, frozenset(key for key, _ in kinds), storm.greenthread)
        known = self._found.get(same)
        if known is not None:
            known.count += storm.count
            known.duration += storm.duration
        elif len(self._found) < _MOST_PATTERNS:
            self._found[same] = storm

    def _caught(self, pid: int, thread: _Thread) -> tuple[_Caught, ...]:
        """Return what the run's waits brought, the descriptors in the order of their numbers."""
        found: dict[int, _Caught] = {}
        frequent = _frequent(thread.kinds)
        # To close it once is what ends the run, or comes after it.
        used = {key[1] for key in thread.kinds if key[0] != "close" or key in frequent}
        for kind in frequent.values():
            if kind.last.name not in _WAITS:
                continue
            at_first = {fd for _, fd in events_of(kind.first)}
            for events, fd in events_of(kind.amid):
                since = fd in at_first
                call = kind.first if since else kind.amid
                known = self._registrations.find(pid, fd, call.line)
                shown = _shown_in(call, fd)
                added = self._additions.find(pid, fd)
                served = str(fd) in used
                found[fd] = _Caught(events, fd, known, added, served, shown, call.line, since)
        return tuple(found[fd] for fd in sorted(found))

    def storms(self) -> list[Storm]:
        """Return the storms, the longest first."""
        for pid, thread in self._threads.items():
            self._end(pid, thread)
        long = [
            storm
            for storm in self._found.values()
            if storm.duration >= MIN_SECONDS
            and (storm.count >= MIN_SPIN_TURNS or not storm.may_be_progress)
        ]
        for storm in long:
            storm.who = self._processes.describe(storm.pid, storm.greenthread)
        return sorted(long, key=lambda storm: (-storm.duration, storm.line))

    def findings(self) -> Iterable[Finding]:
        for storm in self.storms():
            yield Finding(
                storm.kind,
                storm.describe(),
                tuple(Evidence(call, STRACE_FILE, storm.line) for call in storm.pattern[:1]),
                counts={"calls": storm.count, "seconds": storm.duration},
            )


_FIRST_OF_NUMBER = frozenset("-0123456789")


def _shown_in(wait: Syscall, fd: int) -> str:
    """Return a descriptor as a wait names it: ``poll`` and ``select`` do, with what it is."""
    match = re.search(rf"(?:=|\[| ){fd}{ANNOTATION}", wait.args, re.ASCII)
    return match[0].lstrip("=[ ") if match is not None else str(fd)


def _whole(name: str, args: str) -> object:
    if name == "epoll_ctl":
        match = _CONTROLLED.match(args)
        return args if match is None else match[0]
    number, _, rest = args.partition("<")
    return number, rest.rpartition(">, ")[2]


def _rank(item: tuple[_Key, _Kind]) -> tuple[bool, bool, bool, int]:
    """Sort the call that says what is wrong to the front."""
    key, kind = item
    failed = isinstance(key[2], str)
    return key[0] == "WAIT", not (_is_trouble(key) or failed), not _is_trouble(key), kind.first.line


def _is_trouble(key: _Key) -> bool:
    """Say whether a call failed otherwise than calls that do not block do as a rule."""
    return isinstance(key[2], str) and key[2] not in _USUAL_ERRORS


def _frequent(kinds: dict[_Key, _Kind]) -> dict[_Key, _Kind]:
    """Return the kinds of calls that are the loop's, without what fell into its time."""
    turns = max(kind.count for kind in kinds.values())
    return {key: kind for key, kind in kinds.items() if kind.count >= MIN_SHARE * turns}


def _wakes(ran: dict[str | None, int], polls: int) -> bool:
    """Say whether the hub has somebody run now and then."""
    least = max(MIN_WOKEN, MIN_WOKEN_SHARE * polls)
    return any(
        count >= least for each, count in ran.items() if not (each or "").endswith(HUB_LABEL)
    )


def _others(ran: dict[str | None, int], kinds: list[_Kind]) -> set[str | None]:
    """Return the greenthreads that ran again and again and made no call of the loop."""
    turns = max(kind.count for kind in kinds)
    often = {each for each, count in ran.items() if count >= MIN_SHARE * turns}
    return often.difference(*((kind.first.greenthread, kind.last.greenthread) for kind in kinds))


def _name(kinds: list[tuple[_Key, _Kind]], others: set[str | None]) -> Kind | None:
    """Return the kind of finding that a run is; ``None`` for progress.

    :param others: the greenthreads that ran meanwhile and made no call of the run.
    """
    if any(_is_trouble(key) for key, _ in kinds):
        return "storm"
    by_hub = all((kind.last.greenthread or "").endswith(HUB_LABEL) for _, kind in kinds)
    if not others:
        only_waits = all(key[0] == "WAIT" for key, _ in kinds)
        return "hub busy" if only_waits and by_hub else "storm"
    return "spin" if len(others) == 1 and by_hub else None


def _shown(key: _Key, call: Syscall) -> str:
    """Return a call in short: its name, what it acts on and its result."""
    value = call.value
    if isinstance(key[2], str) and call.errno is None:
        return f"{call.name}({_object(call.name, call.args)}) gives {key[2]}"
    if call.errno is not None:
        outcome = f"-1 {call.errno}" if value is not None else f"? {call.errno}"
    elif value is not None and value > 0 and call.name not in _CREATORS:
        outcome = "> 0"
    else:
        outcome = str(value)
    if key[0] == "WAIT":
        return f"{call.name} = {outcome}"
    return f"{call.name}({_object(call.name, call.args)}) = {outcome}"


def _object(name: str, args: str) -> str:
    """Return what a call acts on: a descriptor as strace names it, or the paths, or all it has."""
    match = _DESCRIPTOR.match(args)
    if match is not None:
        rest = args[match.end() + 2 :]
        return f"{match[0]}, {rest}" if name in _WHOLE else match[0]
    paths: list[str] = _PATHS.findall(args)
    return ", ".join(paths) if paths else args
