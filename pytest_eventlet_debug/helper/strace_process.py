"""One strace process, from its fork to its end.

Facts this rests on (strace 6.1): the line ``strace: Process N attached`` (or ``attached
with M threads``) comes once every thread is traced, and nothing is lost after it;
SIGTERM detaches everything and ends strace by that same signal, with a complete file;
``-f`` says a line on stderr for each new thread, and a full pipe there would freeze the
test.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import errno
from importlib.machinery import EXTENSION_SUFFIXES
import os
import re
import signal
import time

from pytest_eventlet_debug.artifact_names import test_of
from pytest_eventlet_debug.helper import trace_piece
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.loop import Reply
from pytest_eventlet_debug.helper.marks_in_memory import MarksInMemory
from pytest_eventlet_debug.helper.one_cpu import OneCpu
from pytest_eventlet_debug.helper.trace_piece import TracePiece
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.system import wait_status

#: Seconds for strace to attach; it needs some 3 ms, and longer with many threads.
ATTACH_SECONDS = 4.0

#: Seconds between SIGTERM and SIGKILL.
DETACH_SECONDS = 2.0

# A wrapper script may have started it by another name.
_ATTACHED = lazily(rb"\S*: Process (\d+) attached(?: with \d+ threads)?")
_CHATTER = lazily(rb"\S*: Process \d+ (?:attached|detached)\b")

#: Bytes of strace's own words that are kept for an error message.
_WORDS_BYTES = 2000

#: The descriptor that strace writes the trace to.
_OUTPUT = 3

#: Seconds between looks at what strace has written. It writes some 5 MB/s of a storm.
_LOOK_SECONDS = 0.25

#: When strace is ended after a test all the same, so that another CPU may be chosen and the disk
#: space of short traces be given back. To end it and to attach another one takes some 6 ms.
_MOST_SECONDS = 3.0
_MOST_BYTES = 32 << 20

#: Stands in the last line of strace's before it is told to stop.
_LAST_WORDS = b'\\"strace-stop\\"'

#: Stands in the line before the first one of a test that does not wait for an answer.
_FIRST_WORDS = b'\\"strace-next\\"'

#: A shell's status for what cannot be run.
_NOT_STARTED = 127 << 8

_GIVEN_UP = "no test after this one is traced"


class StraceProcess:
    """One strace process from its fork to its end."""

    def __init__(
        self,
        loop: Loop,
        tracee: int,
        directory: str | None,
        give_up: Callable[[str], None],
        complain: Callable[[str], None],
        marks: MarksInMemory | None = None,
    ) -> None:
        """Start nothing yet.

        :param directory: one on the file system of the files to be; ``None`` for none.
        :param marks: those of the test process, if it makes any in memory.
        :param give_up: is told why no other strace will do better.
        :param complain: is told what goes wrong when nobody waits for an answer.
        :raises OSError: no file can be made there.
        """
        self._loop = loop
        self._give_up = give_up
        self._complain = complain
        self._marks = marks
        self._rested_at: int | None = None
        self._unsettled: tuple[int, int | None] | None = None
        self._tracee = tracee
        self._source = None if directory is None else trace_piece.create_source(directory)
        self._piece: TracePiece | None = None
        self._path: str | None = None
        self._began = time.monotonic()
        self._has_written = False
        self._cut: str | None = None
        self._look_alarm: int | None = None
        self._answer: Reply | None = None
        self._attached = False
        self._terminated = False
        self._killed = False
        self._many = False
        self._status: int | None = _NOT_STARTED
        self._then: Callable[[], None] | None = None
        self._alarm: int | None = None
        self._one_cpu = OneCpu(tracee)
        self._arguments: list[str] = []
        self._threads: set[int] = set()
        self._line = b""
        self._words = b""
        self.pid = 0

    @property
    def directories(self) -> list[str]:
        """Of the test whose trace is being written, or was when strace ended by itself."""
        return [] if self._path is None else [test_of(os.path.dirname(self._path))]

    def begin(self, path: str, append: bool, limit: int | None, *, waits: bool = True) -> None:
        """Write into a file what strace says from now on; see :class:`TracePiece`.

        :param waits: whether the test process does nothing meanwhile.
        :raises OSError: the file cannot be made.
        """
        assert self._source is not None
        request = None
        if not waits and self._rested_at is not None:
            request = self._rested_at, _FIRST_WORDS
        elif self._marks is not None:
            self._marks.drop()
        self._piece = TracePiece(self._source, path, append, limit, request, self._marks)
        self._path = path
        self._has_written = True
        self._look_alarm = self._loop.call_later(_LOOK_SECONDS, self._look)

    def proceed(self, path: str, limit: int | None) -> bool:
        """Write into another file from the request of a test on that does not wait.

        Its process may have ended since, and strace with it.

        :return: ``False`` where strace was not attached any more; nothing is done then.
        :raises OSError: the file cannot be made.
        """
        if self._source is None or self._rested_at is None or self._piece is not None:
            return False
        has_ended = self._has_ended()
        if has_ended and not trace_piece.holds(self._source, self._rested_at, _FIRST_WORDS):
            return False
        self.begin(path, append=False, limit=limit, waits=False)
        if has_ended:
            self._end_piece()
        return True

    def attach(self, answer: Reply, program: str, options: list[str]) -> None:
        """Start strace, and answer when it is attached."""
        self._answer = answer
        self._many = "-ff" in options
        output = os.open(os.devnull, os.O_WRONLY) if self._source is None else self._source
        self._arguments = [*options, "-o", f"/dev/fd/{_OUTPUT}", "-p", str(self._tracee)]
        self._stderr, write_end = os.pipe()
        os.set_blocking(self._stderr, False)
        shared = self._one_cpu.shared() if self._source is not None else contextlib.nullcontext()
        try:
            with shared:
                # Not fork(): vfork() inside posix_spawn saves a millisecond of each test.
                self.pid = os.posix_spawn(
                    program,
                    # It signs its messages with the name it is called by.
                    ["strace", *self._arguments],
                    environment(),
                    file_actions=[
                        (os.POSIX_SPAWN_DUP2, write_end, 2),
                        (os.POSIX_SPAWN_DUP2, output, _OUTPUT),
                    ],
                    setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE],
                )
        except OSError as error:
            self._give_cpus_back()
            os.close(self._stderr)
            answer(f"{program} cannot be run: {error}")
            return
        finally:
            if output != self._source:
                os.close(output)
            os.close(write_end)
        self._status = None
        self._end = os.pidfd_open(self.pid)
        self._loop.watch(self._stderr, self._listen)
        self._loop.watch(self._end, self._ended)
        self._alarm = self._loop.call_later(ATTACH_SECONDS, self._late)

    def rest(self, answer: Reply) -> bool:
        """Answer, stay attached, and leave it to :meth:`settle` to end the piece.

        :return: ``False`` where :meth:`detach` has to be called; nothing is done then.
        """
        if self._source is None or self._terminated or self._has_ended():
            return False
        long = time.monotonic() - self._began >= _MOST_SECONDS
        tired = long or os.fstat(self._source).st_size >= _MOST_BYTES
        if tired or self._follows_others():
            return False
        end = trace_piece.end_before(self._source, self._tracee, _LAST_WORDS)
        if end is None:
            return False
        marks_end = None if self._marks is None else self._marks.end
        self._rested_at = end
        self._unsettled = end, marks_end
        answer(rests=True)
        return True

    def settle(self) -> None:
        """Write the rest of a piece that has ended, if there is one."""
        if self._unsettled is not None:
            ends, self._unsettled = self._unsettled, None
            self._end_piece(*ends)
            self._path = None
            self._one_cpu.leave(self._threads)

    def rests(self) -> bool:
        """Say whether strace is attached and writes no piece."""
        return self._has_written and self._piece is None and not self._has_ended()

    def traces_others(self) -> bool:
        """Say whether it follows other processes, which live on and are not the next test's."""
        return not self._has_ended() and self._follows_others()

    def _follows_others(self) -> bool:
        self._listen()
        alive = {thread for thread in self._threads if os.path.exists(f"/proc/{thread}")}
        self._threads = alive
        return any(not os.path.exists(f"/proc/{self._tracee}/task/{each}") for each in alive)

    def _end_piece(self, until: int | None = None, marks_until: int | None = None) -> None:
        self._loop.cancel(self._look_alarm)
        piece, self._piece = self._piece, None
        if piece is not None:
            try:
                piece.finish(until, marks_until)
            except OSError as error:
                self._complain(f"{piece.path} is not complete: {error.strerror or error}")

    def _look(self) -> None:
        """Write down what is new, for whoever looks at a test that hangs."""
        assert self._piece is not None
        try:
            self._piece.copy()
        except OSError as error:
            if error.errno == errno.ENOSPC:
                self._cut = f"strace.txt is cut: {error.strerror}"
            else:
                self._words += f"{error.strerror}\n".encode()
            self._terminate()
        else:
            self._look_alarm = self._loop.call_later(_LOOK_SECONDS, self._look)

    def detach(self, answer: Reply) -> None:
        """End strace, and answer when all it wrote is in the file."""
        if self._has_ended():
            self.close()
            assert self._status is not None
            answer(self._cut or self._too_early(self._status))
            return
        self._answer = answer
        self._terminate()
        self._alarm = self._loop.call_later(DETACH_SECONDS, self._late)

    def kill(self) -> None:
        """End strace now, without anybody waiting for an answer."""
        self._answer = None
        self._loop.cancel(self._alarm)
        if self._status is None:
            self._terminate()
            self._alarm = self._loop.call_later(DETACH_SECONDS, self._late)
            while self._status is None:
                self._loop.step()
        self.close()

    def close(self) -> None:
        """Let go of the files, once strace has ended or where it was never started."""
        self._end_piece()
        if self._source is not None:
            os.close(self._source)
            self._source = None

    def _has_ended(self) -> bool:
        if self._status is None and os.waitid(
            os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            self._ended()  # the loop has not come to it yet
        return self._status is not None

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Call *callback* when strace has ended, now if it has."""
        self._then = callback
        if self._status is not None:
            callback()

    def _listen(self) -> None:
        """Read what strace says; never let it wait for us."""
        while True:
            try:
                data = os.read(self._stderr, 1 << 16)
            except BlockingIOError:
                return
            if not data:
                self._loop.unwatch(self._stderr)
                return
            *lines, self._line = (self._line + data).split(b"\n")
            for line in lines:
                self._hear(line)

    def _hear(self, line: bytes) -> None:
        attached = _ATTACHED.match(line)
        if attached:
            if self._attached:
                self._threads.add(int(attached[1]))
            else:
                self._attached = True
                self._loop.cancel(self._alarm)
                self._give()
        elif not _CHATTER.match(line) and len(self._words) < _WORDS_BYTES:
            self._words += line + b"\n"

    def _late(self) -> None:
        """strace has used up the time it was given."""
        if self._terminated:
            self._killed = True
            os.kill(self.pid, signal.SIGKILL)
        else:
            self._terminate()
            self._alarm = self._loop.call_later(DETACH_SECONDS, self._late)

    def _terminate(self) -> None:
        self._terminated = True
        os.kill(self.pid, signal.SIGTERM)

    def _ended(self) -> None:
        _, status = os.waitpid(self.pid, 0)
        if not self._attached:
            _end_child(self._arguments)
        self._listen()
        self._loop.unwatch(self._stderr)
        self._loop.unwatch(self._end)
        os.close(self._stderr)
        os.close(self._end)
        self._loop.cancel(self._alarm)
        self._end_piece()
        self._give_cpus_back()
        if self._line:
            self._hear(self._line)
            self._line = b""
        self._status = status
        if self._then is not None:
            self._then()
        if self._answer is None:
            return  # it died on its own; detach() tells
        self.close()
        ended = wait_status.describe(status)
        if self._killed:
            self._fail(
                f"strace did not end within {DETACH_SECONDS:g} s of SIGTERM and was killed; "
                f"strace.txt is incomplete"
            )
        elif not self._attached and self._terminated:
            self._fail(
                f"strace did not say within {ATTACH_SECONDS:g} s that it is attached "
                f"(-q among its options silences it)"
            )
        elif not self._attached:
            many = " (-ff among its options asks for several files)" if self._many else ""
            self._give(f"strace cannot attach ({ended}){many}{self._quote()}")
        elif status not in (0, signal.SIGTERM):
            # Our SIGTERM came too late: something else was ending it.
            self._give(self._cut or self._too_early(status))
        else:
            self._give(self._cut)

    def _give_cpus_back(self) -> None:
        self._one_cpu.leave({self._tracee, *self._threads})

    def _too_early(self, status: int) -> str:
        return (
            f"strace ended before the test did ({wait_status.describe(status)}); "
            f"strace.txt is incomplete{self._quote()}"
        )

    def _fail(self, error: str) -> None:
        """Answer that strace used up its time, and that it gets no second chance."""
        error = f"{error}; {_GIVEN_UP}{self._quote()}"
        self._give_up(error)
        self._give(error)

    def _give(self, error: str | None = None) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(error, strace=self.pid)

    def _quote(self) -> str:
        words = self._words.decode("utf-8", "replace").strip()
        return f": {' / '.join(words.splitlines())}" if words else ""


def _end_child(arguments: list[str]) -> None:
    """End the child that strace forks as it starts, if strace was ended before it did that itself.

    strace tries on it what the kernel can do.
    """
    same = "\0".join(["", *arguments, ""]).encode()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/cmdline", "rb") as file:
                is_child = file.read().endswith(same)
            if is_child and os.getpgid(int(name)) == os.getpgrp():
                os.kill(int(name), signal.SIGKILL)


def environment() -> dict[str, str]:
    """Return what strace is started with."""
    # Without TZ, glibc looks at /etc/localtime twice for each traced call; the error
    # texts are matched and quoted in English.
    variables = {**os.environ, "TZ": "UTC0", "LC_ALL": "C"}
    library = _library()
    if library is not None:
        present = variables.get("LD_PRELOAD")
        variables["LD_PRELOAD"] = f"{present}:{library}" if present else library
    return variables


def _library() -> str | None:
    """Return the file of ``_sockets.c``, by which strace names sockets faster.

    :return: ``None`` where nothing was compiled, or where the loader does not take such a path.
    """
    base = os.path.join(os.path.dirname(os.path.abspath(__file__)), "_sockets")
    found = (base + suffix for suffix in EXTENSION_SUFFIXES if os.path.exists(base + suffix))
    path = next(found, None)
    return None if path is None or re.search(r"[\s:]", path) else path
