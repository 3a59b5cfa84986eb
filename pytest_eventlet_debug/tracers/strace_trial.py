"""Find out before the first test whether strace can trace this process."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import shutil

from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracers import yama
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.protocol import TracerUnavailable
from pytest_eventlet_debug.tracers.strace_program import OPTIONS
from pytest_eventlet_debug.tracers.strace_program import find
from pytest_eventlet_debug.tracers.strace_program import keep_marks

_CAP_SYS_PTRACE = 19


class Trial:
    """Finds out before the first test whether strace can trace this process.

    The helper attaches strace to it and detaches it, while this process goes on if it may.
    """

    def __init__(self, helper: Helper, extra_args: Sequence[str] = ()) -> None:
        """Begin.

        :param extra_args: options for strace, after ours.
        :raises TracerUnavailable: it cannot; the message names the cause and the remedy.
        """
        self._helper = helper
        self._extra_args = extra_args
        self._program = find()
        self._status = _status()
        tracer = int(self._status.get("TracerPid", "0"))
        if tracer:
            raise TracerUnavailable(
                f"strace cannot trace this process: {_command(tracer)} (process {tracer}) "
                "traces it already, and a process can have only one tracer; run without it"
            )
        self._privileged = bool(int(self._status.get("CapEff", "0"), 16) >> _CAP_SYS_PTRACE & 1)
        self._scope = yama.ptrace_scope()
        if self._scope == 3:
            raise TracerUnavailable(
                "strace cannot trace any process: kernel.yama.ptrace_scope is 3, which stays "
                "until the next boot; set it to 1 in /etc/sysctl.d and reboot"
            )
        if self._scope == 2 and not self._privileged:
            raise TracerUnavailable(
                "strace may only be used by root here: kernel.yama.ptrace_scope is 2; "
                "run as root, or `sysctl kernel.yama.ptrace_scope=1`"
            )
        self._asked = helper.begin("strace-version", program=self._program)
        self._attempt: int | None = None
        # Elsewhere the helper must be allowed to first, and has yet to say which process it is.
        if self._privileged or not self._scope:
            self._attempt = self._begin()

    def _begin(self) -> int:
        # The user's code may run meanwhile. Its children stay untraced, for what is traced
        # gets no privileges from the file that it executes.
        options = [option for option in OPTIONS if option != "-f"]
        return self._helper.begin(
            "strace-try",
            program=self._program,
            options=[*options, *keep_marks(self._extra_args)],
        )

    def version(self) -> str:
        """Return strace's version, such as ``6.1``, while it is still being tried.

        :raises TracerUnavailable: it is none; the message names the remedy.
        """
        with self._explaining():
            version = _version(str(self._helper.end(self._asked)["words"]))
            if self._attempt is None:
                yama.allow(self._helper)
                self._attempt = self._begin()
            return version

    def end(self) -> None:
        """Wait until strace has attached and detached; do nothing where it never began.

        :raises TracerUnavailable: it cannot trace; the message names the cause and the remedy.
        """
        with self._explaining():
            if self._attempt is not None:
                self._helper.end(self._attempt)

    @contextlib.contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except TracerUnavailable:
            raise
        except TracerError as error:
            cause = _cause(str(error), self._status, self._scope, self._privileged)
            if not cause and self._extra_args:
                cause = f"the options given for it are {' '.join(self._extra_args)}"
            raise TracerUnavailable(f"{error}; {cause}" if cause else str(error)) from error


def _version(words: str) -> str:
    """Take the version from ``strace -- version 6.1``.

    :raises TracerUnavailable: these are not strace's words.
    """
    _, found, version = words.rpartition("version ")
    if not found or not version.strip():
        said = repr(words[:40]) if words.strip() else "nothing"
        raise TracerUnavailable(
            f"`{shutil.which('strace')} -V` printed {said} and no version: it is broken or another "
            "program; install strace again, or put it first on PATH"
        )
    return version.strip()


def _status() -> dict[str, str]:
    lines = unpatched.read_file("/proc/self/status").decode("utf-8", "replace").splitlines()
    pairs = (line.partition(":") for line in lines)
    return {key: value.strip() for key, _, value in pairs}


def _command(pid: int) -> str:
    try:
        return unpatched.read_file(f"/proc/{pid}/comm").decode("utf-8", "replace").strip()
    except OSError:
        return "a program that cannot be seen"


def _cause(words: str, status: dict[str, str], scope: int, privileged: bool) -> str:
    """Say why ptrace was refused, which strace's own words do not tell."""
    if "ptrace" not in words.lower():
        return ""
    if status.get("Seccomp", "0") != "0":
        return (
            "a seccomp filter is in force (a container?) and seems to forbid ptrace: "
            "`docker run --cap-add=SYS_PTRACE --security-opt seccomp=unconfined`"
        )
    if not privileged and not yama.is_dumpable():
        return (
            "this process is not dumpable (PR_SET_DUMPABLE, or its interpreter has file "
            "capabilities): use an interpreter without capabilities, or run as root"
        )
    if scope and not privileged:
        return f"kernel.yama.ptrace_scope is {scope}: `sysctl kernel.yama.ptrace_scope=0`"
    if not privileged:
        return "CAP_SYS_PTRACE is missing: run as root or as the owner of the process"
    return "a security module (SELinux, AppArmor) may forbid ptrace; see `dmesg`"
