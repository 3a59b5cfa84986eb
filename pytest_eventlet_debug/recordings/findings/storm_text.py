"""What is told of a storm."""

from __future__ import annotations

import re

import msgspec

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import and_more
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.openings import descriptor
from pytest_eventlet_debug.recordings.findings.polled_waits import Addition
from pytest_eventlet_debug.recordings.findings.registrations import Registration
from pytest_eventlet_debug.recordings.findings.storm_runs import CREATORS
from pytest_eventlet_debug.recordings.findings.storm_runs import WAIT
from pytest_eventlet_debug.recordings.findings.storm_runs import WHOLE
from pytest_eventlet_debug.recordings.findings.storm_runs import Key
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: Greenthreads that are named where it is not known which of them it was.
_MOST_NAMED = 3

_PATHS = lazily(r'"(?:[^"\\]|\\.)*"')
_DESCRIPTOR = lazily(rf"-?\d+(?:{ANNOTATION})?")


class Caught(msgspec.Struct, frozen=True):
    """What a storm's wait brought again and again, and who had asked for it."""

    events: str
    fd: int
    registration: Registration | None
    addition: Addition | None
    #: Whether a call of the storm acts on the descriptor.
    served: bool
    #: The descriptor as the wait names it, where that does.
    shown: str
    #: Of a wait that brought it.
    line: int
    #: Whether that is the first of these waits.
    since: bool
    #: What had ended its registration by then, if it did.
    ended: Syscall | None = None

    def describe(self) -> str:
        known = self.registration
        if known is None and self.ended is not None and self.ended.name == "close":
            close = self.ended
            who = f" by greenthread {close.greenthread}" if close.greenthread else ""
            return (
                f"{self.events} on {descriptor(close)}, which was closed{who}{close.where} (line "
                f"{close.line}) while the hub watched it, and is still open under another number "
                "or in another process"
            )
        parts = [f"{self.events} on {known.shown if known else self.shown}"]
        if known is None:
            parts.append(self._since())
        else:
            whose = f"greenthread {known.greenthread}, " if known.greenthread else ""
            parts.append(f"registered by {whose}line {known.line}{known.at}")
        return ", ".join([*parts, "nobody acts on it"])

    def _since(self) -> str:
        """Return where it comes and, if they are few, who may have had the hub poll for it."""
        added = self.addition
        if added is None or not 0 < len(added.greenthreads) <= _MOST_NAMED:
            return f"{'since' if self.since else 'as in'} line {self.line}"
        names = " and ".join(added.greenthreads)
        return f"polled for since line {added.line}, after greenthread {names} had run"


class Storm(msgspec.Struct):
    """Calls that one thread repeated without getting anywhere; equal runs are one."""

    kind: Kind
    #: The call that tells most: ``accept4(-1) = -1 EBADF``.
    syscall: str
    #: All calls that came again and again, the one above first.
    pattern: tuple[str, ...]
    #: How often that call came.
    count: int
    #: Seconds spent repeating.
    duration: float
    #: Thread id.
    pid: int
    #: The greenthread that made ``syscall``, such as ``3:serve``; None if not recorded.
    greenthread: str | None
    #: Number of the line in the log where ``syscall`` came first.
    line: int
    caught: tuple[Caught, ...] = ()
    #: Whom to name: a greenthread, a thread, or a child process with its program.
    who: str = ""
    #: The line of Python that made ``syscall`` last, for the end of a phrase.
    at: str = ""

    @property
    def may_be_progress(self) -> bool:
        """Whether others may get on meanwhile: greenthreads, or tasks of an asyncio loop.

        Waits without labels do not tell, nor do those of a loop that is no hub.
        """
        if self.kind != "storm":
            return self.kind == "spin"
        only_waits = all(not call.partition(" = ")[0].endswith(")") for call in self.pattern)
        in_vain = all(call.endswith(" = 0") for call in self.pattern)
        return only_waits and (self.greenthread is None or in_vain)

    def describe(self) -> str:
        """Return the storm in one line, without its place."""
        unserved = [each.describe() for each in self.caught if not each.served]
        caught = "".join(f": {each}" for each in unserved[:1])
        if len(unserved) > 1:
            caught += f", and {len(unserved) - 1} more"
        if self.kind == "hub busy":
            return (
                f"the hub polled {self.count:,} times in {self.duration:.2f} s and woke nobody"
                + caught
            )
        if self.kind == "spin":
            return (
                f"{self.who} yielded {self.count:,} times in {self.duration:.2f} s without "
                f"waiting for anything{caught}"
            )
        others = list(dict.fromkeys(call for call in self.pattern if call != self.syscall))
        shown = ", ".join(others[:4]) + and_more(len(others) - 4)
        return (
            f"{self.syscall} x {self.count:,} in {self.duration:.2f} s{self.at}"
            + (f" (with {shown})" if shown else "")
            + f" by {self.who}{caught}"
        )


def shown_in(wait: Syscall, fd: int) -> str:
    """Return a descriptor as a wait names it: ``poll`` and ``select`` do, with what it is."""
    match = re.search(rf"(?:=|\[| ){fd}{ANNOTATION}", wait.args, re.ASCII)
    return match[0].lstrip("=[ ") if match is not None else str(fd)


def shown(key: Key, call: Syscall) -> str:
    """Return a call in short: its name, what it acts on and its result."""
    value = call.value
    if isinstance(key[2], str) and call.errno is None:
        return f"{call.name}({_object(call.name, call.args)}) gives {key[2]}"
    if call.errno is not None:
        outcome = f"-1 {call.errno}" if value is not None else f"? {call.errno}"
    elif value is not None and value > 0 and call.name not in CREATORS:
        outcome = "> 0"
    else:
        outcome = str(value)
    if key[0] == WAIT:
        return f"{call.name} = {outcome}"
    return f"{call.name}({_object(call.name, call.args)}) = {outcome}"


def _object(name: str, args: str) -> str:
    """Return what a call acts on: a descriptor as strace names it, or the paths, or all it has."""
    match = _DESCRIPTOR.match(args)
    if match is not None:
        rest = args[match.end() + 2 :]
        return f"{match[0]}, {rest}" if name in WHOLE else match[0]
    paths: list[str] = _PATHS.findall(args)
    return ", ".join(paths) if paths else args
