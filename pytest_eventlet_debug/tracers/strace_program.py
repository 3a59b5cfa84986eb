"""The program strace: where it is, and with which options it is run."""

from __future__ import annotations

from collections.abc import Sequence
import os
import shutil
import sys

from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracers.protocol import TracerUnavailable

#: -f threads and children, -ttt unix time, -T time spent, -yy what a descriptor is.
OPTIONS = ("-f", "-ttt", "-T", "-yy", "-s", "256")

#: What ``-e`` takes besides the set of system calls to trace.
_OTHER_QUALIFIERS = frozenset(
    (
        *("abbrev", "a", "verbose", "v", "raw", "x", "signal", "signals", "s"),
        *("read", "reads", "r", "write", "writes", "w", "fault", "inject", "status"),
        *("quiet", "silent", "silence", "q", "kvm", "decode-fds", "decode-pids"),
    )
)


def find() -> str:
    """Return its path.

    :raises TracerUnavailable: there is none; the message names the remedy.
    """
    if not unpatched.on_linux():
        raise TracerUnavailable(f"strace needs Linux; this is {sys.platform}")
    program = shutil.which("strace")
    if program is None:
        raise TracerUnavailable(
            "there is no strace on PATH: install it (`apt install strace`, "
            "`dnf install strace`, `apk add strace`)"
        )
    return os.path.abspath(program)


def keep_marks(arguments: Sequence[str]) -> tuple[str, ...]:
    """Let the system call that makes our marks pass a filter among strace's options.

    :param arguments: options for strace, such as ``-e trace=network``.
    :return: the same, with ``access`` added where a set of system calls is named; a set
        that is negated (``!read``) is left as it is.
    """
    kept: list[str] = []
    follows_e = False
    for argument in arguments:
        if follows_e:
            kept.append(_with_access(argument))
        elif argument.startswith("--trace="):
            kept.append("--trace=" + _with_access(argument.removeprefix("--trace=")))
        elif argument.startswith("-e") and argument != "-e":
            kept.append("-e" + _with_access(argument.removeprefix("-e")))
        else:
            kept.append(argument)
        follows_e = not follows_e and argument in ("-e", "--trace")
    return tuple(kept)


def _with_access(expression: str) -> str:
    qualifier, equals, calls = expression.partition("=")
    if equals and qualifier in _OTHER_QUALIFIERS:
        return expression
    if not equals:
        qualifier, calls = "", expression
    if calls.startswith("!") or calls == "all":
        return expression
    kept = ",".join(f"?{call}" for call in marks.CALLS)
    return f"{qualifier}{equals}" + (kept if calls == "none" else f"{calls},{kept}")
