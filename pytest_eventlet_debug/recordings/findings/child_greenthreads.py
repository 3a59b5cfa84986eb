"""Greenthreads of the test process that go on in a child that was forked.

``os.fork()`` copies all of them with the hub, and the child's hub runs them as soon as the child
waits for anything.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.findings.remembering import remember
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

#: Children of children that are followed back to the test process.
_MOST_GENERATIONS = 20


class ForkedGreenthreads:
    """Follows which greenthreads run in the test process and in its children.

    :param processes: knows who was started by whom, once the trace has ended.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        #: The lines at which greenthreads ran in the test process first.
        self._known: dict[str, int] = {}
        self._ran: dict[tuple[int, str], Switch] = {}
        self._calls: dict[tuple[int, str], Syscall] = {}

    def of_test(self, switch: Switch) -> None:
        """Note what runs in the first thread of the test process."""
        if _number(switch.greenthread) not in self._known:
            remember(self._known, _number(switch.greenthread), switch.line)

    def of_child(self, switch: Switch) -> None:
        """Note what runs in a child."""
        if not is_hub(switch.greenthread):
            key = switch.pid, _number(switch.greenthread)
            if key not in self._ran:
                remember(self._ran, key, switch)

    def called(self, call: Syscall) -> None:
        """Note a call of a child, to say where such a greenthread is."""
        if self._ran and call.greenthread is not None and call.at is not None:
            key = call.pid, _number(call.greenthread)
            if key in self._ran and key not in self._calls:
                remember(self._calls, key, call)

    def find(self) -> Iterator[tuple[int, Switch, Syscall | None]]:
        """Yield each child with a greenthread that runs in it, too, and a call of that one."""
        told: set[int] = set()
        for (pid, number), switch in self._ran.items():
            start = self._processes.children().get(pid)
            since = self._known.get(number)
            if start is None or since is None or pid in told or since > start.line:
                continue
            forked_in = self._forked_in(start)
            if forked_in is not None and forked_in != number:
                told.add(pid)
                yield pid, switch, self._calls.get((pid, number))

    def _forked_in(self, start: Syscall) -> str | None:
        """Return the greenthread that forked, if that is known.

        A child's first calls, before anything switches there, are made by the greenthread that
        forked it, and no mark says so.
        """
        for _ in range(_MOST_GENERATIONS):
            if start.greenthread is not None:
                return _number(start.greenthread)
            before = self._processes.children().get(start.pid)
            if before is None:
                break
            start = before
        return None


def _number(greenthread: str) -> str:
    """Return what stays the same of a label if the greenthread gets a name."""
    return greenthread.partition(":")[0]
