"""Tell the pair of sockets with which an asyncio loop wakes itself from those of a test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytest_eventlet_debug.recordings.findings.call_names import EPOLL_SETS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.parts import ends_of_pair
from pytest_eventlet_debug.recordings.trace_events import Syscall


class LoopPairs:
    """Follows the calls of threads, each of which may make a loop.

    A loop makes an epoll set, then the pair, whose socket objects ask for their addresses,
    and adds the first end to the set, to be told of nothing but data. The epolls hub asks for more
    of the first end of a test's pair, and a test has other calls in between.

    :cvar CALLS: the calls that it has to see, beside all others on sockets.
    """

    CALLS: Final = EPOLL_SETS | names("socketpair getsockname epoll_ctl")

    def __init__(self) -> None:
        self._making: dict[int, list[Syscall]] = {}

    def made(self, call: Syscall) -> Sequence[Syscall]:
        """Return the calls that made a loop's pair, ``socketpair`` first, if it is now complete."""
        if call.name in EPOLL_SETS:
            self._making[call.pid] = [call]
            return ()
        making = self._making.get(call.pid)
        if making is None:
            return ()
        if call.name == ("socketpair" if len(making) == 1 else "getsockname"):
            making.append(call)
            return ()
        del self._making[call.pid]
        epoll_set, *of_pair = making
        if call.name != "epoll_ctl" or not of_pair:
            return ()
        ends = map(str, ends_of_pair(of_pair[0])[:1])
        epfd, operation, fd = (part.partition("<")[0] for part in call.args.split(", ", 3)[:3])
        is_loop = (epfd, operation, fd) == (str(epoll_set.value), "EPOLL_CTL_ADD", *ends)
        return of_pair if is_loop and "events=EPOLLIN," in call.args else ()
