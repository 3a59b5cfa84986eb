"""Who may trace this process: Yama, a security module of the kernel, may ask for its consent."""

from __future__ import annotations

import errno
import os

from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import TracerError

_PR_GET_DUMPABLE = 3
_PR_SET_PTRACER = 0x59616D61


def ptrace_scope() -> int:
    """Return Yama's setting; 0 without Yama. See ptrace(2)."""
    try:
        return int(unpatched.read_file("/proc/sys/kernel/yama/ptrace_scope"))
    except (OSError, ValueError):
        return 0


def allow(helper: Helper) -> None:
    """Let the helper and its children trace this process, as Yama's scope 1 demands."""
    if not ptrace_scope():
        return
    result, reason = _prctl(_PR_SET_PTRACER, helper.pid)
    if result and reason != errno.EINVAL:  # EINVAL: no Yama, no restriction
        raise TracerError(f"prctl(PR_SET_PTRACER, {helper.pid}): {os.strerror(reason)}")


def is_dumpable() -> bool:
    """Say whether a process without privileges may trace this one; see ptrace(2)."""
    return _prctl(_PR_GET_DUMPABLE, 0)[0] == 1


def _prctl(option: int, argument: int) -> tuple[int, int]:
    """Call prctl(2); return its result and errno."""
    try:
        import ctypes  # slow to import, and only those who use strace need it
    except ImportError:
        return -1, errno.EINVAL  # a Python without it: go on as without Yama
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.prctl(option, ctypes.c_ulong(argument), 0, 0, 0)
    return int(result), ctypes.get_errno()
