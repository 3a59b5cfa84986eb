"""Find greenthreads that act on a descriptor's number after that was given to somebody else.

The classic bug: one greenthread holds the number of a connection that another one closes;
the kernel gives the number out again, and the first reads, or closes, what belongs to a
third. The calls do not fail, so nothing else tells.

Whether a greenthread was handed the new descriptor does not show in a trace. So only two
things count. It waited on the old one when that was closed, and makes the same call again
as soon as it runs. Or it had opened the old one itself, another closed it, and it uses the
number while the greenthread that opened the new one uses that as well, before and after.

An event loop that knows descriptors by their numbers, as asyncio's do, changes its epoll set for a
number that it takes for the old one. The kernel knows better, and that call does fail.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.openings import Life
from pytest_eventlet_debug.recordings.findings.openings import Place
from pytest_eventlet_debug.recordings.findings.openings import descriptor
from pytest_eventlet_debug.recordings.findings.protocol import ANY_FAILED
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

_MOST = 20
#: Numbers of descriptors, and greenthreads, that are remembered.
_REMEMBERED = 4096

_USES = names(
    """read readv write writev send sendto sendmsg recv recvfrom recvmsg accept accept4 shutdown"""
)
_CHANGED = lazily(rf"\d+(?:{ANNOTATION})?, (EPOLL_CTL_MOD), (\d+)((?:{ANNOTATION})?)")
_REPEATED = _USES - {"shutdown"}


class _Stale:
    """A number that one greenthread may still take for what it was.

    :ivar holder: that greenthread.
    :ivar known: its call on the old one: that which it waits to make again, or which opened it.
    :ivar waited: whether it waited.
    :ivar runs: whether it has come round to run since.
    :ivar owned: whether the new owner has used the number.
    :ivar used: the holder's call on the new one, once it has made one.
    """

    __slots__ = ("closed", "holder", "known", "opened", "owned", "runs", "used", "waited")

    def __init__(
        self, known: Syscall, closed: Syscall, opened: Syscall, *, waited: bool = False
    ) -> None:
        self.holder = known.greenthread
        self.known = known
        self.closed = closed
        self.opened = opened
        self.waited = waited
        self.runs = False
        self.owned = False
        self.used: Syscall | None = None


class Reused:
    """The detector of numbers that were given to somebody else."""

    kind: ClassVar[Kind] = "reused descriptor"

    def __init__(self, trace: Trace) -> None:
        self._processes = trace.processes
        self._openings = trace.openings
        self._openings.given_again = self._given_again
        self._registrations = trace.registrations
        self._waiting: dict[Place, Syscall] = {}
        self._ran: dict[str, int] = {}
        self._stale: dict[Place, _Stale] = {}
        self._found: list[Finding] = []

    def handlers(self) -> Handlers:
        return {
            **dict.fromkeys(_USES, self._use),
            ANY_FAILED: self._failed,
            ANY_OTHER: self._other,
        }

    def _failed(self, call: Syscall) -> None:
        if call.errno == "ENOENT" and call.name == "epoll_ctl":
            self._changed(call)
        if call.errno == "EAGAIN" and call.name in _REPEATED:
            remember(self._waiting, self._place(call), call)

    def _place(self, call: Syscall) -> Place:
        return self._processes.process(call.pid), -1 if call.fd is None else call.fd

    def _given_again(self, place: Place, before: Life, opened: Syscall) -> None:
        self._stale.pop(place, None)
        closed = before.closed
        waiting = self._waiting.pop(place, None)
        if closed is None or len(self._stale) == _REMEMBERED:
            return
        # What the hub closes is garbage, as a rule: nobody knows its number any more.
        others = (None, closed.greenthread, opened.greenthread)
        if None in others[1:] or is_hub(closed.greenthread):
            return
        if (
            waiting is not None
            and waiting.greenthread not in others
            and self._ran.get(waiting.greenthread or "", 0) < waiting.line
        ):
            self._stale[place] = _Stale(waiting, closed, opened, waited=True)
        elif before.opened is not None and before.opener not in others:
            self._stale[place] = _Stale(before.opened, closed, opened)

    def _use(self, call: Syscall) -> None:
        if not self._stale:
            return
        place = self._place(call)
        stale = self._stale.get(place)
        if stale is None:
            return
        if call.greenthread == stale.holder and stale.waited:
            if call.name == stale.known.name:
                self._tell(call, stale)
        elif call.greenthread == stale.holder and stale.owned:
            stale.used = stale.used or call
            return
        elif call.greenthread == stale.opened.greenthread:
            stale.owned = True
            if stale.used is None:
                return
            self._tell(stale.used, stale)
        # Told by now, or handed over: then it is no secret whose it is.
        del self._stale[place]

    def _other(self, event: Event) -> None:
        if type(event) is not Switch:
            return
        if len(self._ran) == _REMEMBERED:
            self._ran.clear()
            self._waiting.clear()
        self._ran[event.greenthread] = event.line
        if self._stale:
            for place, stale in list(self._stale.items()):
                if stale.waited and stale.runs:
                    del self._stale[place]  # it ran, and did something else
                stale.runs = stale.runs or event.greenthread == stale.holder

    def _changed(self, call: Syscall) -> None:
        """Take note of an ``epoll_ctl`` on a number that stands for something else by now."""
        match = _CHANGED.match(call.args)
        if match is None or len(self._found) == _MOST:
            return
        fd = int(match[2])
        closed = self._registrations.ended(call.pid, fd)
        known = self._registrations.latest(call.pid).get(fd)
        lives = self._openings.lives(self._processes.process(call.pid), fd)
        opened = lives[-1].opened if lives and lives[-1].closed is None else None
        if known is None or closed is None or closed.name != "close" or opened is None:
            return
        holder, closer, owner = (
            self._processes.describe(call.pid, each.greenthread) for each in (known, closed, opened)
        )
        self._found.append(
            Finding(
                self.kind,
                f"epoll_ctl({match[1]}, {match[2]}{match[3]}) = -1 ENOENT{call.where}: its event "
                f"loop still has {known.shown} there, which {holder} waited for{known.at} "
                f"(line {known.line}); {closer} closed that{closed.where} (line {closed.line}) and "
                f"{owner} got {fd} from {opened.name}{opened.where} (line {opened.line})",
                tuple(
                    Evidence(f"{each.name}({each.args})", STRACE_FILE, each.line)
                    for each in (call, closed, opened)
                ),
            )
        )

    def _tell(self, call: Syscall, stale: _Stale) -> None:
        if len(self._found) == _MOST:
            return
        known, closed, opened = stale.known, stale.closed, stale.opened
        number = call.fd
        how = "waited on" if stale.waited else f"got {number} from {known.name} as"
        holder, closer, owner = (
            self._processes.describe(each.pid, each.greenthread) for each in (call, closed, opened)
        )
        what = f"{call.name}({descriptor(call)})"
        self._found.append(
            Finding(
                self.kind,
                f"{what} by {holder}{call.where}, which {how} {descriptor(closed)} "
                f"(line {known.line}): {closer} closed that{closed.where} (line {closed.line}) "
                f"and {owner} got {number} from {opened.name}{opened.where} (line {opened.line})",
                tuple(
                    Evidence(f"{each.name}({descriptor(each)})", STRACE_FILE, each.line)
                    for each in (call, closed, opened)
                ),
                "likely",
            )
        )

    def findings(self) -> Iterable[Finding]:
        return self._found
