"""One child process: its start, what it says, how it ends, and what it did when it hung."""

from __future__ import annotations

import _socket
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import errno
import os
from pathlib import Path
import posix
import signal
import subprocess
import sys
from typing import Any

import msgspec

from pytest_eventlet_debug import dump_limits
from pytest_eventlet_debug.assignment import CHILD_VARIABLE
from pytest_eventlet_debug.assignment import LENGTH_BYTES
from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.assignment import Launch
from pytest_eventlet_debug.assignment import Program
from pytest_eventlet_debug.assignment import Waits
from pytest_eventlet_debug.assignment import encode
from pytest_eventlet_debug.children import answering
from pytest_eventlet_debug.children import boot
from pytest_eventlet_debug.children import fatal_error
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children import proc
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import killing
from pytest_eventlet_debug.system import pids
from pytest_eventlet_debug.system import starvation
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system import wait_status
from pytest_eventlet_debug.system.high_descriptors import move_up

#: Seconds for a tracer to let a dead process go.
_LETTING_GO_SECONDS = 1.0

#: Seconds for a process to end after SIGKILL, at most.
_END_SECONDS = 5.0

#: What pytest exits with after Ctrl-C.
_INTERRUPTED = 2

_CAPTURED = ("Captured stdout", "Captured stderr")

#: Of the end of stderr, in which faulthandler's words on a crash begin. It writes at most 100 calls
#: of each of 100 threads.
_CRASH_BYTES = 1 << 20


