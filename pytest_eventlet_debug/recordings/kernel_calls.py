"""Which functions of CPython's C modules enter the kernel, and by which system calls.

Where a line of Python calls one of them, the trace is marked with the function and the
line (:mod:`~pytest_eventlet_debug.recordings.marks`). Whatever other call follows, such as one of
the memory allocator, is none of that line's.

Standard library alone. Names of system calls are strace's, on any architecture.
"""

from __future__ import annotations

from typing import Final

from pytest_eventlet_debug.recordings import marks

#: In the place of a function: what the import system does for an ``import`` statement.
IMPORT: Final = "import"

_OPEN = "openat open close fstat fstat64 newfstatat statx ioctl lseek _llseek"
_READ = "read readv pread64 lseek _llseek fstat fstat64 newfstatat statx ioctl"
_WRITE = "write writev pwrite64 lseek _llseek fstat fstat64 newfstatat statx"
_STAT = "stat stat64 lstat lstat64 fstat fstat64 newfstatat fstatat64 statx"
_LIST = f"openat open close getdents64 getdents {_STAT}"
_FORK = "clone clone3 fork vfork"
_POLL = "poll ppoll ppoll_time64"
_WAIT = "wait4 waitid waitpid"
#: Resolvers read files, ask over the network, and load libraries.
_RESOLVE = (
    f"socket connect bind sendto sendmsg sendmmsg recvfrom recvmsg close getsockname setsockopt "
    f"{_OPEN} {_READ} {_STAT} {_POLL} access faccessat uname write"
)
_RESOLVERS = ("getaddrinfo", "getnameinfo", "gethostbyname", "gethostbyname_ex", "gethostbyaddr")

#: The same where an address may be a name, without what others may do meanwhile.
_LOOK_UP = "openat open fstat fstat64 newfstatat stat stat64 statx lseek read"


def _as_named(functions: str) -> dict[str, str]:
    """Return functions that make no call but the one of their own name."""
    return dict.fromkeys(functions.split(), "")


