"""One finisher, a process that completes what was recorded: the helper's side.

See :mod:`pytest_eventlet_debug.recordings.finisher` for what it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
import types
from typing import NoReturn

from pytest_eventlet_debug.helper.protocol import FINISHER_NAME
from pytest_eventlet_debug.helper.unwritten import Unwritten
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system.collector import collector_paused
from pytest_eventlet_debug.system.partial_imports import NOTHING
from pytest_eventlet_debug.system.partial_imports import leaving_out

#: How much a finisher gives way to tests.
_NICE = 10

#: Seconds that a finisher has to delete its drafts.
_END_SECONDS = 1.0

#: What pathlib, uuid and msgspec import for addresses, other systems and the texts of schemas.
_UNUSED = {
    "ipaddress": NOTHING,
    "platform": types.SimpleNamespace(system=lambda: "Linux"),
    "textwrap": NOTHING,
}

#: The finisher's descriptors of files in memory, one for each order that it may have at a time,
#: with what is in no other file of that test.
_MEMORY_FDS = (3, 4)


class Order:
    """A test's directory that is to be completed.

    :param shared: whether other programs use the same network.
    :param ports: those that the test process used, if they are known.
    :param died_ns: when that was seen to have died, if it did before the test ended; nanoseconds
        since the epoch.
    :param alone: whether no other process notes that.
    """

    def __init__(
        self,
        directory: str,
        *,
        shared: bool,
        ports: list[int] | None = None,
        died_ns: int | None = None,
        alone: bool = False,
    ) -> None:
        self.directory = directory
        self.shared = shared
        self.ports = ports
        self.died_ns = died_ns
        self.alone = alone
        #: What is in no file; ``None`` before it was asked for.
        self.unwritten: list[Unwritten] | None = None
        #: Whether a finisher has died of it.
        self.tried = False

    def write_down(self) -> list[str]:
        """Write what no finisher has completed, as it is; return what could not be."""
        problems = []
        for each in self.unwritten or ():
            try:
                each.write()
            except OSError as error:
                problems.append(f"{each.path} cannot be written: {error.strerror}")
        self.unwritten = None
        return problems


class FinisherProcess:
    """A finisher, and the orders that it has."""

    def __init__(self, libraries: Sequence[str], tracers: Sequence[str], *, nice: bool) -> None:
        """Start it.

        :param libraries: the directories of what it imports beside the standard library.
        :param tracers: those whose recordings it is to be ready for before the first one comes.
        :param nice: whether tests run beside it.
        :raises OSError: there is no memory, no descriptor or no process for it.
        """
        #: What it is to complete, first what it is at.
        self.orders: deque[Order] = deque()
        self._given = 0
        #: Its CPU time when somebody began to wait, see :attr:`cpu_time`.
        self.spent = 0
        self._line = b""
        with contextlib.ExitStack() as own, contextlib.ExitStack() as passed:
            self._memories = [_closed_by(own, files.memory_file("recordings")) for _ in _MEMORY_FDS]
            theirs, self._input = map(_closed_by, (passed, own), os.pipe())
            #: Can be read from when it has something to say, or has died.
            self.output, their_output = map(_closed_by, (own, passed), os.pipe())
            # A new interpreter takes twice as long to be ready. The helper has one thread.
            self.pid = os.fork()
            if not self.pid:
                descriptors = theirs, their_output, *self._memories
                _become_finisher(descriptors, libraries, tracers, nice=nice)
            self._close = own.pop_all().close

    def give(self, order: Order, pattern: str | None) -> None:
        """Have an order carried out, after those that it has.

        :param pattern: a regular expression; what matches is left out of all that is completed.
        :raises OSError: it cannot be told to.
        """
        places = self._hand_over(order.unwritten or ())
        line = json.dumps(
            {
                "directory": order.directory,
                "shared": order.shared,
                "ports": order.ports,
                "died_ns": order.died_ns,
                "alone": order.alone,
                "redact": pattern,
                "memory": places,
            }
        )
        with contextlib.suppress(BrokenPipeError):  # it was killed, which is heard of in a moment
            # Two are shorter than a pipe's buffer, and the others have been read: it never blocks.
            os.write(self._input, line.encode("ascii") + b"\n")
        self.orders.append(order)
        self._given += 1

    def _hand_over(self, unwritten: Sequence[Unwritten]) -> list[tuple[str, int, int, int]]:
        """Put what is in no file where the finisher reads it.

        :return: of each its path, the finisher's descriptor of that memory, the offset and the
            size.
        """
        places = []
        offset = 0
        number = self._given % len(_MEMORY_FDS)  # orders are done in their order
        memory = self._memories[number]
        if unwritten:
            os.ftruncate(memory, 0)
        for each in unwritten:
            places.append((each.path, _MEMORY_FDS[number], offset, len(each.content)))
            left = memoryview(each.content)
            while left:
                written = os.pwrite(memory, left, offset)
                left = left[written:]
                offset += written
        return places

    def listen(self) -> list[str | None] | None:
        """Return what it says of each order that it has done: ``None``, or a problem.

        :return: without a list, it has died.
        """
        data = os.read(self.output, 1 << 16)
        if not data:
            return None
        *lines, self._line = (self._line + data).split(b"\n")
        return [json.loads(line) for line in lines]

    @property
    def cpu_time(self) -> int:
        """Its CPU time and the time that it waited for a CPU, in ns; 0 if not known."""
        try:
            with open(f"/proc/{self.pid}/schedstat", "rb") as file:
                run, waited, _ = file.read().split()
        except (OSError, ValueError):
            return 0
        return int(run) + int(waited)

    def hurry(self) -> None:
        """Let it have as much of a CPU as the helper, for somebody waits."""
        with contextlib.suppress(OSError):  # only the privileged may take niceness back
            os.setpriority(os.PRIO_PROCESS, self.pid, os.getpriority(os.PRIO_PROCESS, 0))

    def begin_end(self) -> None:
        """Tell it to end; if it is at something, it deletes its drafts if it can."""
        os.kill(self.pid, signal.SIGTERM if self.orders else signal.SIGKILL)

    def end(self) -> None:
        """Wait for its end, which it has been told of."""
        deadline = time.monotonic() + _END_SECONDS
        while self.orders and time.monotonic() < deadline:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        self.reap()

    def reap(self) -> int:
        """Return the status that it ended with."""
        self._close()
        _, status = os.waitpid(self.pid, 0)
        return status


def _closed_by(stack: contextlib.ExitStack, fd: int) -> int:
    stack.callback(os.close, fd)
    return fd


def _become_finisher(
    descriptors: Sequence[int],
    libraries: Sequence[str],
    tracers: Sequence[str],
    *,
    nice: bool,
) -> NoReturn:
    """Be the finisher, in a fork of the helper that keeps nothing of the helper's.

    :param descriptors: those that are to be its standard input and output, and
        :data:`_MEMORY_FDS`.
    """
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.nice(_NICE if nice else 0)
        # First all out of the way of each other.
        moved = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in descriptors]
        for source, target in zip(moved, (0, 1, *_MEMORY_FDS), strict=True):
            os.dup2(source, target)
        files.close_all_but({0, 1, 2, *_MEMORY_FDS})
        with open("/proc/self/comm", "wb") as name:
            name.write(FINISHER_NAME)
        sys.path += libraries
        # msgspec would import it for annotations that we have none of, and takes twice as long.
        sys.modules["typing_extensions"] = None  # type: ignore[assignment]
        with collector_paused():
            with leaving_out(_UNUSED):
                from pytest_eventlet_debug.recordings import finisher

            finisher.expect(tracers)
        finisher.main()
        status = 0
    except SystemExit:
        pass  # it was terminated
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
