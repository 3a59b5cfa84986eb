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
    with contextlib.suppress(OSError):
        for line in unpatched.read_file(f"/proc/{pid}/status").splitlines():
            if line.startswith(b"NSpid:"):
                return [int(word) for word in line.split()[1:]]
    return []


def tracer(pid: int) -> int:
    """Return the id of the process that traces another one, 0 where none does."""
    with contextlib.suppress(OSError):
        for line in unpatched.read_file(f"/proc/{pid}/status").splitlines():
            if line.startswith(b"TracerPid:"):
                return int(line.split()[1])
    return 0


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


def tail(path: Path, start: int = 0) -> str:
    """Return the end of a file, from a byte on at most, or nothing where there is none."""
    return read(path, max(start, size(path) - _TAIL_BYTES))
