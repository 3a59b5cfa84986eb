"""The finisher, a process that completes what was recorded: the helper's side.

See :mod:`pytest_eventlet_debug.recordings.finisher` for what it does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
import json
import os
import signal

from pytest_eventlet_debug.helper.loop import Answer
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.protocol import finisher_command

#: Seconds after which a waiting test process hears how much is left.
PATIENCE_SECONDS = 5.0


class Finishing:
    """Orders for the finisher, given one at a time; it is started for the first."""

    def __init__(self, loop: Loop, libraries: str) -> None:
        """Start nothing yet; events come through *loop*.

        :param libraries: the directory that msgspec is in.
        """
        self._loop = loop
        self._libraries = libraries
        self._pattern: str | None = None
        self._orders: deque[dict[str, object]] = deque()
        self._problems: list[str] = []
        self._waiting: Answer | None = None
        self._alarm: int | None = None
        self._then: Callable[[], None] | None = None
        self._busy = False
        self._pid = 0
        self._input = self._output = -1
        self._line = b""

    def redact(self, answer: Answer, *, pattern: str) -> None:
        """Have what matches a regular expression left out of all that is completed."""
        self._pattern = pattern
        answer()

    def order(
        self, answer: Answer, *, directory: str, shared: bool, ports: list[int] | None
    ) -> None:
        """Have a test's directory completed soon; answer at once.

        :param shared: whether other programs use the same network.
        :param ports: those that the test process used, if they are known.
        """
        self._orders.append({"directory": directory, "shared": shared, "ports": ports})
        self._next()
        answer()

    def add(self, directory: str) -> None:
        """Have the directory of a test completed whose process has died."""
        self._orders.append({"directory": directory, "shared": True, "ports": None})
        self._next()

    def when_done(self, callback: Callable[[], None]) -> None:
        """Call *callback* once all is done, perhaps at once."""
        self._then = callback
        if not self._busy:
            callback()

    def wait(self, answer: Answer) -> None:
        """Answer when all is done, or after a while, with how many orders are ``left``.

        With it comes what went wrong since the last time, as ``problems``.
        """
        self._waiting = answer
        self._loop.cancel(self._alarm)
        self._alarm = self._loop.call_later(PATIENCE_SECONDS, self._tell)
        if not self._busy:
            self._tell()

    def close(self) -> None:
        """Give up what is not done, and wait for the end of the process."""
        self._orders.clear()
        self._loop.cancel(self._alarm)
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self._reap()

    def _tell(self) -> None:
        self._loop.cancel(self._alarm)
        answer, self._waiting = self._waiting, None
        if answer is not None:
            problems, self._problems = self._problems, []
            answer(left=len(self._orders) + self._busy, problems=problems[:10])

    def _next(self) -> None:
        if self._busy or not self._orders:
            return
        order = self._orders.popleft()
        try:
            if not self._pid:
                self._start()
            # Shorter than a pipe's buffer, and the last one has been read: it never blocks.
            line = json.dumps({**order, "redact": self._pattern})
            os.write(self._input, line.encode("ascii") + b"\n")
            self._busy = True
        except OSError as error:
            self._problems.append(f"{order['directory']} is not completed: {error}")

    def _start(self) -> None:
        theirs, self._input = os.pipe()
        self._output, their_output = os.pipe()
        command = finisher_command(self._libraries)
        try:
            self._pid = os.posix_spawn(
                command[0],
                command,
                dict(os.environ),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, theirs, 0),
                    (os.POSIX_SPAWN_DUP2, their_output, 1),
                ],
            )
        except OSError:
            os.close(self._input)
            os.close(self._output)
            raise
        finally:
            os.close(theirs)
            os.close(their_output)
        self._loop.watch(self._output, self._listen)

    def _listen(self) -> None:
        data = os.read(self._output, 1 << 16)
        if not data:
            self._problems.append("the process that completes the recordings died")
            self._orders.clear()
            self._reap()
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            problem = json.loads(line)
            if problem is not None:
                self._problems.append(" ".join(str(problem).split())[:1000])
            self._busy = False
        self._next()
        if not self._busy:
            self._tell()
            if self._then is not None:
                self._then()

    def _reap(self) -> None:
        self._loop.unwatch(self._output)
        os.close(self._input)
        os.close(self._output)
        os.waitpid(self._pid, 0)
        self._pid, self._busy = 0, False
