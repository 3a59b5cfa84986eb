"""The finisher, a process that completes what was recorded: the helper's side.

See :mod:`pytest_eventlet_debug.recordings.finisher` for what it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from typing import NoReturn

from pytest_eventlet_debug.artifact_names import TEST_FILE
from pytest_eventlet_debug.helper.capture import Capture
from pytest_eventlet_debug.helper.capture import Captured
from pytest_eventlet_debug.helper.fate import fate
from pytest_eventlet_debug.helper.loop import Answer
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.loop import Reply
from pytest_eventlet_debug.helper.protocol import FINISHER_NAME
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system.collector import collector_paused

#: Seconds after which a waiting test process hears how much is left.
PATIENCE_SECONDS = 5.0

#: Seconds that the finisher has to delete its drafts.
_END_SECONDS = 1.0

#: The finisher's descriptor of a file in memory with the captures of the test that it completes.
_CAPTURES_FD = 3


class Finishing:
    """Orders for the finisher, given one at a time; it is started for the first, or before."""

    def __init__(self, loop: Loop, libraries: Sequence[str], capture: Capture) -> None:
        """Start nothing yet; events come through *loop*.

        :param libraries: the directories of what the finisher imports.
        :param capture: what holds the packets of tests.
        """
        self._loop = loop
        self._libraries = libraries
        self._capture = capture
        capture.when_complete(self._next)
        self._pattern: str | None = None
        self._orders: deque[dict[str, object]] = deque()
        self._problems: list[str] = []
        self._waiting: Reply | None = None
        self._alarm: int | None = None
        self._then: Callable[[], None] | None = None
        self._busy = False
        self._pid = 0
        self._current: dict[str, object] = {}
        self._handed: list[Captured] = []
        self._memory = -1
        self._retried: dict[str, object] | None = None
        self._spent = 0
        self._lost: list[str] = []
        self._end = ""
        self._input = self._output = -1
        self._line = b""

    def redact(self, answer: Answer, *, pattern: str) -> None:
        """Have what matches a regular expression left out of all that is completed."""
        self._pattern = pattern
        answer()

    def prepare(self, answer: Answer, *, profiles: bool = False) -> None:
        """Start the finisher ahead of the first order, which it takes its time to be ready for.

        :param profiles: whether there will be profiles to complete.
        """
        answer()
        if not self._pid:
            with contextlib.suppress(OSError):  # the first order tries again, and says so
                self._start(profiles=profiles)

    def order(
        self,
        answer: Reply,
        *,
        directory: str,
        shared: bool,
        ports: list[int] | None,
        data: bytes = b"",
    ) -> None:
        """Have a test's directory completed soon.

        :param data: its ``test.json``.
        :param shared: whether other programs use the same network.
        :param ports: those that the test process used, if they are known.
        """
        try:
            files.extend(f"{directory}/{TEST_FILE}", data)
        except OSError as error:
            answer(f"{directory}/{TEST_FILE} cannot be written: {error.strerror}")
        self._add({"directory": directory, "shared": shared, "ports": ports})

    def complain(self, problem: str) -> None:
        """Tell what could not be done when the test process waits for the end."""
        self._problems.append(problem)

    def add(self, directory: str) -> None:
        """Have the directory of a test completed whose process has died."""
        self._add({"directory": directory, "shared": True, "ports": None})

    def _add(self, order: dict[str, object]) -> None:
        self._capture.keep(str(order["directory"]))
        self._orders.append(order)
        self._next()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call *callback* once all is done, perhaps at once."""
        self._then = callback
        if self._is_done:
            callback()

    @property
    def _is_done(self) -> bool:
        return not self._busy and not self._orders

    def wait(self, answer: Reply) -> None:
        """Answer when all is done, or after a while, with how many orders are ``left``.

        With it comes what went wrong since the last time, as ``problems``.
        """
        self._waiting = answer
        self._spent = self._cpu_time()
        if self._busy:
            with contextlib.suppress(OSError):  # only the privileged may take niceness back
                os.setpriority(os.PRIO_PROCESS, self._pid, os.getpriority(os.PRIO_PROCESS, 0))
        self._loop.cancel(self._alarm)
        self._alarm = self._loop.call_later(PATIENCE_SECONDS, self._be_impatient)
        self._capture.settle()
        if self._is_done:
            self._tell()

    def close(self) -> None:
        """Give up what is not done, and wait for the end of the process."""
        self._orders.clear()
        self._loop.cancel(self._alarm)
        if self._pid and self._busy:
            self._terminate()
        elif self._pid:  # it has no drafts
            os.kill(self._pid, signal.SIGKILL)
            self._reap()
        self._write_down()

    def _be_impatient(self) -> None:
        """End a finisher that has used no CPU since, and does not wait for one either."""
        if self._busy and 0 < self._spent == self._cpu_time():
            self._lost += [str(each["directory"]) for each in (self._current, *self._orders)]
            self._end = f"did nothing for {PATIENCE_SECONDS:g} s and was ended"
            self._orders.clear()
            self._terminate()
            self._write_down()
        self._tell()

    def _cpu_time(self) -> int:
        """Return the CPU time and the time spent waiting for a CPU, in ns; 0 if not known."""
        try:
            with open(f"/proc/{self._pid}/schedstat", "rb") as file:
                run, waited, _ = file.read().split()
        except (OSError, ValueError):
            return 0
        return int(run) + int(waited)

    def _terminate(self) -> None:
        """End the finisher, which deletes its drafts if it can, and wait for that."""
        os.kill(self._pid, signal.SIGTERM)
        deadline = time.monotonic() + _END_SECONDS
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                break
            time.sleep(0.01)
        os.kill(self._pid, signal.SIGKILL)
        self._reap()

    def _tell(self) -> None:
        self._loop.cancel(self._alarm)
        answer, self._waiting = self._waiting, None
        if answer is not None:
            self._name_lost()
            problems, self._problems = self._problems, []
            answer(left=len(self._orders) + self._busy, problems=problems[:10])

    def _name_lost(self) -> None:
        """Say in one line what finishers did not complete, for they have the same cause."""
        if self._lost:
            more = f" and {len(self._lost) - 1} more" if len(self._lost) > 1 else ""
            self._problems.append(
                f"the process that completes recordings {self._end}; what was recorded in "
                f"{self._lost[0]}{more} has no findings"
            )
            self._lost = []

    def _next(self) -> None:
        if self._busy or not self._orders:
            return
        if not self._capture.is_ready(str(self._orders[0]["directory"])):
            return  # it calls again
        order = self._orders.popleft()
        try:
            if not self._pid:
                self._start()
            self._busy, self._current = True, order
            if "captures" not in order:
                order["captures"] = self._hand_over(str(order["directory"]))
            # Shorter than a pipe's buffer, and the last one has been read: it never blocks.
            line = json.dumps({**order, "redact": self._pattern})
            os.write(self._input, line.encode("ascii") + b"\n")
        except BrokenPipeError:
            pass  # it was killed, which is heard of in a moment
        except OSError as error:
            self._busy = False
            self._problems.append(f"{order['directory']} is not completed: {error}")

    def _hand_over(self, directory: str) -> list[tuple[str, int, int, int]]:
        """Put the captures of a test where the finisher reads them.

        :return: of each its directory, the finisher's descriptor of that memory, the offset
            and the size.
        """
        self._handed, problems = self._capture.take(directory)
        self._problems += problems
        places = []
        offset = 0
        if self._handed:
            os.ftruncate(self._memory, 0)
        for capture in self._handed:
            places.append((capture.directory, _CAPTURES_FD, offset, len(capture.content)))
            left = memoryview(capture.content)
            while left:
                written = os.pwrite(self._memory, left, offset)
                left = left[written:]
                offset += written
        return places

    def _write_down(self) -> None:
        """Write down the captures that no finisher has completed, as they are."""
        handed, self._handed = self._handed, []
        for capture in handed:
            try:
                capture.write()
            except OSError as error:
                self._problems.append(f"{capture.directory}: {error}")

    def _start(self, *, profiles: bool = False) -> None:
        if self._memory < 0:
            memory = files.memory_file("captures")
            # Out of the way of the descriptors that the finisher gets.
            self._memory = fcntl.fcntl(memory, fcntl.F_DUPFD_CLOEXEC, 10)
            os.close(memory)
        theirs, self._input = os.pipe()
        self._output, their_output = os.pipe()
        try:
            # A new interpreter takes twice as long to be ready. The helper has one thread.
            self._pid = os.fork()
        except OSError:
            os.close(self._input)
            os.close(self._output)
            raise
        else:
            if not self._pid:
                descriptors = theirs, their_output, self._memory
                _become_finisher(descriptors, self._libraries, profiles=profiles)
        finally:
            os.close(theirs)
            os.close(their_output)
        self._loop.watch(self._output, self._listen)

    def _listen(self) -> None:
        data = os.read(self._output, 1 << 16)
        if not data:
            self._died()
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            problem = json.loads(line)
            if problem is not None:
                self.complain(" ".join(str(problem).split())[:1000])
            self._busy = False
            self._handed = []
        self._next()
        if self._is_done:
            self._tell()
            if self._then is not None:
                self._then()

    def _died(self) -> None:
        """Give what it was at to another one, but once only: it may be what ends finishers."""
        busy, current = self._busy, self._current
        self._end = f"ended ({fate(self._reap())})"
        if busy and current is not self._retried:
            self._retried = current
            self._orders.appendleft(current)
        elif busy:
            self._lost.append(str(current["directory"]))
            self._write_down()

    def _reap(self) -> int:
        """Return the status that the finisher ended with."""
        self._loop.unwatch(self._output)
        os.close(self._input)
        os.close(self._output)
        _, status = os.waitpid(self._pid, 0)
        self._pid, self._busy = 0, False
        self._line = b""
        return status


def _become_finisher(
    descriptors: tuple[int, int, int], libraries: Sequence[str], *, profiles: bool
) -> NoReturn:
    """Be the finisher, in a fork of the helper that keeps nothing of the helper's.

    :param descriptors: those that are to be its standard input and output, and
        :data:`_CAPTURES_FD`.
    :param libraries: the directories of what it imports beside the standard library.
    :param profiles: whether there will be profiles to complete.
    """
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # First all out of the way of each other.
        moved = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in descriptors]
        for source, target in zip(moved, (0, 1, _CAPTURES_FD), strict=True):
            os.dup2(source, target)
        files.close_all_but({0, 1, 2, _CAPTURES_FD})
        with open("/proc/self/comm", "wb") as name:
            name.write(FINISHER_NAME)
        sys.path += libraries
        # msgspec would import it for annotations that we have none of, and takes twice as long.
        sys.modules["typing_extensions"] = None  # type: ignore[assignment]
        with collector_paused():
            from pytest_eventlet_debug.recordings import finisher

            if profiles:
                finisher.expect_profiles()
        finisher.main()
        status = 0
    except SystemExit:
        pass  # it was terminated
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(status)
