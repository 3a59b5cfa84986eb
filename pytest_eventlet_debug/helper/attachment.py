"""strace attached to the test process: the helper's side."""

from __future__ import annotations

from collections.abc import Callable
import os
import select
import signal
import time

from pytest_eventlet_debug.helper.loop import Answer
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.loop import Reply
from pytest_eventlet_debug.helper.marks_in_memory import MarksInMemory
from pytest_eventlet_debug.helper.strace_process import StraceProcess
from pytest_eventlet_debug.helper.strace_process import environment

#: Seconds for strace to say its version; it needs some 3 ms.
VERSION_SECONDS = 3.0

#: Bytes of what it says that are looked at.
_VERSION_BYTES = 2000


class Attachment:
    """At most one strace, attached to the test process.

    While it is attached, the main thread of the test process and strace share one CPU,
    which makes a traced call three to five times cheaper than on two.
    """

    def __init__(self, loop: Loop, tracee: int, complain: Callable[[str], None]) -> None:
        """Attach to the process *tracee* when asked; events come through *loop*.

        :param complain: is told what goes wrong when nobody waits for an answer.
        """
        self._complain = complain
        self._loop = loop
        self._tracee = tracee
        self._strace: StraceProcess | None = None
        self._given_up = ""
        self._marks: MarksInMemory | None = None
        self._refusal = ""
        self._has_version = False

    def share_marks(self, answer: Reply, *, descriptor: int) -> None:
        """Take marks from memory, too, from the next strace on."""
        self._marks = MarksInMemory(descriptor)
        os.close(descriptor)

    def ask_version(self, answer: Answer, *, program: str) -> None:
        """Answer with ``words``: the first line of ``strace -V``."""
        try:
            line = _version_line(program)
        except OSError as error:
            answer(f"{program} cannot be run: {error.strerror}")
            return
        if line is None:
            answer(f"`{program} -V` printed nothing for {VERSION_SECONDS:g} s; reinstall strace")
            return
        words = line.decode("utf-8", "replace")
        self._has_version = "version " in words
        answer(words=words)

    def attempt(self, answer: Answer, *, program: str, options: list[str]) -> None:
        """Attach and detach; leave no file.

        A program that did not say its version is not asked for more.
        """
        if not self._has_version:
            answer(f"`{program} -V` printed no version")
            return

        def detach(error: str | None = None, **values: object) -> None:
            if error is not None:
                answer(error)
                return
            assert self._strace is not None
            child = _child_that_traces(self._strace.pid, self._tracee)
            if child is None:
                self.stop(answer, stay=False)
                return
            os.kill(child[0], signal.SIGTERM)  # it would go on when the script is ended
            error = (
                f"{program} starts strace as a child; if it is a script, have it end with "
                f'`exec {child[1]} "$@"`'
            )
            self.stop(lambda *_, **__: answer(error), stay=False)

        self.start(detach, program=program, options=options, path=None, append=False, limit=None)

    def start(
        self,
        answer: Reply,
        *,
        program: str,
        options: list[str],
        path: str | None,
        append: bool,
        limit: int | None,
    ) -> None:
        """Trace from now on; answer once all of the test process is traced.

        :param path: the file to write; ``None`` for a trial that leaves no file.
        :param append: keep what the file holds, and add to it.
        :param limit: bytes of which the beginning and the end are kept; ``None`` for no limit.
        """
        if self._given_up:
            answer(self._given_up)
            return
        rests = self._strace is not None and path is not None and self._strace.rests()
        try:
            if not rests:
                self._replace(None if path is None else os.path.dirname(path))
            assert self._strace is not None
            if path is not None:
                self._strace.begin(path, append, limit)
        except OSError as error:
            answer(f"strace.txt cannot be written: {error}")
            return
        if rests:
            answer(strace=self._strace.pid)
        else:
            self._strace.attach(answer, program, options)

    def proceed(self, answer: Reply, *, path: str, limit: int | None) -> None:
        """Write to another file from this request on, which strace rests for.

        The test process does not wait. It hears of what goes wrong when it asks for the end.

        :param path: the file to write.
        :param limit: as for :meth:`start`.
        """
        try:
            if self._strace is None or not self._strace.proceed(path, limit):
                self._refusal = "strace ended before the test began"
        except OSError as error:
            self._refusal = f"strace.txt cannot be written: {error}"

    def _replace(self, directory: str | None) -> None:
        """End the strace that there is, and have another one.

        :raises OSError: it has no place to write to.
        """
        self.close()
        self._strace = StraceProcess(
            self._loop, self._tracee, directory, self._give_up, self._complain, self._marks
        )

    def tell_others(self, answer: Reply) -> None:
        """Answer whether strace follows other processes than the test process."""
        answer(others=self._strace is not None and self._strace.traces_others())

    def stop(self, answer: Reply, *, stay: bool) -> None:
        """Answer once what strace has written is sure to be in the file.

        :param stay: leave strace attached, for the next test. The file may be written by
            :meth:`settle`, which is to be called before the next message is served.
        """
        refusal, self._refusal = self._refusal, ""
        if refusal or self._strace is None:
            answer(refusal or "strace is not attached")
            return
        if stay and self._strace.rest(answer):
            return
        strace, self._strace = self._strace, None
        strace.detach(answer)

    def settle(self) -> None:
        """Do what a test process that has its answers need not wait for."""
        if self._strace is not None:
            self._strace.settle()

    def _give_up(self, error: str) -> None:
        """Attach no more: each further test would have to wait as long as this one did."""
        self._given_up = error

    @property
    def directories(self) -> list[str]:
        """Of the test whose trace is being written, or was when strace ended by itself."""
        return [] if self._strace is None else self._strace.directories

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call *callback* once no strace runs, perhaps at once."""
        if self._strace is None:
            callback()
        else:
            self._strace.when_ended(callback)

    def close(self) -> None:
        """End strace, if it runs, and wait until it has detached."""
        if self._strace is not None:
            self._strace.kill()
            self._strace = None


def _child_that_traces(strace: int, tracee: int) -> tuple[int, str] | None:
    """Return the process that traces another one, and its program, if that is not *strace*."""
    try:
        with open(f"/proc/{tracee}/status", "rb") as file:
            tracer = next(int(line.split()[1]) for line in file if line.startswith(b"TracerPid:"))
        return None if tracer in (0, strace) else (tracer, os.readlink(f"/proc/{tracer}/exe"))
    except OSError:  # it has ended
        return None


def _version_line(program: str) -> bytes | None:
    """Return the first line of ``strace -V``; ``None`` if it does not come in time.

    :raises OSError: the program cannot be run.
    """
    read_end, write_end = os.pipe()
    try:
        with open(os.devnull, "r+b") as null:
            # Not subprocess, which takes longer to import than strace to answer.
            pid = os.posix_spawn(
                program,
                ["strace", "-V"],
                environment(),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, null.fileno(), 0),
                    (os.POSIX_SPAWN_DUP2, write_end, 1),
                    (os.POSIX_SPAWN_DUP2, null.fileno(), 2),
                ],
                setpgroup=0,
            )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    try:
        return _first_line(read_end)
    finally:
        os.close(read_end)
        os.killpg(pid, signal.SIGKILL)  # a script's children, too
        os.waitpid(pid, 0)


def _first_line(fd: int) -> bytes | None:
    """Read a line, or what there is of it at the end; ``None`` if it does not come in time."""
    line = b""
    deadline = time.monotonic() + VERSION_SECONDS
    while b"\n" not in line and len(line) < _VERSION_BYTES:
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        data = os.read(fd, _VERSION_BYTES)
        if not data:
            break
        line += data
    return line.partition(b"\n")[0][:_VERSION_BYTES]