class ChildProcess:
    """A pytest in a process of its own, with a line to it.

    :param assignment: what it is told, but for its end of the line.
    :param program: what calls pytest there, or ``None`` for pytest itself.
    :param arguments: pytest's command line.
    :param stdout: where its output goes unless the terminal is its own.
    :param stderr: likewise.
    :param waits: what it leaves until :meth:`begin`; ``None`` if it does not wait.
    :param imports: what it imports until then, beside pytest.
    :raises OSError: it cannot be started.
    """

    def __init__(
        self,
        assignment: ChildAssignment,
        program: Program | None,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        working_directory: Path,
        stdout: Path,
        stderr: Path,
        waits: Waits | None = None,
        imports: Sequence[str] = (),
    ) -> None:
        # An interactive child shares this process's terminal and process group.
        self._interactive = assignment.interactive
        self._own_pids = assignment.own_pids
        self._stdout, self._stderr = stdout, stderr
        self._output = {stdout: 0, stderr: 0}  # and from where on it counts
        self._lost = stderr.with_suffix(".lost")
        self._decoder = messages.Decoder()
        self._status: int | None = None
        self._garbled = ""
        self._line_ended = False
        #: Whether it was given a Ctrl-C, or got that itself.
        self.was_interrupted = False
        self._captured: list[tuple[str, int]] = []
        near, far = (side.detach() for side in _socket.socketpair())
        self.descriptor = move_up(near)
        self._far = far
        self._launch = launch = Launch(
            assignment=self._with_line(assignment),
            controller=posix.getpid(),
            sys_path=sys.path,
            argv=sys.argv,
            arguments=list(arguments),
            directory=str(working_directory),
            program=program,
            waits=waits,
            imports=tuple(imports),
        )
        try:
            self._pid = self._spawn(encode(launch).encode("ascii"), environment)
        except BaseException:
            posix.close(self.descriptor)
            raise
        finally:
            posix.close(far)

    def _spawn(self, told: bytes, environment: Mapping[str, str]) -> int:
        """Start the process and return its id.

        :param told: what it reads first of all.
        :raises OSError: it cannot be started.
        """
        group: dict[str, Any] = {} if self._interactive else {"setpgroup": 0}
        memory = files.memory_file("launch")
        inherited = [(os.POSIX_SPAWN_DUP2, each, each) for each in (self._far, memory)]
        try:
            unpatched.write_all(memory, told)
            return posix.posix_spawn(
                sys.executable,
                # What multiprocessing uses to give its children the flags of this interpreter.
                [sys.executable, *subprocess._args_from_interpreter_flags(), boot.__file__],  # type: ignore[attr-defined]
                {**environment, CHILD_VARIABLE: str(memory)},
                file_actions=[*self._streams(), *inherited],
                setsigdef=[signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE],
                # Until it can take it: it gets each Ctrl-C at the terminal that it shares.
                setsigmask=[signal.SIGINT],
                **group,
            )
        finally:
            posix.close(memory)

    def _with_line(self, assignment: ChildAssignment) -> ChildAssignment:
        return msgspec.structs.replace(assignment, descriptor=self._far, lost=str(self._lost))

    def begin(self, assignment: ChildAssignment) -> bool:
        """Let a process begin that waits; return whether it still does.

        :param assignment: may have changed since, but for the hub.
        """
        launch = msgspec.structs.replace(
            self._launch,
            assignment=self._with_line(assignment),
            sys_path=sys.path,
            argv=sys.argv,
            waits=None,
        )
        told = encode(launch).encode("ascii")
        try:
            unpatched.write_all(self.descriptor, len(told).to_bytes(LENGTH_BYTES, "big") + told)
        except OSError:
            return False
        return not self.ended()

    @property
    def runner(self) -> int:
        """The id of the process that runs the tests, as this process sees it.

        With process ids of its own that is not the one that was started: see :mod:`.pids`.
        """
        if self._own_pids:
            for pid in proc.descendants(self._pid):
                if proc.ids(pid) == [pid, pids.RUNNER]:
                    return pid
        return self._pid

    def workers(self) -> list[int]:
        """Return the processes that pytest-xdist has started to run the tests."""
        import psutil

        try:
            children = psutil.Process(self.runner).children()
        except psutil.Error:
            return []
        return [each.pid for each in children if proc.catches(each.pid, answering.ALIVE_SIGNAL)]

    def run_delays(self) -> dict[int, int]:
        """Return how long each thread that its tests may wait for has been without a CPU.

        Of the child, of what it has started, and of what traces them: as
        :func:`.starvation.run_delays` returns it.
        """
        runner = self.runner
        pids = {runner, *proc.descendants(runner)}
        return starvation.run_delays(
            pids | {tracer for pid in pids if (tracer := proc.tracer(pid))}
        )

    def _streams(self) -> list[tuple[object, ...]]:
        if self._interactive:
            return []
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        return [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self._stdout), flags, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, str(self._stderr), flags, 0o600),
        ]

    def read(self) -> list[messages.Message] | None:
        """Return the messages that have come, or ``None`` once the line has ended."""
        try:
            data = posix.read(self.descriptor, 1 << 18)
        except OSError as error:
            if error.errno != errno.ECONNRESET:
                raise
            data = b""
        self._line_ended = not data
        heard: list[messages.Message] = []
        try:
            heard.extend(self._decoder.feed(data))
        except messages.MessageError as error:
            # A test that closes every descriptor and reuses their numbers writes into the line.
            self._garbled = f"ended because what it sent cannot be read: {error}"
            self.kill()
        return heard or ([] if data and not self._garbled else None)

    def wait_until_heard(self, seconds: float) -> bool:
        """Wait for the child to say something; return whether it has.

        :param seconds: how long to wait at most.
        """
        # A line that has ended can be read for ever.
        line = [] if self._line_ended else [self.descriptor]
        return bool(unpatched.wait_readable(line, seconds))

    def stop_after_test(self) -> None:
        """Ask the child to end when the test that it runs is over."""
        with contextlib.suppress(OSError):
            posix.write(self.descriptor, messages.STOP)

    def go_on(self) -> None:
        """Tell a child that waits for it that what it sent is taken in, or on the terminal."""
        with contextlib.suppress(OSError):
            posix.write(self.descriptor, messages.SHOWN)

    def interrupt(self) -> None:
        """Give the child and what it started the Ctrl-C that only this process's group got."""
        self.was_interrupted = True
        if not self._interactive and not self.ended():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                posix.killpg(self.runner, signal.SIGINT)

    @property
    def is_stopped(self) -> bool:
        """Whether Ctrl-Z, or another signal, has stopped it."""
        return proc.is_stopped(self.runner)

    def resume(self) -> None:
        """Have its process group go on that was stopped."""
        with contextlib.suppress(ProcessLookupError):
            posix.killpg(self.runner, signal.SIGCONT)

    def ended(self) -> bool:
        """Say whether the process is gone; then reap it and end what is left of its group."""
        if self._status is None:
            try:
                pid, status = posix.waitpid(self._pid, posix.WNOHANG)
            except ChildProcessError:  # somebody's SIGCHLD handler reaped it
                self._status = 0
            else:
                if pid:
                    self._status = status
            if self._status is not None:
                self._end_group()
        return self._status is not None

    @property
    def died(self) -> bool:
        """Whether a signal ended the process."""
        return self._status is not None and os.WIFSIGNALED(self._status)

    @property
    def ended_by_interrupt(self) -> bool:
        """Whether the process ended as one does that Ctrl-C ends."""
        by_signal = self.died and os.WTERMSIG(self._status or 0) == signal.SIGINT
        # Pytest has said nothing more where its session had not quite begun.
        return by_signal or self.exit_status == _INTERRUPTED

    @property
    def end(self) -> str:
        """How the process ended, in words."""
        if told := self._garbled or proc.tail(self._lost).strip():
            return told
        how = wait_status.describe(self._status or 0)
        return f"killed by {how}" if self.died else f"ended with {how}"

    @property
    def exit_status(self) -> int | None:
        """The status it ended with, ``None`` while it runs or where a signal ended it."""
        if self._status is None or not os.WIFEXITED(self._status):
            return None
        return os.WEXITSTATUS(self._status)

    @property
    def usage_error(self) -> str:
        """What pytest said of the command line that it could not use."""
        # Warnings of other plugins may stand before it.
        _, mark, words = f"\n{self.output}".partition("\nERROR: ")
        words = words if mark else self.output
        lines = words.strip().splitlines() or ["a child could not use the command line"]
        return "\n".join(line.removeprefix("ERROR: ") for line in lines)

    @property
    def stderr_tail(self) -> str:
        """The last lines that the child wrote to stderr, or nothing."""
        return proc.tail(self._stderr)

    @property
    def output(self) -> str:
        """All that the child wrote outside of what pytest captures, at most the tail of it.

        Once its session has begun, what it wrote before is left out: the controller, which
        started in the same way, has written the same.
        """
        return "".join(proc.tail(path, start) for path, start in self._output.items())

    def take_stdout(self) -> str:
        """Return what the child wrote to stdout; it is no :attr:`output` any more."""
        text = proc.tail(self._stdout, self._output[self._stdout])
        self._output[self._stdout] = proc.size(self._stdout)
        return text

    def begin_session(self, captured: Sequence[int]) -> None:
        """Take what the child writes from here on for that of its session.

        :param captured: its descriptors of the files that it captures stdout and stderr into,
            if it does. They are opened, for the files end with it otherwise.
        """
        self._output = {path: proc.size(path) for path in self._output}
        runner = self.runner
        for title, number in zip(_CAPTURED, captured, strict=False):
            with contextlib.suppress(OSError):
                path = f"/proc/{runner}/fd/{number}"
                opened = posix.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._captured.append((title, move_up(opened)))

    @property
    def captured(self) -> list[tuple[str, str]]:
        """What the test that the child is in has printed: titles and tails."""
        return [(title, proc.tail(Path(f"/proc/self/fd/{fd}"))) for title, fd in self._captured]

    @property
    def last_words(self) -> list[tuple[str, str]]:
        """All that it has written that nobody has seen: titles and tails."""
        crash = fatal_error.shortened(proc.tail(self._stderr, length=_CRASH_BYTES))
        return [("Its stderr", crash or self.stderr_tail), *self.captured]

    def dump_stacks(self, pid: int, seconds: float) -> str:
        """Let faulthandler write every thread's stack, and return them.

        :param pid: the process that is asked: this one's runner, or one of its workers.
        :param seconds: how long to wait for them at most.
        """
        before = proc.size(self._stderr)
        self._signal(pid, answering.STACKS_SIGNAL)
        deadline = unpatched.monotonic() + seconds
        while unpatched.monotonic() < deadline:
            if proc.read(self._stderr, before).endswith("\n"):
                break
            unpatched.wait_readable([], 0.005)
        return proc.read(self._stderr, before).strip()

    def dump_alive(self, pid: int, seconds: float) -> str:
        """Let Python write what is alive, and return that; nothing where it does not answer.

        :param pid: the process that is asked, as in :meth:`dump_stacks`.
        :param seconds: how long Python may take to begin.
        """
        before = proc.size(self._stderr)
        self._signal(pid, answering.ALIVE_SIGNAL)
        seconds = max(seconds, 0.02)
        begun = False
        while seconds > 0:
            text = proc.read(self._stderr, before)
            if not begun and dump_limits.BEGIN in text:
                begun = True
                seconds += dump_limits.MAX_SECONDS
            if dump_limits.END in text:
                break
            unpatched.wait_readable([], 0.02)
            seconds -= 0.02
        _, _, alive = proc.read(self._stderr, before).partition(dump_limits.BEGIN)
        return alive.partition(dump_limits.END)[0]

    def kill(self) -> None:
        """End the process, its group and its descendants by SIGKILL, reap it and await those.

        A dead process cannot be reaped before its tracer lets it go: a strace that does not
        is ended, too.
        """
        dying: set[int] = set()
        if not self.ended():
            runner = self.runner
            processes = (*proc.descendants(runner), runner)
            dying |= killing.kill(processes)
            self._kill_group(runner)
            if not self._ends_within(_LETTING_GO_SECONDS):
                tracers = {*map(proc.tracer, processes)} - {0, proc.tracer(posix.getpid())}
                dying |= killing.kill(tracers)
            proc.continue_helpers(runner)
        if not self._ends_within(_END_SECONDS):
            self._status = signal.SIGKILL  # it is dead, and some debugger has it
        killing.wait_until_dead(dying)

    def _ends_within(self, seconds: float) -> bool:
        deadline = unpatched.monotonic() + seconds
        while not self.ended() and unpatched.monotonic() < deadline:
            unpatched.wait_readable([], 0.005)
        return self.ended()

    def _kill_group(self, group: int) -> None:
        if not self._interactive:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                posix.killpg(group, signal.SIGKILL)

    def _end_group(self) -> None:
        """End what is left of its group, and what that has open: the next hub may need a port."""
        self._kill_group(self._pid)
        if not self._interactive:
            killing.wait_until_dead(killing.kill(proc.members(self._pid)))

    def discard(self) -> None:
        """End a process that waits still, and so has started nothing."""
        self._signal(self._pid, signal.SIGKILL)
        self._ends_within(_END_SECONDS)
        self.close()

    def close(self) -> None:
        """Release the line, and what was captured."""
        for descriptor in (self.descriptor, *(fd for _, fd in self._captured)):
            posix.close(descriptor)
        self._captured = []

    def _signal(self, pid: int, number: int) -> None:
        if not self.ended():
            with contextlib.suppress(ProcessLookupError):
                posix.kill(pid, number)
