"""The helper process that lives beside a test process: its commands, its life and its end.

It runs in a fresh interpreter without site-packages, so nothing here may import pytest,
eventlet or what is slow to import. One thread waits in ``poll()`` for requests, for what
strace says and how it ends, for packets, and for the death of the test process. With
that, or when the other end of its control socket is closed, it stops what it started
and exits.

:mod:`~pytest_eventlet_debug.helper.messages` says how requests and answers are sent.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
from collections.abc import Sequence
import contextlib
import fcntl
import json
import os
import signal
import struct
import sys
import time
from typing import Any

from pytest_eventlet_debug.artifact_names import COMPLETION_LOCK
from pytest_eventlet_debug.artifact_names import TEST_FILE
from pytest_eventlet_debug.helper.attachment import Attachment
from pytest_eventlet_debug.helper.capture import Capture
from pytest_eventlet_debug.helper.finishing import Finishing
from pytest_eventlet_debug.helper.loop import Answer
from pytest_eventlet_debug.helper.loop import Complaint
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.loop import Outbox
from pytest_eventlet_debug.helper.loop import Reply
from pytest_eventlet_debug.helper.messages import MESSAGE_BYTES
from pytest_eventlet_debug.helper.messages import NO_ANSWER
from pytest_eventlet_debug.helper.messages import requests
from pytest_eventlet_debug.helper.profiles import Profiles
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system.open_descriptors import OpenDescriptors

#: Seconds that strace has for the end of the test process.
_LAST_WORDS_SECONDS = 1.0

#: Seconds that completing recordings may take after the test process has died.
_COMPLETION_SECONDS = 10.0

#: The same where the run has been killed, too, and nobody waits for them.
_ABANDONED_SECONDS = 3.0

_RIGHTS_BYTES = _socket.CMSG_SPACE(struct.calcsize("i"))


class HelperProcess:
    """Serves one test process until that ends."""

    def __init__(self, control: _socket.socket, tracee: int, libraries: Sequence[str]) -> None:
        """Serve the requests that come over *control* about the process *tracee*.

        :param libraries: the directories of what the finisher imports.
        """
        self._control = control
        self._outbox = Outbox(control)
        self._tracee = tracee
        self._loop = Loop()
        self._capture = Capture(self._loop)
        self._profiles = Profiles()
        self._finishing = Finishing(self._loop, libraries, self._capture, self._profiles)
        self._attachment = Attachment(self._loop, tracee, self._finishing.complain)
        self._descriptors = OpenDescriptors(f"/proc/{tracee}/fd")
        self._completing = False
        self._is_awaited = False
        self._died_ns = 0
        self._pidfd = -1
        self._letting_go: int | None = None
        self._lock: int | None = None
        self._parent = _parent(tracee)
        self._commands: dict[str, Callable[..., None]] = {
            "hello": self._hello,
            "be-awaited": self._be_awaited,
            "redact": self._finishing.redact,
            "goodbye": self._goodbye,
            "strace-version": self._attachment.ask_version,
            "strace-try": self._attachment.attempt,
            "strace-marks": self._attachment.share_marks,
            "strace-start": self._attachment.start,
            "strace-next": self._attachment.proceed,
            "strace-follows": self._attachment.tell_others,
            "strace-stop": self._attachment.stop,
            "pcap-claim": self._capture.claim,
            "pcap-open": self._capture.open,
            "pcap-start": self._capture.start,
            "pcap-pause": self._capture.pause,
            "pcap-resume": self._capture.resume,
            "pcap-stop": self._capture.stop,
            "announce": self._announce,
            "profile": self._profiles.add,
            "descriptors": self._list_descriptors,
            "discard": self._discard,
            "finish-prepare": self._finishing.prepare,
            "finish": self._finishing.order,
            "finish-wait": self._finishing.wait,
        }

    def serve(self) -> None:
        """Serve until the test process ends or lets go; leave nothing behind."""
        signal.signal(signal.SIGCHLD, _continue_stopped)
        self._loop.watch(self._control.fileno(), self._requests)
        # Children of the test inherit the other end of the control socket, so its end
        # alone does not tell that the test process has died.
        try:
            self._pidfd = os.pidfd_open(self._tracee)
        except ProcessLookupError:
            self._loop.call_later(0, self._died)  # first comes what it has said
        else:
            self._loop.watch(self._pidfd, self._died)
        try:
            self._loop.run()
        finally:
            self._write_down()
            self._capture.close()

    def _died(self) -> None:
        """Let strace write down how the test process ended, for it ends by itself then.

        To interrupt it in the middle of that leaves it waiting, and the dead process with it.
        """
        self._died_ns = time.time_ns()
        self._loop.unwatch(self._pidfd)
        self._loop.cancel(self._letting_go)
        self._attachment.when_ended(self._complete)
        self._loop.call_later(_LAST_WORDS_SECONDS, self._complete)

    def _complete(self) -> None:
        """Complete what tests recorded, the one that ended the process among them."""
        if self._completing:
            return
        self._completing = True
        recorded = (*self._capture.abandon(), *self._profiles.abandon())
        for directory in {*recorded, *self._attachment.directories}:
            self._finishing.add(directory, self._died_ns, alone=not self._is_awaited)
        self._finishing.when_done(self._loop.stop)
        wanted = _lives(self._parent)
        seconds = _COMPLETION_SECONDS if wanted else _ABANDONED_SECONDS
        self._loop.call_later(seconds, self._loop.stop)

    def _requests(self) -> None:
        """Take all that has come: a packet may be of a recording that is just being started."""
        while True:
            try:
                message, rights, _, _ = self._control.recvmsg(
                    MESSAGE_BYTES, _RIGHTS_BYTES, _socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return
            except ConnectionResetError:
                continue  # it has left answers unread; what it sent comes after this
            except OSError:
                message, rights = b"", []
            if not message:
                self._loop.unwatch(self._control.fileno())
                if not self._died_ns:
                    # The process has let go, or is just dying: that is heard of in a moment.
                    self._letting_go = self._loop.call_later(_LAST_WORDS_SECONDS, self._loop.stop)
                return
            with self._outbox.held():
                for sequence, command, arguments, data in requests(message):
                    self._serve(sequence, command, arguments, data, rights)
            self._attachment.settle()

    def _serve(
        self,
        sequence: int,
        command: str,
        arguments: dict[str, Any],
        data: bytes,
        rights: list[tuple[int, int, bytes]],
    ) -> None:
        answer: Reply = Answer(self._outbox, sequence)
        if sequence == NO_ANSWER:
            answer = Complaint(self._finishing.complain)
        if "descriptor" in arguments:
            arguments["descriptor"] = _descriptor(rights)
        elif data or rights:
            arguments["data"] = _content(rights) if rights else data
        try:
            self._commands[command](answer, **arguments)
        except Exception as error:
            answer(f"the tracing helper failed at {command}: {type(error).__name__}: {error}")

    def _hello(self, answer: Answer) -> None:
        answer(pid=os.getpid())

    def _be_awaited(self, answer: Reply, *, path: str) -> None:
        """Let whoever started the test process wait until all is completed, by a lock on a file."""
        self._is_awaited = True
        if self._lock is None:
            with contextlib.suppress(OSError):  # nobody waits where there are no locks
                self._lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                fcntl.lockf(self._lock, fcntl.LOCK_SH | fcntl.LOCK_NB, *COMPLETION_LOCK)

    def _list_descriptors(self, answer: Reply) -> None:
        """Answer with the test process's descriptors and what the kernel calls them.

        It takes a system call for each, and those of the test process may be traced.
        """
        found = self._descriptors.look()
        if not found:
            answer("the descriptors of the test process cannot be seen")
        elif len(json.dumps(found)) > MESSAGE_BYTES // 2:
            answer("the test process has too many descriptors")
        else:
            answer(found=found)

    def _announce(self, answer: Reply, *, directory: str, data: bytes = b"") -> None:
        """Write a first ``test.json``, unless the test has ended already."""
        try:
            files.write_new(f"{directory}/{TEST_FILE}", data)
        except FileExistsError:
            pass
        except OSError as error:
            answer(f"{directory}/{TEST_FILE} cannot be written: {error.strerror}")

    def _discard(self, answer: Reply, *, directory: str) -> None:
        self._profiles.forget(directory)
        try:
            files.remove(directory)
        except OSError as error:
            answer(f"{directory} cannot be deleted: {error.strerror}")

    def _goodbye(self, answer: Answer) -> None:
        self._loop.stop()
        self._write_down()
        answer()  # to close the packet socket takes 20 ms, and nobody needs to wait for that

    def _write_down(self) -> None:
        """End what goes on, and write down what is in memory."""
        self._capture.write_down()
        self._attachment.close()
        self._finishing.close()
        self._profiles.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _descriptor(rights: list[tuple[int, int, bytes]]) -> int:
    """Return the descriptor that came with a message."""
    (fd,) = struct.unpack("i", rights[0][2][: struct.calcsize("i")])
    return int(fd)


def _content(rights: list[tuple[int, int, bytes]]) -> bytes:
    """Return what is in a file in memory that came with a message."""
    with open(_descriptor(rights), "rb") as file:
        file.seek(0)
        return file.read()


def _continue_stopped(number: int, frame: object) -> None:
    """Let a strace or a finisher go on that somebody has stopped; a test would stand still."""
    with contextlib.suppress(OSError):
        while stopped := os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WNOHANG):
            os.kill(stopped.si_pid, signal.SIGCONT)


def _parent(pid: int) -> int:
    """Return the parent of a process, 0 if that cannot be known."""
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _lives(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[0] not in (b"Z", b"X")


def _stat(pid: int) -> list[bytes]:
    """Return what ``/proc`` says of a process from its state on, see proc(5)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []


def main(control: str, tracee: str, *libraries: str) -> None:
    """Become the helper of the process *tracee*, in a session of its own.

    :param control: the number of an inherited ``SOCK_SEQPACKET`` socket.
    :param tracee: the test process's id.
    :param libraries: the directories of what the finisher imports.
    """
    control_fd = int(control)
    if os.fork():
        os._exit(0)  # the leader of a session could get a terminal
    os.chdir("/")
    os.umask(0o077)  # what strace and the finisher write is for their owner alone
    # Whatever else was inheritable is somebody's pipe: `pytest | cat` must end.
    files.close_all_but({0, 1, 2, control_fd})
    os.set_inheritable(control_fd, False)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        # Ctrl-C and its kin are for the tests; we end when they have.
        signal.signal(number, signal.SIG_IGN)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET, 0, control_fd)
    try:
        HelperProcess(connection, int(tracee), libraries).serve()
    finally:
        sys.stdout = sys.stderr = None
        os._exit(0)
