"""Say who closed a descriptor that is used afterwards, and who reset a connection.

``EBADF`` tells that a descriptor is closed, ``ECONNRESET`` and ``EPIPE`` that the peer
has gone; who did it stands earlier in the trace. Where the number has been given out
again, a greenthread that still waited on the old one gets what belongs to the new one.
"""

from __future__ import annotations

from collections.abc import Iterable
import re
from typing import ClassVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import span
from pytest_eventlet_debug.recordings.findings.call_names import ACCEPTS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.model import Certainty
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.openings import Life
from pytest_eventlet_debug.recordings.findings.openings import descriptor
from pytest_eventlet_debug.recordings.findings.protocol import ANY_FAILED
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall

_MOST = 20

_USES = names(
    """read readv write writev send sendto sendmsg recv recvfrom recvmsg accept accept4 connect
    shutdown getsockname getpeername setsockopt getsockopt listen bind fstat lseek ioctl fcntl
    close epoll_wait epoll_pwait epoll_pwait2"""
)
_GONE = frozenset(("ECONNRESET", "EPIPE"))

_DESCRIPTOR = lazily(rf"(\d{{1,10}})({ANNOTATION})?")
_FLOW = lazily(r"<(?:TCP|TCPv6):\[(.+)->(.+)\]>\Z")
_FAILED = frozenset(("EBADF", *_GONE))


