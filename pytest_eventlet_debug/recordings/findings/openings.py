"""Which call opened a descriptor and which one closed it, each time its number was given out."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
import sys
from typing import TypeAlias

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.parts import PAIRS
from pytest_eventlet_debug.recordings.findings.parts import ends_of_pair
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: How often the number of a descriptor was given out, as far as that is remembered.
_LIVES = 3

_OPENERS = names(
    """socket accept accept4 open openat openat2 creat dup dup2 dup3 epoll_create epoll_create1
    eventfd eventfd2 timerfd_create signalfd signalfd4 inotify_init inotify_init1 memfd_create
    pidfd_open"""
)
#: What ``close_range()`` closes, if it does so at once.
_RANGE = lazily(r"(\d+), (\d+|~0U), 0\Z")
_DESCRIPTOR = lazily(rf"\d{{1,10}}(?:{ANNOTATION})?")


class Life:
    """What a number stood for between the call that gave it out and the one that closed it."""

    __slots__ = ("closed", "opened")

    def __init__(self, opened: Syscall | None) -> None:
        self.opened = opened
        self.closed: Syscall | None = None

    @property
    def opener(self) -> str | None:
        """The greenthread that opened it, as far as that is known."""
        return self.opened.greenthread if self.opened is not None else None


#: A process and a number in it.
Place: TypeAlias = tuple[int | None, int]
GivenAgain: TypeAlias = Callable[[Place, Life, Syscall], None]


class Openings:
    """Follows descriptors through a trace.

    :param processes: knows which process a thread belongs to.
    :ivar given_again: is told whenever a number is given out again: the process with the number,
        what it stood for before, and the call that got it.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self.given_again: GivenAgain | None = None
        self._lives: dict[Place, list[Life]] = {}
        #: Of each process the numbers that it closed together last.
        self._ranges: dict[int | None, tuple[range, Syscall]] = {}

    def handlers(self) -> Mapping[str, Callable[[Syscall], None]]:
        """Return what to call by the names of calls, as a detector does."""
        return {
            **dict.fromkeys(_OPENERS, self.opened),
            **dict.fromkeys(PAIRS, self._pair_opened),
            **dict.fromkeys(("fcntl", "fcntl64"), self._duplicated),
            "close": self.closed,
            "close_range": self._closed_range,
        }

    def lives(self, process: int | None, fd: int) -> list[Life]:
        """Return what a number stood for lately, the last one at the end."""
        lives = self._lives.get((process, fd))
        if lives is None and process in self._ranges:
            numbers, call = self._ranges[process]
            return [_life_until(call, fd)] if fd in numbers else []
        return lives or []

    def open_in(self, process: int | None) -> list[Syscall]:
        """Return the calls that opened what is open in a process now."""
        return [
            lives[-1].opened
            for (each, _), lives in self._lives.items()
            if each == process and lives[-1].closed is None and lives[-1].opened is not None
        ]

    def opened(self, call: Syscall) -> None:
        """Take note of a call that returns a descriptor."""
        if call.value is not None and call.value >= 0:
            self._begin(call, call.value)

    def closed(self, call: Syscall) -> None:
        """Take note of a ``close``."""
        fd = call.fd
        if call.errno is not None or fd is None:
            return
        key = (self._processes.process(call.pid), fd)
        lives = self._lives.get(key)
        if lives is None or lives[-1].closed is not None:
            self._add(key, None)  # it was opened before the trace began
            lives = self._lives[key]
        lives[-1].closed = call

    def _closed_range(self, call: Syscall) -> None:
        match = _RANGE.match(call.args)
        if match is None or call.errno is not None:
            return
        last = sys.maxsize if match[2] == "~0U" else int(match[2])
        process, numbers = self._processes.process(call.pid), range(int(match[1]), last + 1)
        for (each, fd), lives in self._lives.items():
            if each == process and fd in numbers and lives[-1].closed is None:
                lives[-1].closed = call._replace(args=str(fd))
        remember(self._ranges, process, (numbers, call))

    def _pair_opened(self, call: Syscall) -> None:
        for fd in ends_of_pair(call):
            self._begin(call, fd)

    def _duplicated(self, call: Syscall) -> None:
        if "F_DUPFD" in call.args:
            self.opened(call)

    def _begin(self, call: Syscall, fd: int) -> None:
        self._add((self._processes.process(call.pid), fd), call)

    def _add(self, key: Place, call: Syscall | None) -> None:
        lives = self._lives.get(key)
        if lives is None:
            lives = []
            remember(self._lives, key, lives)
        elif self.given_again is not None and call is not None and lives[-1].closed is not None:
            self.given_again(key, lives[-1], call)
        if len(lives) == _LIVES:
            del lives[0]
        lives.append(Life(call))


def _life_until(call: Syscall, fd: int) -> Life:
    """Return the life of a number of which only its end was seen, among that of others."""
    life = Life(None)
    life.closed = call._replace(args=str(fd))
    return life


def descriptor(call: Syscall) -> str:
    """Return the descriptor that a call acts on as strace names it: ``5<TCP:[127.0.0.1:80]>``."""
    match = _DESCRIPTOR.match(call.args)
    return match[0] if match is not None else call.args
