"""strace attached to the test process: the helper's side.

Facts this rests on (strace 6.1): the line ``strace: Process N attached`` (or ``attached
with M threads``) comes once every thread is traced, and nothing is lost after it;
SIGTERM detaches everything and ends strace by that same signal, with a complete file;
``-f`` says a line on stderr for each new thread, and a full pipe there would freeze the
test.
"""

from __future__ import annotations

from collections.abc import Callable
import os
import re
import select
import shutil
import signal
import time
from typing import TYPE_CHECKING

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.helper.fate import fate
from pytest_eventlet_debug.helper.loop import Answer
from pytest_eventlet_debug.helper.loop import Callback
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.trace_limit import LOOK_SECONDS
from pytest_eventlet_debug.helper.trace_limit import TraceLimit
from pytest_eventlet_debug.system import files

if TYPE_CHECKING:
    from pytest_eventlet_debug.system.scratch import ScratchDirectory

#: Seconds for strace to say its version; it needs some 3 ms.
VERSION_SECONDS = 3.0

#: Seconds for strace to attach; it needs some 3 ms, and longer with many threads.
ATTACH_SECONDS = 4.0

#: Seconds between SIGTERM and SIGKILL.
DETACH_SECONDS = 2.0

_ATTACHED = re.compile(rb"strace: Process (\d+) attached(?: with \d+ threads)?")
_CHATTER = re.compile(rb"strace: Process \d+ (?:attached|detached)\b")

#: Bytes of strace's own words that are kept for an error message.
_WORDS_BYTES = 2000

#: The descriptor that strace writes the trace to.
_OUTPUT = 3

_GIVEN_UP = "no test after this one is traced"


