"""What a trace of system calls is made of: one event after the other."""

from __future__ import annotations

from typing import Final
from typing import Literal
from typing import NamedTuple
from typing import TypeAlias

import msgspec

State = Literal["returned", "unfinished", "detached", "truncated", "resumed"]


class Syscall(NamedTuple):
    """One system call of one thread.

    ``state`` is ``returned`` for a whole call. Of the others a part is missing:
    ``unfinished`` (the thread or the log ended first), ``detached`` (strace stopped
    watching), ``truncated`` (the log breaks off in this line) and ``resumed`` (strace
    attached in mid-call: ``args`` is only their end, ``start_ns`` the time of return).
    """

    #: Line number of the start of the call; the first line of the log is 1.
    line: int
    #: Thread id, as in strace's first column.
    pid: int
    #: Entry of the call, nanoseconds since the epoch (CLOCK_REALTIME).
    start_ns: int
    name: str
    #: The arguments as strace wrote them, still escaped.
    args: str
    #: Everything after ``=`` but the time spent: ``-1 EBADF (Bad file descriptor)``.
    ret: str | None
    #: The returned number; None if strace could not tell (``= ?``).
    value: int | None
    #: Symbolic error, such as ``EBADF`` or ``ERESTARTSYS``.
    errno: str | None
    #: Time between entry and return, nanoseconds (strace's ``-T``).
    duration_ns: int | None
    #: Label of the greenthread that the thread was running, such as ``3:serve``.
    greenthread: str | None
    state: State
    #: The line of Python that made the call, ``greenio/base.py:237 in accept``, and behind ``,
    #: from`` the nearest one of the user's own code; None where the trace does not tell.
    at: str | None = None

    @property
    def fd(self) -> int | None:
        """The descriptor that is its first argument, if strace named it or there is no other.

        strace names those that are open.
        """
        number = self.args.partition("<")[0]
        return int(number) if number.isdecimal() else None

    @property
    def where(self) -> str:
        """The line of Python for the end of a phrase, `` at greenio/base.py:237 in accept``."""
        return f" at {self.at}" if self.at is not None else ""


class Signal(msgspec.Struct, frozen=True):
    """A signal that was delivered to a thread, or that stopped it."""

    line: int
    pid: int
    time_ns: int
    name: str
    #: The siginfo as strace wrote it: ``{si_signo=SIGCHLD, ...}``, or ``stopped``.
    info: str


class Exit(msgspec.Struct, frozen=True):
    """The end of a thread: exactly one of the last three is not None."""

    line: int
    pid: int
    time_ns: int
    status: int | None
    signal: str | None
    #: The thread whose execve(2) replaced this one.
    superseded_by: int | None


class Phase(msgspec.Struct, frozen=True):
    """A mark that a phase of a test begins."""

    line: int
    pid: int
    #: The time strace saw, nanoseconds since the epoch.
    time_ns: int
    phase: str
    nodeid: str


class Switch(msgspec.Struct, frozen=True):
    """A mark that the thread now runs another greenthread."""

    line: int
    pid: int
    time_ns: int
    greenthread: str
    #: By how much the hub has switched to it later than it was to, if somebody had held the hub.
    late_ns: int = 0


#: The label of the greenlet that runs the test itself.
TEST_LABEL: Final = "1:test"


def is_hub(greenthread: str | None) -> bool:
    """Say whether the label of a greenthread is that of eventlet's main loop."""
    return greenthread is not None and greenthread.endswith(":hub")


class Gap(msgspec.Struct, frozen=True):
    """A place at which the middle of a long trace is left out."""

    line: int
    #: Bytes that are missing here.
    size: int


class Unparsed(msgspec.Struct, frozen=True):
    """A line that is no known form of strace's output, without its newline."""

    line: int
    text: str


Event: TypeAlias = Syscall | Signal | Exit | Phase | Switch | Gap | Unparsed
