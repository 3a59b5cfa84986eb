"""The operating system, out of monkey patching's reach.

``eventlet.monkey_patch()`` replaces functions of ``os``, ``select``, ``socket``,
``subprocess``, ``threading`` and ``time`` in place: code that uses them inside a test
process yields to the hub, whichever way it imported them. The C modules ``posix`` and
``_socket`` are never touched, so this module offers what the plugin needs on top of
them. Nothing here switches greenthreads, whether ``monkey_patch()`` ran before or
after the import.

Only the standard library is used, and the module can be imported on every POSIX system;
what a system lacks is missing when it is called.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
from functools import partial
import importlib.util
import os
import posix
import sys
import time
import types

getpid = posix.getpid

#: Bytes that a socket takes at once or not at all, so that no signal can cut them short. The kernel
#: splits what is longer than 32 KiB.
_WHOLE_BYTES = 1 << 14

_PR_SET_PDEATHSIG = 1


def private_module(name: str) -> types.ModuleType:
    """Return a second, fresh instance of the C extension module called *name*.

    It is not entered in ``sys.modules`` and shares no dictionary with the instance that
    is, so what was removed from or replaced in that one is intact here.

    :raises ImportError: there is no such module.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no module named {name!r}", name=name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# eventlet removes poll and epoll from the public module, for good.
select = private_module("select")

# freezegun replaces the public module's functions in each module that has them by any name.
_time = private_module("time")
monotonic: Callable[[], float] = partial(_time.clock_gettime, time.CLOCK_MONOTONIC)
perf_counter: Callable[[], float] = _time.perf_counter
thread_time: Callable[[], float] = _time.thread_time

if hasattr(time, "CLOCK_TAI"):
    _REALTIME_COARSE = 5  # clock_gettime(2); Python has no name for it

    def time_ns() -> int:
        """Return nanoseconds since the epoch, by the clock of strace and of captured packets.

        Not from ``CLOCK_REALTIME``, for time-machine has that tell another time in all C code of
        the interpreter. International atomic time is ahead of it by whole seconds.
        """
        atomic: int = _time.clock_gettime_ns(time.CLOCK_TAI)
        ahead: int = atomic - _time.clock_gettime_ns(_REALTIME_COARSE) + 500_000_000
        return atomic - (ahead - ahead % 1_000_000_000)

else:
    time_ns = _time.time_ns


def write_all(fd: int, data: bytes) -> None:
    """Write *data* to the descriptor *fd* until every byte is written.

    A descriptor in non-blocking mode is waited for.

    :raises OSError: as ``write(2)`` does.
    """
    view = memoryview(data)
    while view:
        try:
            view = view[posix.write(fd, view) :]
        except BlockingIOError:
            _wait(fd, select.POLLOUT)


def write_whole(fd: int, data: bytes) -> None:
    """Write *data* as :func:`write_all` does; no signal handler's exception leaves a part of it.

    What handlers raise comes before or after it.

    :raises OSError: as ``write(2)`` does.
    """
    if len(data) <= _WHOLE_BYTES:
        write_all(fd, data)
        return
    before = _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())
    try:
        write_all(fd, data)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, before)


def read_exactly(fd: int, size: int) -> bytes:
    """Read *size* bytes from the descriptor *fd*.

    :raises EOFError: the other end closed first.
    """
    parts = []
    while size:
        part = _read_blocking(fd, size)
        if not part:
            raise EOFError(f"descriptor {fd} ended with {size} bytes still to come")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def read_file(path: str) -> bytes:
    """Return the whole content of the file at *path*, such as one under ``/proc``.

    :raises OSError: the file cannot be opened or read.
    """
    fd = posix.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := posix.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    finally:
        posix.close(fd)


def wait_readable(fds: Iterable[int], timeout_seconds: float | None) -> list[int]:
    """Wait until a descriptor of *fds* can be read, has ended or is not open at all.

    :param timeout_seconds: how long to wait; ``None`` for ever, ``0`` not at all.
    :return: the descriptors that can be read now; none of them after the timeout.
    """
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    timeout = None if timeout_seconds is None else timeout_seconds * 1000
    return [fd for fd, _ in poll.poll(timeout)]


def environment(**changes: str) -> dict[str, str]:
    """Return a copy of the present environment with *changes* made in it."""
    return {**os.environ, **changes}


def run(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run a program that ends at once, wait for it, and return its wait status.

    It starts in a session of its own, with ``/dev/null`` as standard streams, with no
    signal blocked and none ignored. Descriptors that are inheritable are inherited. Its
    end is no SIGCHLD for this process, unless another thread is there to take that.

    :param arguments: the program's path and its arguments.
    :return: as ``waitpid(2)``; ``0`` where SIGCHLD is ignored and nobody can know.
    :raises OSError: the program cannot be started.
    """
    import signal  # it builds enums: not for those who only import this module

    signals = set(range(1, signal.NSIG)) - {signal.SIGKILL, signal.SIGSTOP}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    pending = signal.SIGCHLD in signal.sigpending()
    try:
        pid = posix.posix_spawn(
            arguments[0],
            list(arguments),
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsigmask=[],
            setsigdef=sorted(signals & signal.valid_signals()),
        )
        try:
            while os.WIFSTOPPED(status := posix.waitpid(pid, posix.WUNTRACED)[1]):
                posix.kill(pid, signal.SIGCONT)  # whoever stopped it: we cannot go on without
            return status
        except ChildProcessError:
            return 0
    finally:
        if not pending and signal.SIGCHLD in signal.sigpending():
            _forget_child_signal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _forget_child_signal() -> None:
    """Take the SIGCHLD that is pending, but for one that somebody else waits for, too."""
    import signal

    if hasattr(signal, "sigtimedwait"):  # not on macOS
        signal.sigtimedwait({signal.SIGCHLD}, 0)
        try:
            other = posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
        except ChildProcessError:
            other = None
        if other is not None:
            posix.kill(posix.getpid(), signal.SIGCHLD)


def end_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends, where the kernel can.

    :param parent: the parent's process id. Should it have ended already, that counts as well.
    """
    import ctypes
    import signal

    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if posix.getppid() != parent:
            posix.kill(posix.getpid(), signal.SIGKILL)


def platform_name() -> str:
    """Name the system and its C library as ``platform.platform()`` does, but start no program."""
    system = posix.uname()
    name = f"{system.sysname}-{system.release}-{system.machine}"
    try:
        library = posix.confstr("CS_GNU_LIBC_VERSION")
    except (OSError, ValueError):  # another C library
        library = None
    return f"{name}-with-{library.replace(' ', '')}" if library else name


def on_linux() -> bool:
    """Say whether this is Linux, where strace and packet sockets are."""
    return sys.platform == "linux"


def _read_blocking(fd: int, size: int) -> bytes:
    while True:
        try:
            return posix.read(fd, size)
        except BlockingIOError:
            _wait(fd, select.POLLIN)


def _wait(fd: int, event: int) -> None:
    poll = select.poll()
    poll.register(fd, event)
    poll.poll()
