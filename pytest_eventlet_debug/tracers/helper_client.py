"""The helper process beside a test process, seen from the test process.

The helper owns what must not show in a test: strace and the packet capture are its
children and its descriptors, not the test's. It is started before user code runs, and
it is no child of the test process, but of a shell that has ended: no SIGCHLD, nothing for
``os.wait()`` to find. Its other side is :mod:`pytest_eventlet_debug.helper.process`.
"""

from __future__ import annotations

import _socket
from collections.abc import Iterator
import contextlib
import importlib.util
import os
import posix
import signal
import struct
import sys

from pytest_eventlet_debug.helper import messages
from pytest_eventlet_debug.helper.messages import MESSAGE_BYTES
from pytest_eventlet_debug.helper.messages import NO_ANSWER
from pytest_eventlet_debug.helper.messages import Request
from pytest_eventlet_debug.helper.protocol import HELPER_PROGRAM
from pytest_eventlet_debug.helper.protocol import helper_command
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.high_descriptors import move_up
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.protocol import TracerUnavailable

#: Seconds to wait for an answer. What the helper does itself has shorter limits.
ANSWER_SECONDS = 8

#: Seconds for what a helper started to end by itself where that helper is given up.
_END_SECONDS = 1.0

#: How long a look at the connection serves.
_FRESH_NS = 1_000_000

#: What the finisher imports.
_LIBRARIES = ("msgspec", "pyprof2calltree")

#: Starts the program that follows and ends, so that the program is no child of who asked.
_IN_BACKGROUND = ("/bin/sh", "-c", '"$@" &', "sh")

_GIVEN_UP = "neither strace nor packets are recorded from here on"


class HelperGoneError(TracerError):
    """The helper is gone for the rest of the run, whatever it was wanted for."""


# Taken here, before a test can patch them.
_pack = struct.pack


