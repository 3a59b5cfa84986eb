"""Child processes, with their command lines and the system call that each waits in."""

from __future__ import annotations

import os
import posix
from typing import NamedTuple

from pytest_eventlet_debug.system import unpatched

MAX_PROCESSES = 20
_MAX_COMMAND = 200

# Where processes wait: the call, its number on x86-64 (arch/x86/entry/syscalls/syscall_64.tbl), and
# that on arm64 (include/uapi/asm-generic/unistd.h). Of any other the number is told.
_CALLS = """
    accept:43:202 accept4:288:242 clock_nanosleep:230:115 connect:42:203 epoll_pwait:281:22
    epoll_wait:232: fcntl:72:25 flock:73:32 futex:202:98 nanosleep:35:101 openat:257:56
    pause:34: poll:7: ppoll:271:73 pread64:17: pselect6:270:72 read:0:63 recvfrom:45:207
    recvmsg:47:212 rt_sigsuspend:130:133 rt_sigtimedwait:128:137 select:23: sendmsg:46:211
    sendto:44:206 wait4:61:260 waitid:247:95 write:1:64 writev:20:66
"""
_NUMBERED = [word.split(":") for word in _CALLS.split()]
_NAMES = {
    "x86_64": {int(number): name for name, number, _ in _NUMBERED if number},
    "aarch64": {int(number): name for name, _, number in _NUMBERED if number},
}
# Whose first argument is a descriptor.
_ON_DESCRIPTOR = frozenset(("accept", "accept4", "connect", "fcntl", "flock", "pread64", "read"))
_ON_DESCRIPTOR |= {"recvfrom", "recvmsg", "sendmsg", "sendto", "write", "writev"}


class Process(NamedTuple):
    """A process below this one."""

    pid: int
    command: str
    #: As proc_pid_status(5) has it, such as ``S (sleeping)``.
    state: str
    #: The call it is in, such as ``read(0, pipe:[1])``, or nothing where that is not told.
    waits: str


def find_children() -> list[Process]:
    """Return the processes below this one, each after its parent.

    At most :data:`MAX_PROCESSES`. Reads ``/proc`` alone; where there is none there are none.
    """
    found: list[Process] = []
    ahead = _known_children(unpatched.getpid())
    while ahead and len(found) < MAX_PROCESSES:
        child = ahead.pop(0)
        try:
            found.append(_describe(child))
        except OSError:
            continue  # it has ended
        ahead[:0] = _known_children(child)
    return found


def children(pid: int) -> list[int]:
    """Return the children of a process.

    :raises OSError: this is not Linux, or the process or one of its threads ended meanwhile.
    """
    threads = posix.listdir(f"/proc/{pid}/task")
    texts = [unpatched.read_file(f"/proc/{pid}/task/{each}/children") for each in threads]
    return [int(word) for text in texts for word in text.split()]


def _known_children(pid: int) -> list[int]:
    try:
        return children(pid)
    except OSError:
        return []


def _describe(pid: int) -> Process:
    fields = dict(
        line.split(":", 1) for line in _text(f"/proc/{pid}/status").splitlines() if ":" in line
    )
    words = _text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
    command = words or f"[{fields.get('Name', '?').strip()}]"
    return Process(pid, command[:_MAX_COMMAND], fields.get("State", "?").strip(), _waits(pid))


def _waits(pid: int) -> str:
    """Return the system call of a process's first thread, or where in the kernel it waits."""
    try:
        words = _text(f"/proc/{pid}/syscall").split()
        if words[:1] == ["running"]:
            return ""
        number, first = int(words[0]), int(words[1], 16)
        name = _NAMES.get(posix.uname().machine, {}).get(number, f"system call {number}")
        return f"{name}({_descriptor(pid, first) if name in _ON_DESCRIPTOR else ''})"
    except (OSError, ValueError, IndexError):
        pass  # not ours to look at, or a kernel without it
    try:
        place = _text(f"/proc/{pid}/wchan").strip()
    except OSError:
        return ""
    return "" if place in ("", "0") else f"{place} in the kernel"


def _descriptor(pid: int, fd: int) -> str:
    try:
        return f"{fd}, {os.fsdecode(posix.readlink(f'/proc/{pid}/fd/{fd}'))}"
    except OSError:
        return str(fd)


def _text(path: str) -> str:
    return unpatched.read_file(path).decode("utf-8", "backslashreplace")
