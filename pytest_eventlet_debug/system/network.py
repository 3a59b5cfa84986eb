"""A network of its own for a process that runs tests, without root.

In it there is ``lo`` and nothing else, so what is captured there are the packets of this
run, and the right to capture them comes with it. An ordinary user gets it through a user
namespace in which every user is who it was; root needs none. See user_namespaces(7),
network_namespaces(7) and, for what is left of the rights afterwards, capabilities(7).
Process ids of its own besides are the matter of :mod:`pytest_eventlet_debug.system.pids`.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from collections.abc import Callable
import contextlib
import errno
import fcntl
import json
import os
import posix
import socket
import struct

from pytest_eventlet_debug.system import unpatched

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000

_CAP_NET_ADMIN = 12
_CAP_NET_RAW = 13
_CAP_SYS_ADMIN = 21
_CAPABILITY_VERSION_3 = 0x20080522

_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_IFREQ = "16sH22x"


class IsolationError(Exception):
    """A network of its own cannot be had here. One line: why, and what would help."""


def separate(more: int = 0) -> None:
    """Give this process a network of its own, and every right within its namespaces.

    :param more: flags of unshare(2) for further namespaces.
    :raises OSError: that cannot be.
    """
    uid, gid = posix.geteuid(), posix.getegid()
    if not uid and _has(_CAP_SYS_ADMIN):
        call("unshare", _CLONE_NEWNET | more)
    else:
        call("unshare", _CLONE_NEWUSER | _CLONE_NEWNET | more)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _lo_up()


def check() -> None:
    """Find out in a process that goes away again whether :func:`enter` would work.

    :raises IsolationError: it would not.
    """
    run_apart(lambda: None)


def run_apart(function: Callable[[], object], separate: Callable[[], None] = separate) -> object:
    """Call a function in a fork of this process that has a network of its own.

    :param function: returns what JSON can hold; it calls :func:`drop` itself.
    :param separate: gives the fork that network, and perhaps more.
    :return: what it returned.
    :raises IsolationError: there can be no such network.
    :raises RuntimeError: the function raised; with its words.
    """
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise IsolationError(explain(OSError(errno.EINVAL, "")))
    reading, writing = posix.pipe()
    pid = posix.fork()
    if not pid:
        try:
            posix.close(reading)
            # Whoever started this process may ignore it, and the fork may have children.
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            answer = json.dumps(_attempt(function, separate))
            unpatched.write_all(writing, answer.encode("ascii"))
        finally:
            posix._exit(0)
    posix.close(writing)
    try:
        parts = []
        while part := posix.read(reading, 1 << 16):
            parts.append(part)
    finally:
        posix.close(reading)
        with contextlib.suppress(ChildProcessError):  # SIGCHLD is ignored
            posix.waitpid(pid, 0)
    refused, failed, value = json.loads(b"".join(parts) or b'["it died", null, null]')
    if refused is not None:
        raise IsolationError(refused)
    if failed is not None:
        raise RuntimeError(failed)
    return value


def _attempt(
    function: Callable[[], object], separate: Callable[[], None]
) -> tuple[str | None, str | None, object]:
    try:
        separate()
        keep_rights()
    except OSError as error:
        return explain(error), None, None
    try:
        return None, None, function()
    except BaseException as error:
        return None, str(error) or type(error).__name__, None


def enter(*, for_workers: bool = False) -> None:
    """Give this process a network of its own, and until :func:`drop` the right to capture.

    To be called before the process has a second thread. Programs that it starts before
    :func:`drop` have that right as well.

    :param for_workers: whether pytest-xdist's workers will be started from here; each
        calls :func:`enter_again`.
    :raises IsolationError: that cannot be.
    """
    check()
    try:
        separate()
        keep_rights(for_workers=for_workers)
    except OSError as error:
        raise IsolationError(explain(error)) from error


def keep_rights(*, for_workers: bool = False) -> None:
    """Give up the rights that came with :func:`separate`, but for what :func:`enter` leaves.

    Root keeps all.

    :raises OSError: they cannot be passed on to programs.
    """
    if posix.geteuid():
        kept = [_CAP_NET_ADMIN, _CAP_NET_RAW, *([_CAP_SYS_ADMIN] if for_workers else [])]
        _set_capabilities(sum(1 << capability for capability in kept))
        for capability in kept:
            call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability, 0, 0)


def enter_again() -> None:
    """Give a worker of pytest-xdist a network of its own, though it has threads already.

    The threads there are keep the network of the process that started the worker; this one
    and those that it starts have the new one.

    :raises IsolationError: that cannot be.
    """
    try:
        call("unshare", _CLONE_NEWNET)
        _lo_up()
    except OSError as error:
        raise IsolationError(explain(error)) from error


def drop() -> None:
    """Have no more rights than before :func:`enter`. Root stays root."""
    if posix.geteuid():
        call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
        _set_capabilities(0)


def call(name: str, *arguments: int) -> None:
    """Call a function of the C library that returns -1 for an error."""
    import ctypes  # slow to import, for those who isolate alone

    library = ctypes.CDLL(None, use_errno=True)
    try:
        function = getattr(library, name)
    except AttributeError:
        raise OSError(errno.ENOSYS, f"{name} is missing") from None
    if function(*(ctypes.c_ulong(argument) for argument in arguments)):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _set_capabilities(bits: int) -> None:
    """Set the thread's effective, permitted and inheritable capabilities; all fit 32 bits."""
    import ctypes

    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    data = ctypes.create_string_buffer(struct.pack("=6I", bits, bits, bits, 0, 0, 0))
    call("capset", ctypes.addressof(header), ctypes.addressof(data))


