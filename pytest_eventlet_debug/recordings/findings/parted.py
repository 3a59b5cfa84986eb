"""Find the first point where two traces of one test part.

Two runs never write the same trace: process ids, descriptors, ports and times differ, and
each hub waits in its own way. So each call becomes a *step*, in which a socket has the
part that it plays (``listener 1``, ``client 2``, ``connection 1``) instead of a number,
bytes sent or received in several calls are one step, and the hub's own calls are left
out. Digits and binary data are not compared, nor what is closed at the end. First come
the steps on each socket, then their order over all: where each socket had the same steps,
only the order differs, as it does now and then from run to run.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
import re
from typing import NamedTuple

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.call_names import STARTS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.loop_pairs import LoopPairs
from pytest_eventlet_debug.recordings.findings.parts import PAIRS
from pytest_eventlet_debug.recordings.findings.parts import Parts
from pytest_eventlet_debug.recordings.strace_log import Unread
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import Unparsed

#: Steps that are kept of a trace, from its beginning.
MAX_STEPS = 20_000

_SENDS = names("sendto sendmsg send write writev")
_RECEIVES = names("recvfrom recvmsg recv read readv")
_SOCKET_CALLS = _SENDS | _RECEIVES | names("bind listen accept accept4 connect shutdown close")
_PROCESS_CALLS = names("execve exit_group kill")
#: What calls that do not block answer until something is there: when depends on the run.
_NOT_YET = frozenset(("EAGAIN", "EWOULDBLOCK", "EINPROGRESS", "EALREADY", "EINTR"))

_DATA = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BINARY = re.compile(r"\\(?:\d|x)")
_CHANGING = re.compile(r"/tmp/[\w/.-]+|0x[0-9a-f]+|\w{3}, \d\d \w{3} \d{4}|\d+(?:[.:/-]\d+)*")
_ENDS = frozenset(("close", "shutdown"))
#: The role of what a test does with processes, its own included.
_PROCESSES = "processes"
#: Characters of data that are kept and shown; of what numbers are taken from, compared.
_SHOWN = 60
_COMPARED = 30
#: Sockets whose data comes in messages: each call moves one, which may be empty.
_DATAGRAM = re.compile(r"\d+<(?:UDP|UNIX(?!-STREAM))")
_TRANSFERS = frozenset(("send", "receive"))


class Step(NamedTuple):
    """What a call means, whatever numbers the run gave to things."""

    role: str
    action: str
    #: The first bytes of a transfer as strace wrote them.
    data: str
    line: int
    greenthread: str | None

    @property
    def meaning(self) -> tuple[str, str, str]:
        """What is compared."""
        data = "binary" if _BINARY.search(self.data) else _CHANGING.sub("#", self.data)
        return self.role, self.action, data[:_COMPARED]


class Parting(NamedTuple):
    """The first point where two traces part.

    ``role`` is the socket on which they do, or ``processes``, or empty where each of them had
    the same steps and only the order differs. ``before`` are the last steps that both have; then
    come the steps of each, which may be none at the end of its trace.
    """

    role: str
    before: tuple[Step, ...]
    left: tuple[Step, ...]
    right: tuple[Step, ...]

    @property
    def only_order(self) -> bool:
        """Whether each socket had the same steps."""
        return not self.role


def steps(events: Iterable[Event], unread: Unread | None = None) -> list[Step]:
    """Return the steps of a test's call phase, at most :data:`MAX_STEPS`.

    :param events: what :func:`~pytest_eventlet_debug.recordings.strace_log.parse` yields.
    :param unread: counts the lines that could not be read.
    """
    reader = _Reader()
    found: list[Step] = []
    last: dict[str, int] = {}
    for event in events:
        if type(event) is Phase:
            reader.enter(event)
        elif type(event) is Syscall:
            step = reader.step(event)
            if step is None:
                continue
            at = last.get(step.role, -1)
            if at >= 0 and step.action in _TRANSFERS and found[at].action == step.action:
                found[at] = _joined(found[at], step)
                continue
            if len(found) == MAX_STEPS:
                break
            last[step.role] = len(found)
            found.append(step)
        elif type(event) is Unparsed and unread is not None:
            unread.add(event)
    return found


def _joined(first: Step, more: Step) -> Step:
    """Return the transfer that two calls make together."""
    if len(first.data) >= _SHOWN:
        return first
    return first._replace(data=(first.data + more.data)[:_SHOWN])


def read(directory: Path, unread: Unread | None = None) -> list[Step]:
    """Return the steps of a recorded test.

    :param unread: counts the lines of its trace that could not be read.
    :raises StraceLogError: there is no trace in it that can be read.
    """
    with open_log(directory / STRACE_FILE) as log:
        return steps(parse(log), unread)


class _Reader:
    """Follows descriptors through a trace, of the test process alone."""

    def __init__(self) -> None:
        self._main: int | None = None
        self._in_call = False
        self._parts = Parts()
        self._loop_pairs = LoopPairs()
        self._handlers: Mapping[str, Callable[[Syscall], Step | None]] = {
            **dict.fromkeys(_SOCKET_CALLS, self._on_socket),
            **dict.fromkeys(_PROCESS_CALLS, self._on_process),
            **dict.fromkeys(STARTS, self._on_start),
            **dict.fromkeys(PAIRS, self._on_pair),
            **dict.fromkeys(LoopPairs.CALLS - PAIRS, self._on_maybe_loop),
        }

    def enter(self, phase: Phase) -> None:
        """Take note of a phase's beginning; the first one tells the test's process."""
        if self._main is None:
            self._main = phase.pid
        self._in_call = phase.phase == "call"

    def step(self, call: Syscall) -> Step | None:
        """Return what a call means, or ``None`` for what is not compared."""
        handler = self._handlers.get(call.name)
        if handler is None or call.pid != self._main or not self._in_call:
            return None
        if (call.errno in _NOT_YET and call.name != "connect") or call.state not in (
            "returned",
            "resumed",
        ):
            return None
        return handler(call)

    def _on_start(self, call: Syscall) -> Step | None:
        if "CLONE_THREAD" in call.args or call.errno is not None:
            return None
        return Step(_PROCESSES, "start a child", "", call.line, call.greenthread)

    def _on_process(self, call: Syscall) -> Step | None:
        return Step(_PROCESSES, call.name, "", call.line, call.greenthread)

    def _on_pair(self, call: Syscall) -> Step | None:
        self._loop_pairs.made(call)
        self._parts.follow(call)
        return None

    def _on_maybe_loop(self, call: Syscall) -> Step | None:
        made = self._loop_pairs.made(call)
        if made:
            self._parts.forget_pair(made[0])
        return None

    def _on_socket(self, call: Syscall) -> Step | None:
        self._loop_pairs.made(call)
        if not Parts.has(call):
            return None
        known = self._parts.of(call)
        role = self._parts.follow(call)
        if role is None or (known is not None and call.name == "connect"):
            return None  # a connect that goes on has been told
        return Step(role, *_meaning(call), call.line, call.greenthread)


def _meaning(call: Syscall) -> tuple[str, str]:
    """Return what a call on a socket does, and the data that it moves."""
    name = call.name
    is_datagram = _DATAGRAM.match(call.args) is not None
    if call.errno is not None and call.errno not in _NOT_YET:
        return f"{name} {call.errno}", ""
    if name in _RECEIVES and call.value == 0 and not is_datagram:
        return "end of file", ""
    if name in _SENDS or name in _RECEIVES:
        data = _DATA.search(call.args)
        action = "send" if name in _SENDS else "receive"
        if "MSG_OOB" in call.args:
            action += " urgent data"
        if is_datagram:
            action += " datagram"
        return action, data[1][:_SHOWN] if data is not None else ""
    return "accept" if name == "accept4" else name, ""


def part(left: list[Step], right: list[Step]) -> Parting | None:
    """Return where two traces part: on a socket if they do on one, else in their order.

    :return: ``None`` if they are the same to the end.
    """
    roles = dict.fromkeys(step.role for step in (*left, *right))
    found = [
        parting
        for role in roles
        if (parting := _first(role, _on(role, left), _on(role, right))) is not None
    ]
    if found:
        return min(found, key=_line)
    return _first("", left, right)


def _on(role: str, steps_: list[Step]) -> list[Step]:
    return [step for step in steps_ if step.role == role]


def _line(parting: Parting) -> int:
    """Return the line in the left trace, or in the right one where the left has ended."""
    return (parting.left or parting.right)[0].line


def _first(role: str, left: list[Step], right: list[Step]) -> Parting | None:
    same = _length_of_common(left, right)
    if all(step.action in _ENDS for step in (*left[same:], *right[same:])):
        return None
    before = tuple(left[max(0, same - 3) : same])
    return Parting(role, before, tuple(left[same : same + 4]), tuple(right[same : same + 4]))


def _length_of_common(left: list[Step], right: list[Step]) -> int:
    for number, (ours, theirs) in enumerate(zip(left, right, strict=False)):
        if ours.meaning != theirs.meaning:
            return number
    return min(len(left), len(right))


def describe(parting: Parting, names: tuple[str, str]) -> Iterator[str]:
    """Say where two traces part, side by side.

    :param names: of the two, such as the hubs.
    """
    if parting.only_order and not (parting.left and parting.right):
        yield f"{names[not parting.right]} ends, and {names[not parting.left]} goes on:"
    elif parting.only_order:
        yield "each socket has the same steps; only their order differs:"
    else:
        yield f"they diverge on {parting.role}:"
    width = 58
    yield f"    {names[0][:width]:<{width}}  {names[1][:width]}"
    for step in parting.before:
        yield f"    {_shown(step)[:width]:<{width}}  same"
    missing = "(ends)" if parting.before else "(none)"
    for number in range(max(len(parting.left), len(parting.right))):
        ours, theirs = (
            _shown(side[number]) if number < len(side) else ("" if number else missing)
            for side in (parting.left, parting.right)
        )
        yield f"  > {ours[:width]:<{width}}  {theirs[:width]}"


def _shown(step: Step) -> str:
    who = f" [{step.greenthread}]" if step.greenthread else ""
    what = step.action if step.role == _PROCESSES else f"{step.role} {step.action}"
    data = f' "{step.data}"' if step.data else ""
    return f"line {step.line}{who} {what}{data}"