class Closed:
    """The detector of descriptors that are used after their end."""

    kind: ClassVar[Kind] = "closed"

    def __init__(self, trace: Trace) -> None:
        self._processes = trace.processes
        self._openings = trace.openings
        self._flows: dict[tuple[str, str], Syscall] = {}
        self._listeners: dict[tuple[int | None, str | None], int] = {}
        #: By process and greenthread, the descriptor that it had to wait for, and where.
        self._waited: dict[tuple[int | None, str | None], tuple[int, str, str]] = {}
        self._found: dict[tuple[object, ...], Finding] = {}

    def handlers(self) -> Handlers:
        ends = dict.fromkeys(("close", "shutdown"), self._end)
        accepts = dict.fromkeys(ACCEPTS, self._accept)
        return {
            **accepts,
            **ends,
            ANY_FAILED: self._failed,
        }

    def _accept(self, call: Syscall) -> None:
        who = (self._processes.process(call.pid), call.greenthread)
        known, fd = self._listeners.get(who), call.fd
        if fd is not None:
            if known != fd:
                remember(self._listeners, who, fd)
        elif call.errno == "EBADF" and call.args.startswith("-") and known is not None:
            # Python's socket object gives -1 once it is closed.
            self._bad(call, known, -1)

    def _failed(self, call: Syscall) -> None:
        errno = call.errno
        if errno == "EAGAIN" and call.fd is not None and call.greenthread is not None:
            who = (self._processes.process(call.pid), call.greenthread)
            remember(self._waited, who, (call.fd, call.name, call.where))
        if errno not in _FAILED or call.name not in _USES or _is_description(call):
            return
        if errno == "EBADF" and call.args.startswith("-"):
            self._bad_after_wait(call)
            return
        match = _DESCRIPTOR.match(call.args)
        if match is None or len(self._found) == _MOST:
            return
        if errno != "EBADF":
            self._gone(call, match)
        elif match[2] is None:
            # What strace can name is open, but not for this: read() of what was opened to write.
            self._bad(call, int(match[1]), int(match[1]))

    def _end(self, call: Syscall) -> None:
        if call.errno is not None:
            return
        args = call.args
        if "<TCP" in args:
            match = _DESCRIPTOR.match(args)
            flow = _FLOW.match(match[2] or "") if match is not None else None
            if flow is not None:
                remember(self._flows, (flow[1], flow[2]), call)

    def _bad(self, call: Syscall, fd: int, given: int) -> None:
        lives = self._openings.lives(self._processes.process(call.pid), fd)
        ended = next((each for each in reversed(lives) if each.closed is not None), None)
        if ended is not None and ended.closed is not None:
            what = f"{call.name}({given}) = -1 EBADF"
            how = f"{descriptor(ended.closed)} was closed"
            more = self._reuse(call, fd, lives, ended)
            sure = given < 0 or self._had(call, fd, ended)
            self._tell(call, what, how, ended.closed, more, "certain" if sure else "likely")

    def _bad_after_wait(self, call: Syscall) -> None:
        """Tell who closed what a greenthread had waited for, as it calls the same there again.

        Python's socket object gives -1 once it is closed.
        """
        who = (self._processes.process(call.pid), call.greenthread)
        fd, *before = self._waited.get(who, (-1, "", ""))
        if before == [call.name, call.where]:
            self._bad(call, fd, -1)

    def _had(self, call: Syscall, fd: int, ended: Life) -> bool:
        """Say whether the user of a number opened, closed or accepted on what it stood for.

        If not, it may have had the number since before the recording, when that was something else.
        """
        if call.name.startswith("epoll_"):  # no other kind of descriptor would do
            closed = ended.closed
            return closed is not None and (closed.name != "close" or "[eventpoll]" in closed.args)
        who = call.greenthread
        closer = ended.closed.greenthread if ended.closed is not None else None
        if who is None or who in (ended.opener, closer):
            return True
        return self._listeners.get((self._processes.process(call.pid), who)) == fd

    def _reuse(self, call: Syscall, fd: int, lives: list[Life], ended: Life) -> str:
        """Say to whom a number was given since, or whose it was before."""
        since = lives[-1].opened
        if lives[-1] is not ended and since is not None:
            who = self._processes.describe(since.pid, since.greenthread)
            return f"; {fd} was given to {who} by {since.name} since (line {since.line})"
        closer = ended.closed.greenthread if ended.closed is not None else None
        for before in lives[: lives.index(ended)]:
            closed = before.closed
            if ended.opened is None or closed is None or None in (closer, call.greenthread):
                continue
            if closed.greenthread == closer != ended.opener and before.opener == closer:
                return f", which had closed a {fd} of its own before (line {closed.line})"
            if before.opener == call.greenthread != ended.opener and before.opened is not None:
                owner = self._processes.describe(ended.opened.pid, ended.opener)
                return (
                    f"; {fd} was its own before ({before.opened.name}, line {before.opened.line}) "
                    f"and then {owner}'s ({ended.opened.name}, line {ended.opened.line})"
                )
        return ""

    def _gone(self, call: Syscall, match: re.Match[str]) -> None:
        flow = _FLOW.match(match[2] or "")
        end = self._flows.get((flow[2], flow[1])) if flow is not None else None
        if end is not None:
            did = "closed" if end.name == "close" else "shut down"
            what = f"{call.name}({match[0]}) = -1 {call.errno}"
            self._tell(call, what, f"its other end {descriptor(end)} was {did}", end)

    def _tell(
        self,
        call: Syscall,
        what: str,
        how: str,
        end: Syscall,
        more: str = "",
        certainty: Certainty = "certain",
    ) -> None:
        if (call.name, end.line) in self._found:
            return
        since_ns = call.start_ns - end.start_ns
        when = f"{span(since_ns)} before" if since_ns >= 0 else "meanwhile"  # by another thread
        user = self._processes.describe(call.pid, call.greenthread)
        closer = self._processes.describe(end.pid, end.greenthread)
        self._found[call.name, end.line] = Finding(
            self.kind,
            f"{what} by {user}{call.where}: {how} {when} by {closer}{end.where} "
            f"(line {end.line}){more}",
            (
                Evidence(what, STRACE_FILE, call.line),
                Evidence(f"{end.name}({descriptor(end)})", STRACE_FILE, end.line),
            ),
            certainty,
            {"seconds": max(since_ns, 0) / 1e9},
        )

    def findings(self) -> Iterable[Finding]:
        return self._found.values()


def _is_description(call: Syscall) -> bool:
    """Say whether somebody only prints a socket object, such as pytest the variables of a test."""
    return " in __repr__" in (call.at or "")
