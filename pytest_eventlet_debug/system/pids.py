"""Process ids of its own for a pytest that runs tests: small ones, and nobody else's.

In a pid namespace the first process stands in for init. So one process becomes three:

- the *wrapper*, which whoever started it knows: it waits, and ends as pytest ends;
- the *init* of the namespace, process 1: it mounts ``/proc``, adopts the processes that lose
  their parents, and reaps them;
- the *runner*, process 2, in which :func:`enter` returns. It is not process 1, because signals
  do nothing to that one unless it handles them.

As long as the runner lives, each dies with the one before it, and when init ends, the kernel
kills whatever is left in the namespace. See pid_namespaces(7) and, for ``/proc``,
mount_namespaces(7).
"""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
import errno
import os
import posix
import signal
import struct
from typing import NoReturn

from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import killing
from pytest_eventlet_debug.system import network
from pytest_eventlet_debug.system import unpatched

#: The runner's process id in its namespace.
RUNNER = 2

_INIT = 1

# A session that no process has.
_NOBODYS = -1

_CLONE_NEWNS = 0x00020000
_CLONE_NEWPID = 0x20000000

_MS_NOSUID = 2
_MS_NODEV = 4
_MS_NOEXEC = 8
_MS_REC = 0x4000
_MS_SLAVE = 0x80000

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4

# Sent to a whole process group by whoever sits at the terminal, and meant for the tests.
_KEYBOARD = (signal.SIGINT, signal.SIGQUIT)

#: What init tells the wrapper, once: an error number of what went wrong, else 0; the runner's
#: wait status; whether init has somebody to wait for when the runner has ended.
_WORD = struct.Struct("=3i")


def enter(parent: int, *, own_group: bool = False, awaited: str = "") -> None:
    """Go on in another process, with pids and, as after ``network.separate()``, a network.

    This process waits for that one and ends as it does, by the same signal if need be. To be
    called before there is a second thread.

    :param parent: the id of this process's parent; when that has ended, so does all of this.
    :param own_group: whether the process that goes on is to lead a process group.
    :param awaited: words in the command line of processes that may complete their work when
        the one that goes on has ended. Any other process is killed then.
    :raises OSError: that cannot be. This process may be in namespaces of its own by then.
    """
    reading, writing = posix.pipe()
    network.separate(_CLONE_NEWPID | _CLONE_NEWNS)
    unpatched.end_with(parent)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _KEYBOARD)
    init = posix.fork()
    if init:
        posix.close(writing)
        raise _wrap(init, reading, mask)
    posix.close(reading)
    runner = _begin(writing)
    if own_group:
        posix.setpgid(0, 0)
    if runner:
        _serve(runner, writing, awaited.encode())
    posix.close(writing)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _wrap(init: int, reading: int, mask: Iterable[int]) -> OSError:
    """Wait for init's word and end as the runner has, or return why there is none."""
    _ignore_keyboard()
    network.drop()
    try:
        refused, status, stays = _WORD.unpack(unpatched.read_exactly(reading, _WORD.size))
    except EOFError:  # somebody has killed it
        _end_like(posix.waitpid(init, 0)[1], mask)
    if refused or not stays:
        posix.waitpid(init, 0)
    if not refused:
        _end_like(status, mask)
    posix.close(reading)
    return OSError(refused, os.strerror(refused))


def _ignore_keyboard() -> None:
    for number in _KEYBOARD:
        signal.signal(number, signal.SIG_IGN)


def _end_like(status: int, mask: Iterable[int]) -> NoReturn:
    """End this process the way another one has ended."""
    if os.WIFEXITED(status):
        posix._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    # The one core that there may be is the runner's.
    network.call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)
    with contextlib.suppress(OSError, ValueError):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set(mask) - {number})
    posix.kill(posix.getpid(), number)
    posix._exit(128 + number)


def _begin(writing: int) -> int:
    """Make this process the namespace's init and fork the runner; return as ``fork()`` does."""
    try:
        network.call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if unpatched.wait_readable([writing], 0):
            posix._exit(1)  # the wrapper ended before that
        _mount_proc()
        return posix.fork()
    except OSError as error:
        _say(writing, error.errno or errno.EPERM)
        posix._exit(1)


def _mount_proc() -> None:
    """Have a ``/proc`` that shows this namespace's processes, here alone."""
    _mount("none", "/", "", _MS_SLAVE | _MS_REC)
    _mount("proc", "/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    import ctypes  # slow to import, for those who isolate alone

    words = [ctypes.create_string_buffer(word.encode()) for word in (source, target, kind)]
    network.call("mount", *map(ctypes.addressof, words), flags, 0)


def _serve(runner: int, writing: int, awaited: bytes) -> NoReturn:
    """Be init: reap, tell how the runner ended, and let those end that may."""
    try:
        _ignore_keyboard()
        network.drop()
        files.close_all_but({writing})
        pid = 0
        while pid != runner:
            pid, status = posix.waitpid(-1, 0)
        if stays := _end_others(awaited):
            network.call("prctl", _PR_SET_PDEATHSIG, 0, 0, 0, 0)
        _say(writing, 0, status, stays)
        while stays:
            posix.waitpid(-1, 0)
            stays = _end_others(awaited)
    finally:
        posix._exit(1)  # nobody asks, unless the wrapper has not been told


def _say(writing: int, refused: int, status: int = 0, stays: bool = False) -> None:
    with contextlib.suppress(BrokenPipeError):
        unpatched.write_all(writing, _WORD.pack(refused, status, stays))


def _end_others(awaited: bytes) -> bool:
    """End all but the sessions of those that are awaited; say whether there are any.

    Where there are none, that is the kernel's work, in a moment.
    """
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    kept = {_session(pid) for pid in pids if awaited and awaited in _command(pid)}
    kept -= {_NOBODYS, _session(_INIT)}
    if kept:
        others = [pid for pid in pids if pid != _INIT and _session(pid) not in kept]
        for pid in set(pids) - {_INIT, *others}:
            # Who completes its work must not stand still, whoever has stopped it.
            with contextlib.suppress(ProcessLookupError):
                posix.kill(pid, signal.SIGCONT)
        killing.wait_until_dead(killing.kill(others))
    return bool(kept)


def _session(pid: int) -> int:
    """Return the session of a process, 0 for one that began outside."""
    try:
        return posix.getsid(pid)
    except ProcessLookupError:
        return _NOBODYS


def _command(pid: int) -> bytes:
    try:
        return unpatched.read_file(f"/proc/{pid}/cmdline")
    except OSError:
        return b""