class Helper:
    """A connection to the helper process: one request and its answer at a time.

    A message is one ``sendto`` or one blocking ``recvfrom`` on a raw descriptor, so it
    never switches greenthreads. A helper that has died is a :class:`TracerError`, never
    a SIGPIPE and never a hang. A fork of the test process cannot use the helper: the
    answers belong to the process that started it.

    Not for use by several threads at once.
    """

    def __init__(self, connection: _socket.socket) -> None:
        """Talk over *connection*; use :meth:`start` to get there."""
        self._connection = connection
        self._owner = posix.getpid()
        self._is_fork = False
        os.register_at_fork(after_in_child=self._forked)
        self._inode = posix.fstat(connection.fileno()).st_ino
        self._sequence = 0
        self._begun: set[int] = set()
        self._unsent: list[Request] = []
        self._is_gathering = False
        self._seen_ns = 0
        self._answers: dict[int, tuple[str | None, object]] = {}
        self._hello = 0
        self._goodbye: int | None = None
        self._pid = 0
        self._group = 0
        self._given_up = ""
        #: Whether strace is attached and waits for the next recording.
        self.strace_rests = False

    @classmethod
    def start(cls) -> Helper:
        """Start a helper for this process, which gets ready while this one goes on.

        :raises TracerUnavailable: not on Linux 5.3 or newer.
        :raises TracerError: it cannot be started.
        """
        if not unpatched.on_linux():
            raise TracerUnavailable(
                f"strace and pcap need Linux; this is {sys.platform}. cprofile works here."
            )
        try:
            posix.close(posix.pidfd_open(posix.getpid()))
        except (AttributeError, OSError) as error:
            raise TracerUnavailable(
                f"strace and pcap need pidfd_open(2), which Linux has from 5.3 on: {error}. "
                "cprofile works here."
            ) from error
        if not sys.executable:
            raise TracerUnavailable("sys.executable is empty: no Python to run the helper with")
        try:
            return cls._start()
        except OSError as error:
            raise TracerError(f"the tracing helper cannot be started: {error}") from error

    @classmethod
    def _start(cls) -> Helper:
        # Packets keep their boundaries, and MSG_NOSIGNAL exists: no SIGPIPE.
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        posix.set_inheritable(theirs.fileno(), True)
        try:
            command = helper_command(theirs.fileno(), posix.getpid(), _library_directories())
            # The shell is gone at once; an interpreter that forks would take its time to start.
            try:
                unpatched.run([*_IN_BACKGROUND, *command], unpatched.environment())
            except FileNotFoundError:  # no shell: it forks itself
                unpatched.run(command, unpatched.environment())
        finally:
            theirs.close()
        fd = move_up(ours.detach())
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
            # The kernel's own timeout: settimeout() would add a poll() to each call.
            connection.setsockopt(_socket.SOL_SOCKET, option, _pack("ll", ANSWER_SECONDS, 0))
        helper = cls(connection)
        helper._hello = helper.begin("hello")  # answered first of all
        return helper

    def _forked(self) -> None:
        self._is_fork = True
        self._unsent = []

    @property
    def pid(self) -> int:
        """The helper's process id; what ``PR_SET_PTRACER`` wants.

        :raises TracerError: it has not come to life.
        """
        if not self._pid:
            self.end(self._hello)
        return self._pid

    @property
    def is_gone(self) -> bool:
        """Whether a request has failed with :class:`HelperGoneError`."""
        return bool(self._given_up)

    def fileno(self) -> int:
        """Return the descriptor of the connection, or -1 once closed."""
        return self._connection.fileno()

    def request(self, command: str, **arguments: object) -> dict[str, object]:
        """Ask the helper for one thing and return its answer.

        :param command: one that :class:`~.helper.process.HelperProcess` knows.
        :param arguments: what JSON can hold.
        :raises HelperGoneError: it has died, or does not answer within :data:`ANSWER_SECONDS`
            and is ended; every further request is refused with the same words.
        :raises TracerError: it says no; also in a fork of the process that started it.
        """
        return self._receive(self._ask(command, arguments))

    def begin(self, command: str, **arguments: object) -> int:
        """Ask the helper for one thing without waiting for it.

        :return: what :meth:`end` takes.
        :raises TracerError: as :meth:`request` does.
        """
        sequence = self._ask(command, arguments)
        self._begun.add(sequence)
        return sequence

    def end(self, sequence: int) -> dict[str, object]:
        """Return the answer to a request that was begun.

        :raises TracerError: as :meth:`request` does.
        """
        try:
            return self._receive(sequence)
        finally:
            self._begun.discard(sequence)

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Send what is asked for meanwhile in one message, at the end or when an answer is awaited.

        A message takes some system calls, which may be traced, and wakes the helper.
        """
        self._is_gathering = True
        try:
            yield
        finally:
            self._is_gathering = False
            with contextlib.suppress(HelperGoneError):  # whoever needs it next says so
                self.flush()

    def _ask(self, command: str, arguments: dict[str, object]) -> int:
        self._be_usable(command)
        self._sequence += 1
        self._put(_request(self._sequence, command, arguments))
        return self._sequence

    def _put(self, request: Request) -> None:
        """Send a request, or have it sent with others."""
        if sum(each.size for each in self._unsent) + request.size > MESSAGE_BYTES:
            self.flush()
        self._unsent.append(request)
        if not self._is_gathering:
            self.flush()

    def flush(self) -> None:
        """Send what was asked for; see :meth:`together`.

        :raises HelperGoneError: it cannot be sent.
        """
        unsent, self._unsent = self._unsent, []
        if unsent:
            with self._losing():
                self._connection.send(messages.message(unsent), _socket.MSG_NOSIGNAL)

    def _receive(self, sequence: int) -> dict[str, object]:
        """Return the answer to a request."""
        if sequence not in self._answers:
            self._be_usable()
            self.flush()
            with self._losing():
                self._wait_for(sequence)
        error, values = self._answers.pop(sequence)
        if error is not None:
            raise TracerError(error)
        assert isinstance(values, dict)
        return values

    def post(self, command: str, data: bytes = b"", **arguments: object) -> None:
        """Tell the helper one thing without waiting for it.

        What goes wrong there is among the problems that ``finish-wait`` returns.

        :param data: more that the command needs.
        :raises TracerError: as :meth:`request` does.
        :raises OSError: there is no memory or no descriptor for long data.
        """
        self._be_usable(command)
        short = messages.request(NO_ANSWER, command, arguments, data)
        if short.size <= MESSAGE_BYTES:
            self._put(short)
            return
        fd = files.memory_file(files.HANDED_OVER)
        try:
            unpatched.write_all(fd, data)
            self._send_with(_request(NO_ANSWER, command, arguments), fd)
        finally:
            posix.close(fd)

    def give(self, command: str, fd: int) -> None:
        """Give the helper a descriptor, without waiting for it.

        :param command: says what it is for.
        :raises TracerError: as :meth:`request` does.
        """
        self._be_usable(command)
        # Its number is known where it arrives.
        self._send_with(_request(NO_ANSWER, command, {"descriptor": None}), fd)

    def _send_with(self, request: Request, fd: int) -> None:
        self.flush()
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, _pack("i", fd))]
        with self._losing():
            self._connection.sendmsg([messages.message([request])], rights, _socket.MSG_NOSIGNAL)

    def _be_usable(self, command: str | None = None) -> None:
        """See to it that the helper can be talked to, as far as that is known.

        :param command: what it is to do; ``None`` for an answer that is due.
        :raises TracerError: it cannot.
        """
        if self._is_fork:
            raise TracerError(
                f"process {posix.getpid()} is a fork of the test process {self._owner}: "
                "only that one is recorded"
            )
        if self._given_up:
            raise HelperGoneError(self._given_up)
        if not self._is_connected():
            raise self._lose_connection()
        if command is not None and self._goodbye is not None:
            raise TracerError(f"{command} comes too late: the tracing helper is at its end")

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """Give the helper up where talking to it fails."""
        try:
            yield
        except BlockingIOError:
            self._end_group()
            raise self._give_up(f"has not answered for {ANSWER_SECONDS} s and was ended") from None
        except (OSError, ValueError) as failure:
            if not self._is_there():
                raise self._lose_connection() from failure
            self._end_group()  # strace may still be there
            raise self._give_up("was killed or has crashed") from failure

    def _wait_for(self, sequence: int) -> None:
        """Receive answers until that to a request has come."""
        while True:
            received = self._connection.recv(MESSAGE_BYTES)
            if not received:
                raise ConnectionResetError("end of file")
            for answered, error, values in messages.answers(received):
                # Any other belongs to a request that a signal handler's exception ended.
                if answered == sequence or answered in self._begun:
                    self._answers[answered] = (error, values)
                if answered == self._hello:
                    self._pid = values["pid"]
                    self._group = posix.getpgid(self._pid)
            if sequence in self._answers:
                return

    def _is_connected(self) -> bool:
        """Say whether the descriptor is still ours, or was a moment ago.

        To look is a system call, which may be traced.
        """
        now = unpatched.time_ns()
        if not 0 <= now - self._seen_ns < _FRESH_NS:
            if not self._is_there():
                return False
            self._seen_ns = now
        return True

    def _is_there(self) -> bool:
        """Say whether the descriptor is still ours, which a test may close or reuse."""
        try:
            return posix.fstat(self._connection.fileno()).st_ino == self._inode
        except OSError:
            return False

    def _lose_connection(self) -> HelperGoneError:
        """Let the descriptor be, which is somebody else's now."""
        number = self._connection.detach()
        self._end_group()
        self._given_up = (
            f"the test closed or replaced descriptor {number}, the connection to the tracing "
            f"helper; {_GIVEN_UP}"
        )
        return HelperGoneError(self._given_up)

    def _give_up(self, fate: str) -> HelperGoneError:
        process = f" (process {self._pid})" if self._pid else ""
        self._given_up = f"the tracing helper{process} {fate}; {_GIVEN_UP}"
        return HelperGoneError(self._given_up)

    def _end_group(self) -> None:
        """End the helper and what it started, which is all in one process group.

        strace that is ended in the usual way lets its tracees go and completes its file.
        """
        target = _own_helper()
        if not target and self._group == _tracer_group():
            target = -self._group  # the helper is gone, but not its strace
        if not target:
            return
        deadline = unpatched.monotonic() + _END_SECONDS
        with contextlib.suppress(ProcessLookupError, PermissionError):
            posix.kill(target, signal.SIGTERM)
            posix.kill(target, signal.SIGCONT)
            while unpatched.monotonic() < deadline:
                unpatched.wait_readable([], 0.01)
                posix.kill(target, 0)
            posix.kill(target, signal.SIGKILL)

    def begin_close(self) -> None:
        """Let the helper end, with everything it started, while this process does other things.

        Nothing can be asked of it after that.
        """
        is_own = not self._is_fork and self._connection.fileno() >= 0
        if self._goodbye is None and is_own:
            with Shield():
                self._goodbye = self.begin("goodbye")

    def close(self) -> None:
        """Let the helper end, with everything it started; do nothing if it has."""
        self.begin_close()
        if self._goodbye is not None and self._connection.fileno() >= 0:
            with Shield():
                self.end(self._goodbye)
        self._connection.close()


