"""What the test process waits for, and what it has got of what its child processes do."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator

import msgspec

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.channels import READS
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.findings.child_threads import TRANSFERS
from pytest_eventlet_debug.recordings.findings.polled_waits import PolledWaits
from pytest_eventlet_debug.recordings.findings.polls import events_of
from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.registrations import Registration
from pytest_eventlet_debug.recordings.findings.registrations import Registrations
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: The calls by which a process waits for its children.
CHILD_WAITS = names("wait4 waitid")

_WAITED = lazily(r"si_pid=(\d+)")
_ASKED = lazily(r"(?:P_PID, )?(\d+)")


class Wait(msgspec.Struct, frozen=True):
    """What the test process waited for in vain."""

    shown: str
    who: str
    where: str
    line: int
    since_ns: int
    #: The call that took it back, if any did.
    end: Syscall | None = None


class OwnWaits:
    """Follows the calls of the test process by which it waits for a child or its data.

    :param processes: names who waits.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._registrations = Registrations()
        self._polled: dict[int, PolledWaits] = {}
        self._stuck: dict[int, Syscall] = {}
        self._asked: dict[int, list[Syscall]] = {}
        self._reaped: dict[int, Syscall] = {}
        self._missed: dict[int, Syscall] = {}
        self._ready: dict[int, int] = {}
        self._used: dict[str, int] = {}
        self._broken: dict[str, Syscall] = {}

    def ran(self, switch: Switch) -> None:
        """Note which greenthread runs in a thread of the test process."""
        self._polled_by(switch.pid).ran(switch.greenthread)

    def _polled_by(self, pid: int) -> PolledWaits:
        return self._polled.setdefault(pid, PolledWaits())

    def register(self, call: Syscall) -> None:
        """Note what a hub is to wait for, or what is closed; for calls from the beginning on."""
        if call.name in POLLS:
            self._polled_by(call.pid).waited(call)
        elif call.name == "epoll_ctl":
            self._registrations.control(call)
        elif call.name == "close":
            self._registrations.closed(call)
        elif call.errno == "EAGAIN" and call.name in READS:
            self._polled_by(call.pid).found_nothing(call)

    def see(self, call: Syscall) -> None:
        """Note a call of the test process, once it has children."""
        self._stuck.pop(call.pid, None)
        if is_waiting(call) or (call.errno or "").startswith("ERESTART"):
            self.stick(call)
        elif call.name in POLLS:
            self._ready.update((fd, call.line) for _, fd in events_of(call))
        elif call.name in TRANSFERS:
            end = end_of(call.args)
            if end is not None:
                remember(self._used, end.channel, call.line)
            if end is not None and (
                call.errno in ("EPIPE", "ECONNRESET") or (call.name in READS and call.value == 0)
            ):
                remember(self._broken, end.channel, call)

    def stick(self, call: Syscall) -> None:
        """Note a call that has not returned."""
        self._stuck[call.pid] = call

    def wait(self, call: Syscall) -> None:
        """Note a wait for a process, whoever waits."""
        if call.name == "wait4" and (call.value or 0) > 0:
            self._reaped[call.value or 0] = call
            return
        asked = _ASKED.match(call.args)
        if call.errno == "ECHILD":
            if asked is not None:
                self._missed[int(asked[1])] = call
            return
        match = _WAITED.search(call.args)
        if match is not None and "WNOWAIT" not in call.args:
            self._reaped[int(match[1])] = call
        elif call.value == 0 and asked is not None:
            self._asked.setdefault(int(asked[1]), []).append(call)
            del self._asked[int(asked[1])][:-2]

    def reaped(self, pid: int) -> Syscall | None:
        """Return the call that got a process's status."""
        return self._reaped.get(pid)

    def missed(self, pid: int) -> Syscall | None:
        """Return the call that asked for a process's status and did not get it."""
        return self._missed.get(pid)

    def broken(self, channel: str) -> Syscall | None:
        """Return the call that found out that the other end of a channel is closed."""
        return self._broken.get(channel)

    def for_data(self, main: int | None) -> Iterator[Wait]:
        """Yield the channels for which the test process waited last, and nothing came.

        :param main: its first thread.
        """
        for call in self._stuck.values():
            end = end_of(call.args) if call.name in TRANSFERS else None
            if end is not None:
                who = self._processes.describe(call.pid, call.greenthread)
                yield Wait(end.shown, who, call.where, call.line, call.start_ns)
        for fd, known, over in self._registered(main or 0):
            end = end_of(known.shown)
            if (
                end is None
                or max(self._ready.get(fd, 0), self._used.get(end.channel, 0)) > known.line
            ):
                continue
            yield self._wait(main or 0, known, over)

    def _wait(self, main: int, known: Registration, over: Syscall | None) -> Wait:
        who = "a greenthread"
        if known.greenthread is not None:
            who = self._processes.describe(main, known.greenthread)
        return Wait(known.shown, who, known.at, known.line, known.time_ns, over)

    def registered(self, main: int, fd: int, line: int) -> Wait | None:
        """Return who waited for a descriptor at a line, if that had no event and was the last wait.

        :param main: the first thread of the test process.
        """
        known = self._registrations.find(main, fd, line)
        if known is None or self._ready.get(fd, 0) > known.line:
            return None
        latest = self._registrations.latest(main).get(fd)
        is_last = latest is not None and latest.line == known.line
        return self._wait(main, known, self._registrations.ended(main, fd)) if is_last else None

    def _registered(self, main: int) -> Iterator[tuple[int, Registration, Syscall | None]]:
        """Yield what the hub waited for last, by descriptor, and what ended the wait."""
        for fd, known in self._registrations.latest(main).items():
            yield fd, known, self._registrations.ended(main, fd)
        for fd, (known, over) in self._polled_by(main).latest().items():
            yield fd, known, over

    def for_an_end(self, family: Collection[int], since: Syscall) -> Syscall | None:
        """Return the call that still waited for one of these processes to end.

        Polling for it counts where it has gone on since a call.
        """
        for call in self._stuck.values():
            asked = _ASKED.match(call.args) if call.name in CHILD_WAITS else None
            if call.name in CHILD_WAITS and (asked is None or int(asked[1]) in family):
                return call
        for each in family:
            calls = self._asked.get(each, [])
            if len(calls) == 2 and calls[0].line > since.line:
                return calls[1]
        return None


def own(where: str) -> str:
    """Return of a line of a library's and the nearest of the user's own the latter alone."""
    return f" at {where.rpartition(', from ')[2]}" if ", from " in where else where


def is_waiting(call: Syscall) -> bool:
    """Say whether a call did not return as long as the trace goes, or its thread lived."""
    return call.value is None and call.errno is None and call.name in TRANSFERS | CHILD_WAITS
