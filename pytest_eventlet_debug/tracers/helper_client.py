"""The helper process beside a test process, seen from the test process.

The helper owns what must not show in a test: strace and the packet capture are its
children and its descriptors, not the test's. It is started before user code runs, and
it is no child of the test process (double fork): no SIGCHLD, nothing for ``os.wait()``
to find. Its other side is :mod:`pytest_eventlet_debug.helper.process`.
"""

from __future__ import annotations

import _socket
import importlib.util
import json
import os
import posix
import struct
import sys

from pytest_eventlet_debug.helper.protocol import MESSAGE_BYTES
from pytest_eventlet_debug.helper.protocol import helper_command
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.protocol import TracerUnavailable

#: Seconds to wait for an answer. What the helper does itself has shorter limits.
ANSWER_SECONDS = 30


# Taken here, before a test can patch them.
_encode = json.JSONEncoder().encode
_decode = json.JSONDecoder().decode
_pack = struct.pack


class Helper:
    """A connection to the helper process: one request and its answer at a time.

    A request is one ``sendto`` and one blocking ``recvfrom`` on a raw descriptor, so it
    never switches greenthreads. A helper that has died is a :class:`TracerError`, never
    a SIGPIPE and never a hang. A fork of the test process cannot use the helper: the
    answers belong to the process that started it.

    Not for use by several threads at once.
    """

    def __init__(self, connection: _socket.socket) -> None:
        """Talk over *connection*; use :meth:`start` to get there."""
        self._connection = connection
        self._owner = posix.getpid()
        self._sequence = 0
        self._pid = 0

    @classmethod
    def start(cls) -> Helper:
        """Start a helper for this process and wait until it answers.

        :raises TracerUnavailable: not on Linux.
        :raises TracerError: it cannot be started.
        """
        if not unpatched.on_linux():
            raise TracerUnavailable(
                f"strace and pcap need Linux; this is {sys.platform}. cprofile works here."
            )
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
            command = helper_command(theirs.fileno(), posix.getpid(), _libraries())
            unpatched.run(command, unpatched.environment())
        finally:
            theirs.close()
        fd = unpatched.move_up(ours.detach())
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, fd)
        for option in (_socket.SO_RCVTIMEO, _socket.SO_SNDTIMEO):
            # The kernel's own timeout: settimeout() would add a poll() to each call.
            connection.setsockopt(_socket.SOL_SOCKET, option, _pack("ll", ANSWER_SECONDS, 0))
        helper = cls(connection)
        try:
            pid = helper.request("hello")["pid"]
        except BaseException:
            connection.close()
            raise
        assert isinstance(pid, int)
        helper._pid = pid
        return helper

    @property
    def pid(self) -> int:
        """The helper's process id; what ``PR_SET_PTRACER`` wants."""
        return self._pid

    def fileno(self) -> int:
        """Return the descriptor of the connection, or -1 once closed."""
        return self._connection.fileno()

    def request(self, command: str, **arguments: object) -> dict[str, object]:
        """Ask the helper for one thing and return its answer.

        :param command: one that :class:`~.helper.process.HelperProcess` knows.
        :param arguments: what JSON can hold.
        :raises TracerError: the helper says no, has died, or does not answer within
            :data:`ANSWER_SECONDS`; also in a fork of the process that started it.
        """
        if posix.getpid() != self._owner:
            raise TracerError(
                f"process {posix.getpid()} is a fork of the test process {self._owner}: "
                "only that one is recorded"
            )
        self._sequence += 1
        sequence = self._sequence
        message = _encode([sequence, command, arguments]).encode("ascii")
        if len(message) > MESSAGE_BYTES:
            raise TracerError(f"{command} with {len(message)} bytes is too long for the helper")
        try:
            self._connection.send(message, _socket.MSG_NOSIGNAL)
            while True:
                answer = self._connection.recv(MESSAGE_BYTES)
                if not answer:
                    raise ConnectionResetError("end of file")
                answered, error, values = _decode(answer.decode("ascii"))
                # An older one belongs to a request that a signal handler's exception ended.
                if answered == sequence:
                    break
        except BlockingIOError:
            raise TracerError(f"the tracing helper (process {self._pid}) does not answer") from None
        except (OSError, ValueError) as failure:
            raise TracerError(
                f"the tracing helper (process {self._pid}) is gone: {failure}; "
                "nothing more is recorded in this run"
            ) from failure
        if error is not None:
            raise TracerError(error)
        assert isinstance(values, dict)
        return values

    def close(self) -> None:
        """Let the helper end, with everything it started; do nothing if it has."""
        if posix.getpid() == self._owner and self._connection.fileno() >= 0:
            with Shield():
                self.request("goodbye")
        self._connection.close()


def _libraries() -> str:
    """Return the directory that msgspec is in, which the finisher has no site-packages to find."""
    spec = importlib.util.find_spec("msgspec")
    if spec is None or spec.origin is None:
        return ""  # tracing works without; the finisher says what it lacks
    return os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))