#: By module or type: its functions, and the calls of each beside one of its own name.
_FUNCTIONS: dict[str, dict[str, str]] = {
    "_socket": {
        "sethostname": "",
        "socket": "socket getsockname getsockopt",
        "close": "close",
        "dup": "fcntl fcntl64",
        "socketpair": "socketpair",
        "gethostname": "uname",
        **dict.fromkeys(_RESOLVERS, _RESOLVE),
        **dict.fromkeys(("getservbyname", "getservbyport", "getprotobyname"), _OPEN + " read"),
    },
    "_socket.socket": {
        **_as_named("getpeername getsockname getsockopt listen setsockopt shutdown"),
        "__init__": "socket getsockname getsockopt",
        "_accept": f"accept accept4 {_POLL}",
        "bind": _LOOK_UP,
        "close": "close",
        "connect": f"getsockopt {_POLL} {_LOOK_UP}",
        "connect_ex": f"connect getsockopt {_POLL} {_LOOK_UP}",
        "recv": f"recvfrom {_POLL}",
        "recv_into": f"recv recvfrom {_POLL}",
        "recvfrom": _POLL,
        "recvfrom_into": f"recvfrom {_POLL}",
        "recvmsg": _POLL,
        "recvmsg_into": f"recvmsg {_POLL}",
        "send": f"sendto {_POLL}",
        "sendall": f"send sendto {_POLL}",
        "sendto": f"{_POLL} {_LOOK_UP}",
        "sendmsg": _POLL,
        "setblocking": "ioctl fcntl fcntl64",
        "settimeout": "ioctl fcntl fcntl64",
    },
    "select": {
        "select": "_newselect pselect6 pselect6_time64",
        "epoll": "epoll_create epoll_create1",
    },
    "select.poll": {"poll": _POLL},
    "select.epoll": {
        "close": "",
        "modify": "epoll_ctl",
        "poll": "epoll_wait epoll_pwait epoll_pwait2",
        "register": "epoll_ctl",
        "unregister": "epoll_ctl",
    },
    "time": {
        "sleep": "clock_nanosleep clock_nanosleep_time64 nanosleep select _newselect pselect6",
    },
    "fcntl": {"fcntl": "fcntl64", "flock": "", "ioctl": "", "lockf": "fcntl fcntl64"},
    "_posixsubprocess": {"fork_exec": _FORK},
    "_signal": {
        "pause": "",
        "setitimer": "",
        "alarm": "setitimer",
        "pthread_kill": "tgkill tkill",
        "pthread_sigmask": "rt_sigprocmask",
        "raise_signal": "tgkill tkill",
        "set_wakeup_fd": _STAT,
        "signal": "rt_sigaction",
        "sigtimedwait": "rt_sigtimedwait",
        "sigwait": "rt_sigtimedwait",
        "sigwaitinfo": "rt_sigtimedwait",
    },
    "_thread": {
        "start_new_thread": _FORK,
        "start_new": _FORK,
        "start_joinable_thread": _FORK,
    },
    "_ssl._SSLContext": {
        "load_cert_chain": f"{_OPEN} {_READ}",
        "load_verify_locations": f"{_LIST} {_READ}",
        "set_default_verify_paths": f"{_LIST} {_READ}",
    },
    "_ssl._SSLSocket": dict.fromkeys(
        ("do_handshake", "read", "shutdown", "write"),
        f"read write recvfrom recvmsg sendto sendmsg {_POLL}",
    ),
    "_io": {"open": _OPEN, "open_code": _OPEN, "FileIO": _OPEN},
    "_io.FileIO": {
        "close": "",
        "read": _READ,
        "readall": _READ,
        "readinto": _READ,
        "seek": "lseek _llseek",
        "tell": "lseek _llseek",
        "truncate": "ftruncate ftruncate64",
        "write": _WRITE,
    },
    "_io.BufferedReader": {
        "close": "",
        **dict.fromkeys(("peek", "read", "read1", "readinto", "readline", "readlines"), _READ),
        "seek": "lseek _llseek",
    },
    "_io.BufferedWriter": {
        **dict.fromkeys(("flush", "write"), _WRITE),
        "close": _WRITE,
        "seek": _WRITE,
    },
    "_io.TextIOWrapper": {
        **dict.fromkeys(("read", "readline", "readlines"), _READ),
        **dict.fromkeys(("flush", "write", "writelines"), _WRITE),
        "close": _WRITE,
        "seek": _WRITE,
    },
    "builtins": {"print": _WRITE, "input": f"{_READ} {_WRITE}"},
    "posix": {
        **_as_named(
            """read readv write writev close pipe2 getrandom chdir fchdir getcwd fchmod fchown
            fsync fdatasync sync splice copy_file_range memfd_create pidfd_open kill execve
            umask setsid setpgid sched_yield sched_setaffinity sched_getaffinity unshare"""
        ),
        **dict.fromkeys(("stat", "lstat", "fstat"), _STAT),
        **dict.fromkeys(("listdir", "scandir"), _LIST),
        **dict.fromkeys(("fork", "forkpty", "posix_spawn", "posix_spawnp"), _FORK),
        **dict.fromkeys(("wait", "wait3", "wait4", "waitid", "waitpid"), _WAIT),
        **dict.fromkeys(("statvfs", "fstatvfs"), "statfs fstatfs"),
        "system": f"{_FORK} {_WAIT} rt_sigaction rt_sigprocmask",
        "open": _OPEN,
        "pread": "pread64",
        "preadv": "preadv2",
        "pwrite": "pwrite64",
        "pwritev": "pwritev2",
        "closerange": "close close_range",
        "dup": "fcntl fcntl64",
        "dup2": "dup3",
        "pipe": "pipe2",
        "eventfd": "eventfd2",
        "eventfd_read": "read",
        "eventfd_write": "write",
        "openpty": "openat open ioctl",
        "lseek": "_llseek",
        "lockf": "fcntl fcntl64",
        "isatty": "ioctl",
        "ttyname": f"ioctl readlink {_STAT}",
        "get_terminal_size": "ioctl",
        "urandom": f"getrandom {_OPEN} read",
        "access": "faccessat faccessat2",
        "chmod": "fchmodat fchmodat2",
        "chown": "fchownat",
        "lchown": "fchownat",
        "link": "linkat",
        "symlink": "symlinkat",
        "readlink": "readlinkat",
        "mkdir": "mkdirat",
        "mkfifo": "mknod mknodat",
        "mknod": "mknodat",
        "remove": "unlink unlinkat",
        "unlink": "unlinkat",
        "rmdir": "unlinkat",
        "rename": "renameat renameat2",
        "replace": "rename renameat renameat2",
        "truncate": "ftruncate truncate64",
        "ftruncate": "ftruncate64",
        "utime": "utimensat utimensat_time64",
        "sendfile": "sendfile64",
        "killpg": "kill",
        "execv": "execve",
        "_exit": "exit_group",
        "nice": "getpriority setpriority",
    },
}

#: By full name, such as ``_socket.socket.send``: the system calls that a function makes. As tuples,
#: which the garbage collector stops to look at.
CALLS: Final[dict[str, tuple[str, ...]]] = {
    f"{owner}.{name}": (name, *calls.split())
    for owner, functions in _FUNCTIONS.items()
    for name, calls in functions.items()
} | {
    IMPORT: tuple(f"{_LIST} {_READ} readlink readlinkat access faccessat getcwd".split()),
    # Around each phase pytest captures output, and says how a test went.
    marks.RUNNER: tuple(f"{_READ} {_WRITE} {_STAT} dup2 dup3 ftruncate ftruncate64".split()),
}

#: Functions that open sockets of their own, and close them before they return.
RESOLVERS: Final = frozenset(f"_socket.{name}" for name in _RESOLVERS)
