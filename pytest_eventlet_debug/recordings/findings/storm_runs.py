"""Runs: stretches of one thread's calls in which no byte moves and few kinds of calls recur."""

from __future__ import annotations

from typing import Final
from typing import Literal

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import WAITS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall

_BLOCKING = WAITS | frozenset(("wait4", "waitid", "flock"))

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
CREATORS = names(
    """socket accept accept4 open openat openat2 creat dup fcntl fcntl64 epoll_create
    epoll_create1 eventfd eventfd2 timerfd_create signalfd4 inotify_init1 memfd_create
    pidfd_open clone clone3 fork vfork wait4"""
)

# What these name beside their descriptor tells calls apart.
WHOLE = names("connect bind epoll_ctl")

Role = Literal["wait", "blocking", "ignored", "transfer", "whole"]
#: What a call is to a run; the first that holds.
ROLES: dict[str, Role] = {
    **dict.fromkeys(WHOLE, "whole"),
    **dict.fromkeys(_TRANSFERS, "transfer"),
    **dict.fromkeys(_BLOCKING, "blocking"),
    **dict.fromkeys(WAITS, "wait"),
    **dict.fromkeys(_IGNORED, "ignored"),
}

# A line that a loop prints about its trouble is no progress.
_PRINTED = ("1", "2")
#: argparse asks for the size of the terminal for each line of help.
_STANDARD = ("0", "1", "2")

_CONTROLLED = lazily(r"\S+, EPOLL_CTL_\w+, -?\d+")
_SOCKET_ERROR = lazily(r"SO_ERROR, \[(E[A-Z]+)\]")

_FIRST_OF_NUMBER = frozenset("-0123456789")

#: What makes calls the same: their name, what they act on, and how they ended.
Key = tuple[str, object, object]
#: The name in the key of all waits.
WAIT: Final = "WAIT"
#: The key of a call that moves bytes, which ends a run.
PROGRESS: Final[Key] = ("", None, None)

#: Kinds of calls in a run; loops over two or three descriptors have up to 16.
MAX_KINDS = 24


class CallKind:
    """Calls of one kind in a run: the first, the last, how many, and of waits one amid them."""

    __slots__ = ("amid", "count", "first", "last")

    def __init__(self, call: Syscall) -> None:
        self.count = 0
        self.first = call
        self.last = call
        self.amid = call


class Run:
    """The present run of one thread.

    :ivar early: its calls as long as they are too few for a storm, ``None`` from then on: most
        runs end before, and cost next to nothing.
    :ivar kinds: the calls, counted, from then on.
    :ivar ran: how often each greenthread has run meanwhile.
    :ivar turns: how often one greenthread has run, with only the hub in between and no call at
        all, which is how it spins where its hub need not poll; *first_turn* and *last_turn* are
        its marks.
    """

    __slots__ = ("blocked_ns", "early", "first_turn", "kinds", "last_turn", "ran", "turns")

    def __init__(self) -> None:
        self.early: list[Syscall] | None = []
        self.kinds: dict[Key, CallKind] = {}
        self.blocked_ns = 0
        self.ran: dict[str | None, int] = {}
        self.turns = 0
        self.first_turn: Switch | None = None
        self.last_turn: Switch | None = None

    def has_room(self, key: Key) -> bool:
        """Return whether there may be a call of this kind, beside those that there are."""
        return key in self.kinds or len(self.kinds) < MAX_KINDS

    def add(self, key: Key, call: Syscall, role: Role | None) -> None:
        """Count a call."""
        kind = self.kinds.get(key)
        if kind is None:
            kind = self.kinds[key] = CallKind(call)
        kind.count += 1
        kind.last = call
        if role == "wait" or role == "blocking":
            self.blocked_ns += call.duration_ns or 0
        if role == "wait" and kind.count & (kind.count - 1) == 0:
            kind.amid = call  # in the second half, wherever the run ends

    def clear(self) -> None:
        """Begin another run."""
        if self.early is None:
            self.early = []
            self.kinds = {}
            self.blocked_ns = 0
        else:
            self.early.clear()
        if self.ran:
            self.ran = {}


def is_printed(call: Syscall) -> bool:
    """Say whether a call of the role ``transfer`` prints something: that is no progress."""
    return call.args.partition("<")[0] in _PRINTED


def key_of(call: Syscall, role: Role | None) -> Key | None:
    """Return what a call is in a run: ``None`` for one that says nothing, or :data:`PROGRESS`."""
    name, args, value = call.name, call.args, call.value
    object_: object = args
    if role == "wait":
        name, object_ = WAIT, None
    elif role == "whole":
        object_ = _whole(name, args)
    elif args[0:1] in _FIRST_OF_NUMBER:
        object_ = args.partition("<")[0]
    if name == "ioctl" and object_ in _STANDARD:
        return None
    if call.errno is not None:
        return name, object_, call.errno
    if value is None:
        return None
    if name == "getsockopt" and (found := _SOCKET_ERROR.search(args)):
        return name, object_, found[1]
    if value <= 0:
        return name, object_, value
    if role == "transfer":
        return None if object_ in _PRINTED else PROGRESS
    return name, object_, value if name in CREATORS else True


def _whole(name: str, args: str) -> object:
    if name == "epoll_ctl":
        match = _CONTROLLED.match(args)
        return args if match is None else match[0]
    number, _, rest = args.partition("<")
    return number, rest.rpartition(">, ")[2]