class Attachment:
    """At most one strace, attached to the test process.

    While it is attached, the main thread of the test process and strace share one CPU,
    which makes a traced call three to five times cheaper than on two.
    """

    def __init__(self, loop: Loop, tracee: int) -> None:
        """Attach to the process *tracee* when asked; events come through *loop*."""
        self._loop = loop
        self._tracee = tracee
        self._strace: _Strace | None = None
        self._given_up = ""

    def version(self, answer: Answer, *, program: str) -> None:
        """Answer with ``words``: the first line that ``strace -V`` prints."""
        words = self._ask_version(answer, program)
        if words is not None:
            answer(words=words)

    def _ask_version(self, answer: Answer, program: str) -> str | None:
        import subprocess  # asked once in a run

        try:
            started = subprocess.Popen(
                [program, "-V"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            answer(f"{program} cannot be run: {error.strerror}")
            return None
        with started as process:
            assert process.stdout is not None
            line = _first_line(process.stdout.fileno())
            os.killpg(process.pid, signal.SIGKILL)  # a script's children, too
        if line is not None:
            return line.decode("utf-8", "replace")
        answer(f"`{program} -V` says nothing for {VERSION_SECONDS:g} s; install strace again")
        return None

    def attempt(self, answer: Answer, *, program: str, options: list[str]) -> None:
        """Attach and detach, and answer as for :meth:`version`; it leaves no file.

        A program that does not say its version is not asked for more.
        """
        words = self._ask_version(answer, program)
        if words is None:
            return
        if "version " not in words:
            answer(words=words)
            return

        def detach(error: str | None = None, **values: object) -> None:
            if error is None:
                self.stop(detached)
            else:
                answer(error)

        def detached(error: str | None = None, **values: object) -> None:
            answer(error, words=words)

        self.start(
            detach, program=program, options=options, path=None, append=False, pin=False, limit=None
        )

    def start(
        self,
        answer: Callback,
        *,
        program: str,
        options: list[str],
        path: str | None,
        append: bool,
        pin: bool,
        limit: int | None,
    ) -> None:
        """Attach and answer once all of the test process is traced.

        :param path: the file to write; ``None`` for a trial that leaves no file.
        :param append: keep what the file holds, and add to it when strace ends.
        :param limit: bytes of which the beginning and the end are kept; ``None`` for no limit.
        """
        if self._given_up:
            answer(self._given_up)
            return
        if self._strace is not None:
            self._strace.kill()
            self._strace = None
        self._strace = _Strace(self._loop, self._tracee, path, append, limit, self._give_up)
        self._strace.attach(answer, program, options, pin)

    def stop(self, answer: Callback) -> None:
        """Detach and answer once the file is complete."""
        if self._strace is None:
            answer("strace is not attached")
            return
        strace, self._strace = self._strace, None
        strace.detach(answer)

    def _give_up(self, error: str) -> None:
        """Attach no more: each further test would have to wait as long as this one did."""
        self._given_up = error

    @property
    def directories(self) -> list[str]:
        """Where the trace is being written, if one is."""
        return [] if self._strace is None else [self._strace.directory]

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


class _Strace:
    """One strace process from its fork to its end."""

    def __init__(
        self,
        loop: Loop,
        tracee: int,
        path: str | None,
        append: bool,
        limit: int | None,
        give_up: Callable[[str], None],
    ) -> None:
        self._loop = loop
        self._give_up = give_up
        self._tracee = tracee
        self._scratch: ScratchDirectory | None = None
        self._appended_to = None
        if path is None:
            # Only for the trial before the first test.
            from pytest_eventlet_debug.system.scratch import ScratchDirectory

            self._scratch = ScratchDirectory()
            path = os.path.join(self._scratch.path, STRACE_FILE)
        elif append:
            self._appended_to, path = path, path + ".part"
        self._path = path
        self._limit = TraceLimit(path, limit) if limit is not None else None
        self._look_alarm: int | None = None
        self._answer: Callback | None = None
        self._attached = False
        self._terminated = False
        self._killed = False
        self._many = False
        self._status: int | None = None
        self._then: Callable[[], None] | None = None
        self._alarm: int | None = None
        self._affinity: set[int] = set()
        self._cpu: int | None = None
        self._threads: set[int] = set()
        self._line = b""
        self._words = b""

    @property
    def directory(self) -> str:
        return os.path.dirname(self._path)

    def attach(self, answer: Callback, program: str, options: list[str], pin: bool) -> None:
        self._answer = answer
        self._many = "-ff" in options
        try:
            # Not by strace, which would follow a link that the test lays there.
            output = files.create(self._path)
        except OSError as error:
            self._status = 127 << 8
            answer(f"strace.txt cannot be written: {error}")
            return
        # It signs its messages with the name it is called by.
        arguments = ["strace", *options, "-o", f"/dev/fd/{_OUTPUT}", "-p", str(self._tracee)]
        self._stderr, write_end = os.pipe()
        os.set_blocking(self._stderr, False)
        ours = self._pin() if pin else None
        try:
            # Not fork(): vfork() inside posix_spawn saves a millisecond of each test.
            self._pid = os.posix_spawn(
                program,
                arguments,
                _environment(),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, write_end, 2),
                    (os.POSIX_SPAWN_DUP2, output, _OUTPUT),
                ],
                setsigdef=[signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE],
            )
        except OSError as error:
            self._unpin()
            os.close(self._stderr)
            self._status = 127 << 8
            self._finish()
            answer(f"{program} cannot be run: {error}")
            return
        finally:
            os.close(output)
            os.close(write_end)
            if ours is not None:
                _set_affinity(0, ours)
        self._end = os.pidfd_open(self._pid)
        self._loop.watch(self._stderr, self._listen)
        self._loop.watch(self._end, self._ended)
        self._alarm = self._loop.call_later(ATTACH_SECONDS, self._late)
        if self._limit is not None:
            self._look_alarm = self._loop.call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        """Keep the trace within its limit, or end it where that cannot be done."""
        assert self._limit is not None
        try:
            self._limit.look()
        except OSError as error:
            self._words += (
                f"--strace-limit is reached, and holes are not supported here: {error}\n".encode()
            )
            self._terminate()
        else:
            self._look_alarm = self._loop.call_later(LOOK_SECONDS, self._look)

    def detach(self, answer: Callback) -> None:
        if self._status is None and os.waitid(
            os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT
        ):
            self._ended()  # the loop has not come to it yet
        if self._status is not None:
            self._finish()
            answer(self._too_early(self._status))
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
        self._finish()

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
            os.kill(self._pid, signal.SIGKILL)
        else:
            self._terminate()
            self._alarm = self._loop.call_later(DETACH_SECONDS, self._late)

    def _terminate(self) -> None:
        self._terminated = True
        os.kill(self._pid, signal.SIGTERM)

    def _ended(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        self._listen()
        self._loop.unwatch(self._stderr)
        self._loop.unwatch(self._end)
        os.close(self._stderr)
        os.close(self._end)
        self._loop.cancel(self._alarm)
        self._loop.cancel(self._look_alarm)
        self._close_gap()
        self._unpin()
        if self._line:
            self._hear(self._line)
            self._line = b""
        self._status = status
        if self._then is not None:
            self._then()
        if self._answer is None:
            return  # it died on its own; detach() tells
        ended = fate(status)
        wrote = self._finish()
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
            self._give(self._too_early(status))
        elif not wrote:
            self._give(f"strace.txt was deleted while strace wrote it{self._quote()}")
        else:
            self._give()

    def _close_gap(self) -> None:
        if self._limit is None:
            return
        try:
            self._limit.close()
        except OSError as error:
            self._words += f"the gap in {self._path} stays open: {error}\n".encode()

    def _too_early(self, status: int) -> str:
        return (
            f"strace ended before the test did ({fate(status)}); "
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
            answer(error, strace=self._pid)

    def _finish(self) -> bool:
        """Put the file where it belongs; say whether strace wrote one."""
        wrote = os.path.exists(self._path)
        if self._appended_to is not None and wrote:
            try:
                whole = files.open_to_append(self._appended_to)
                with open(whole, "ab") as file, open(self._path, "rb") as part:
                    shutil.copyfileobj(part, file)
                os.unlink(self._path)
            except OSError as error:
                self._words += f"{error}\n".encode("utf-8", "replace")
                wrote = False
            self._appended_to = None
        if self._scratch is not None:
            self._scratch.remove()
            self._scratch = None
        return wrote

    def _quote(self) -> str:
        words = self._words.decode("utf-8", "replace").strip()
        return f": {' / '.join(words.splitlines())}" if words else ""

    def _pin(self) -> set[int] | None:
        """Put us and the test process's main thread on the CPU that it used last.

        strace inherits that; our own CPUs are returned, to be given back then.
        """
        try:
            with open(f"/proc/{self._tracee}/stat", "rb") as stat:
                # proc(5): field 39 is the processor, counted from behind the last ")".
                cpu = int(stat.read().rpartition(b")")[2].split()[36])
            affinity = os.sched_getaffinity(self._tracee)
            ours = os.sched_getaffinity(0)
        except (OSError, ValueError, IndexError):
            return None
        if len(affinity) < 2 or cpu not in affinity or not _set_affinity(self._tracee, {cpu}):
            return None
        self._cpu = cpu
        self._affinity = affinity
        _set_affinity(0, {cpu})
        return ours

    def _unpin(self) -> None:
        """Give the CPUs back, also to the threads and children started in between."""
        if self._cpu is None:
            return
        for thread in {self._tracee, *self._threads}:
            try:
                if os.sched_getaffinity(thread) == {self._cpu}:
                    _set_affinity(thread, self._affinity)
            except OSError:
                pass  # it has ended


def _first_line(fd: int) -> bytes | None:
    """Read a line, or what there is of it at the end; ``None`` if it does not come in time."""
    line = b""
    deadline = time.monotonic() + VERSION_SECONDS
    while b"\n" not in line and len(line) < _WORDS_BYTES:
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return None
        data = os.read(fd, _WORDS_BYTES)
        if not data:
            break
        line += data
    return line.partition(b"\n")[0][:_WORDS_BYTES]


def _set_affinity(thread: int, cpus: set[int]) -> bool:
    try:
        os.sched_setaffinity(thread, cpus)
    except OSError:
        return False  # a slower trace, no more
    return True


def _environment() -> dict[str, str]:
    # Without TZ, glibc looks at /etc/localtime twice for each traced call; the error
    # texts are matched and quoted in English.
    return {**os.environ, "TZ": "UTC0", "LC_ALL": "C"}
