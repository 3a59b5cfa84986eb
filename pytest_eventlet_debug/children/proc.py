"""What can be read of a process from outside: its descendants, its ids, the end of its files."""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
from pathlib import Path
import posix
import signal

from pytest_eventlet_debug.helper.protocol import HELPER_PROGRAM
from pytest_eventlet_debug.system import unpatched

_TAIL_BYTES = 4000
#: Characters of a command line.
_COMMAND = 80


def descendants(pid: int) -> list[int]:
    """Return the processes below *pid*, those in other process groups included."""
    import psutil

    try:
        return [process.pid for process in psutil.Process(pid).children(recursive=True)]
    except psutil.Error:
        return []


def members(group: int) -> list[int]:
    """Return the processes of a process group."""
    found = []
    for name in filter(str.isdigit, posix.listdir("/proc")):
        with contextlib.suppress(ProcessLookupError):
            if posix.getpgid(int(name)) == group:
                found.append(int(name))
    return found


def commands(pids: Iterable[int]) -> dict[int, str]:
    """Return the command lines of those processes that are still there."""
    import psutil

    lines = {}
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            lines[pid] = " ".join(psutil.Process(pid).cmdline())[:_COMMAND]
    return lines


def continue_helpers(pid: int) -> None:
    """Let the helper of a process that is dead complete its work, where somebody has stopped it."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            command = process.cmdline()
            if HELPER_PROGRAM in command and str(pid) in command:
                posix.killpg(posix.getpgid(process.pid), signal.SIGCONT)


def ids(pid: int) -> list[int]:
    """Return the ids of a process in this process's namespace and in those within it."""
    return [int(word) for word in _status(pid, b"NSpid:")]


def tracer(pid: int) -> int:
    """Return the id of the process that traces another one, 0 where none does."""
    return int((_status(pid, b"TracerPid:") or [b"0"])[0])


def is_stopped(pid: int) -> bool:
    """Say whether a process was stopped by a signal."""
    return _status(pid, b"State:")[:1] == [b"T"]


def blocks(pid: int, number: int) -> bool:
    """Say whether the main thread of a process has a signal blocked."""
    return _has(pid, b"SigBlk:", number)


def catches(pid: int, number: int) -> bool:
    """Say whether a process has a handler for a signal."""
    return _has(pid, b"SigCgt:", number)


def _has(pid: int, field: bytes, number: int) -> bool:
    """Say whether a signal is in a set of signals of a process, in hexadecimal."""
    return bool(int((_status(pid, field) or [b"0"])[0], 16) >> (number - 1) & 1)


def threads(pid: int, name: str) -> list[int]:
    """Return the ids of the threads of a process that have a name."""
    found = []
    with contextlib.suppress(OSError):
        for thread in posix.listdir(f"/proc/{pid}/task"):
            if unpatched.read_file(f"/proc/{pid}/task/{thread}/comm") == f"{name}\n".encode():
                found.append(int(thread))
    return found


def _status(pid: int, field: bytes) -> list[bytes]:
    """Return the words of a line of ``/proc/PID/status``; nothing of a process that is gone."""
    with contextlib.suppress(OSError):
        for line in unpatched.read_file(f"/proc/{pid}/status").splitlines():
            if line.startswith(field):
                return line.split()[1:]
    return []


def size(path: Path) -> int:
    """Return the bytes of a file, 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read(path: Path, start: int) -> str:
    """Return the text of a file from a byte on, or nothing where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def tail(path: Path, start: int = 0, length: int = _TAIL_BYTES) -> str:
    """Return the end of a file, from a byte on at most, or nothing where there is none."""
    return read(path, max(start, size(path) - length))