def _has(capability: int) -> bool:
    for line in unpatched.read_file("/proc/self/status").splitlines():
        if line.startswith(b"CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return False


def _write(path: str, text: str) -> None:
    fd = posix.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        posix.write(fd, text.encode("ascii"))
    finally:
        posix.close(fd)


def _lo_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack(_IFREQ, b"lo", 0)
        answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request)
        flags = struct.unpack(_IFREQ, answer)[1]
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_IFREQ, b"lo", flags | _IFF_UP))


#: Asked for early: in a user namespace that has no map yet, everybody is nobody.
_IS_ROOT = posix.geteuid() == 0


def explain(error: OSError) -> str:
    """Say why there is no network of its own, and what would help, in one line."""
    words = "--eventlet-isolate cannot give the tests a network of their own: "
    reason = error.errno
    if reason == errno.EINVAL:
        names = ", ".join(sorted(_thread_names()))
        return (
            f"{words}this process has several threads already ({names}), started by another "
            "plugin or a .pth file; leave that out, or run as root"
        )
    if reason == errno.ENOSPC:
        return f"{words}there are too many; `sysctl user.max_user_namespaces=10000` as root"
    if reason in (errno.EPERM, errno.EACCES):
        for setting, forbids, allows in _SETTINGS:
            if _setting(setting) == forbids:
                name = setting.replace("/", ".")
                return f"{words}{name} is {forbids}; `sysctl {name}={allows}`, or run as root"
        if b"Seccomp:\t2" in unpatched.read_file("/proc/self/status"):
            return (
                f"{words}a seccomp filter forbids it (a container?); "
                "`docker run --security-opt seccomp=unconfined`, or with --cap-add=SYS_ADMIN"
            )
        if _IS_ROOT:
            return (
                f"{words}root lacks the capabilities for it here (a container?); "
                "run as another user, or with --cap-add=SYS_ADMIN"
            )
        return f"{words}this system forbids user namespaces ({error}); run as root"
    return f"{words}{error}; run as root on Linux, or without --eventlet-isolate"


_SETTINGS = (
    ("kernel/unprivileged_userns_clone", "0", "1"),
    ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ("user/max_user_namespaces", "0", "10000"),
)


def _setting(name: str) -> str | None:
    try:
        return unpatched.read_file(f"/proc/sys/{name}").decode("ascii", "replace").strip()
    except OSError:
        return None


def _thread_names() -> list[str]:
    names = []
    for thread in os.listdir("/proc/self/task"):
        try:
            names.append(unpatched.read_file(f"/proc/self/task/{thread}/comm").decode().strip())
        except OSError:
            pass  # it has ended
    return names