def _request(sequence: int, command: str, arguments: dict[str, object]) -> Request:
    made = messages.request(sequence, command, arguments)
    if made.size > MESSAGE_BYTES:
        raise TracerError(f"{command} with {made.size} bytes is too long for the helper")
    return made


def _tracer_group() -> int:
    """Return the process group of what traces this process, 0 where nothing does."""
    for line in unpatched.read_file("/proc/self/status").splitlines():
        if line.startswith(b"TracerPid:") and (tracer := int(line.split()[1])):
            with contextlib.suppress(ProcessLookupError):
                return posix.getpgid(tracer)
    return 0


def _own_helper() -> int:
    """Return this process's helper with all that it started, as kill(2) takes it; 0 if it is gone.

    That is its process group, unless it has yet to leave that of this process.
    """
    own = f"\0{posix.getpid()}\0".encode()
    for name in filter(str.isdigit, posix.listdir("/proc")):
        with contextlib.suppress(OSError):
            command = unpatched.read_file(f"/proc/{name}/cmdline")
            if HELPER_PROGRAM.encode() in command and own in command:
                group = posix.getpgid(int(name))
                return int(name) if group == posix.getpgrp() else -group
    return 0


def _library_directories() -> list[str]:
    """Return where the libraries are for which the finisher has no site-packages."""
    found = []
    for name in _LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:  # the finisher says what it lacks
            place = os.path.dirname(os.path.abspath(spec.origin))
            found.append(os.path.dirname(place) if spec.submodule_search_locations else place)
    return found
