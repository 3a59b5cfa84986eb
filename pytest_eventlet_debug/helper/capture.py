"""The packets of an interface, most often the loopback: the helper's side.

One AF_PACKET socket with a TPACKET_V3 ring serves the whole run, because tools that are
started around a short test lose its packets (libpcap#1495) and closing such a socket
costs 9 to 19 ms. Recordings come and go, several at once if need be; each takes from the ring
what bears a time between its start and its end.

The test does not wait for its last packets. The kernel stamps a packet when it is sent, so what
belongs to a recording is known however late it comes. A recording is complete once the kernel
has handed over the block of the ring that was being filled at its end.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
import errno
import os
import time

from pytest_eventlet_debug import __version__
from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import test_of
from pytest_eventlet_debug.helper.loop import Answer
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.loop import Reply
from pytest_eventlet_debug.helper.packet_buffer import PacketBuffer
from pytest_eventlet_debug.helper.packet_ring import RETIRE_MILLISECONDS
from pytest_eventlet_debug.helper.packet_ring import PacketRing
from pytest_eventlet_debug.helper.packet_ring import claim
from pytest_eventlet_debug.helper.unwritten import WAITING_BYTES
from pytest_eventlet_debug.helper.unwritten import Unwritten
from pytest_eventlet_debug.recordings import pcapng

#: Seconds after its end in which a recording is completed. On a busy machine a packet may come
#: through the ring some milliseconds after it was sent.
SETTLE_SECONDS = 5 * RETIRE_MILLISECONDS / 1000

#: Seconds after which packets that the kernel has not handed over are given up.
LATEST_SECONDS = 2.0

#: Seconds after which the packets of a test that goes on are in a file.
SAVE_SECONDS = 1.0


class Capture:
    """The packet socket, and what is being recorded from it."""

    def __init__(self, loop: Loop) -> None:
        """Open nothing yet; packets will come through *loop*."""
        self._loop = loop
        self._ring: PacketRing | None = None
        self._claimed: _socket.socket | None = None
        self._running: dict[int, _Recording] = {}
        self._ending: list[_Recording] = []
        self._complete: list[_Recording] = []
        self._settling: int | None = None
        self._saving: int | None = None
        self._on_complete: Callable[[], None] = lambda: None

    def claim(self, answer: Answer, *, interface: str) -> None:
        """Find out what can be known without a ring, which takes its time; answer as for open."""
        try:
            if self._ring is None and self._claimed is None:
                self._claimed = claim(interface)
        except OSError as error:
            answer(errno=error.errno or errno.EIO, words=str(error))
        else:
            answer(errno=0, words="")

    def open(self, answer: Answer, *, interface: str, expression: str | None) -> None:
        """Open the socket, unless it is open; answer with ``errno`` 0 or why not.

        It takes 20 ms, in which the kernel waits for other CPUs. What else has been asked for
        comes first.

        :param interface: its name, such as ``lo``.
        :param expression: what to capture, in the language of ``pcap-filter(7)``; ``None``
            for everything.
        """
        self._loop.call_later(0, lambda: self._open_and_answer(answer, interface, expression))

    def _open_and_answer(self, answer: Answer, interface: str, expression: str | None) -> None:
        try:
            self._open(interface, expression)
        except (ValueError, ImportError) as error:
            answer(errno=errno.EINVAL, words="", filter=str(error))
        except OSError as error:
            answer(errno=error.errno or errno.EIO, words=str(error))
        else:
            answer(errno=0, words="")

    def start(
        self,
        answer: Reply,
        *,
        number: int,
        directory: str,
        nodeid: str,
        since_ns: int,
        interface: str,
        expression: str | None,
        limit: int | None,
    ) -> None:
        """Record what is sent from *since_ns* on, for a file in *directory*.

        :param limit: bytes of the longest file; of more, the middle is left out.
        """
        ring = self._open(interface, expression)
        ring.count()
        self._forget_others(directory)
        begin = pcapng.section(nodeid, f"pytest-eventlet-debug {__version__}")
        begin += pcapng.interface(interface, ring.linktype)
        recording = _Recording(ring, directory, begin, since_ns, limit)
        self._running[number] = recording
        if self._saving is None:
            self._saving = self._loop.call_later(SAVE_SECONDS, self._save)
        answer()

    def pause(self, answer: Answer, *, number: int, until_ns: int) -> None:
        """Leave out what is sent after *until_ns*."""
        self._running[number].leave_out_after(until_ns)
        answer()

    def resume(self, answer: Answer, *, number: int, since_ns: int) -> None:
        """Record again what is sent from *since_ns* on."""
        self._running[number].spans.append([since_ns, _FOREVER])
        answer()

    def stop(self, answer: Answer, *, number: int, until_ns: int) -> None:
        """Record nothing that is sent after *until_ns*; answer with what is missing so far.

        What was sent before and has not come yet is still taken in.
        """
        if number not in self._running:
            answer("the capture does not know this recording")
            return
        recording = self._running.pop(number)
        self._end(recording, until_ns)
        recording.told = recording.problem
        answer(recording.told)

    def keep(self, directory: str) -> None:
        """Keep what was recorded in a test's directory and below until it is taken."""
        for recording in (*self._ending, *self._complete):
            if recording.test == directory:
                recording.kept = True
        self._bound_memory()

    def is_ready(self, directory: str) -> bool:
        """Say whether all that was recorded in a test's directory has come."""
        return all(recording.test != directory for recording in self._ending)

    def when_complete(self, callback: Callable[[], None]) -> None:
        """Call *callback* whenever a recording has become complete."""
        self._on_complete = callback

    def take(self, directory: str) -> tuple[list[Unwritten], list[str]]:
        """Hand over the captures that are for a test's directory, or those of its blocks.

        :return: those that are in no file and have something in them; and what is missing in
            any of them that was not known when it was stopped.
        """
        mine = [recording for recording in self._complete if recording.test == directory]
        self._complete = [each for each in self._complete if each not in mine]
        captures = [
            Unwritten(recording.path, recording.buffer.content())
            for recording in mine
            if recording.in_memory
        ]
        return captures, [line for recording in mine for line in recording.late_problems()]

    def settle(self) -> None:
        """Complete what has ended as far as the kernel has handed it over; somebody waits."""
        if self._ending:
            self._loop.cancel(self._settling)
            self._settle(0.0)

    def abandon(self) -> list[str]:
        """End all recordings, whose process has died; return the directories of their tests."""
        running = list(self._running.values())
        self._running.clear()
        for recording in running:
            self._end(recording, time.time_ns())
        # One that was not to be kept has no directory any more.
        return [
            recording.test
            for recording in (*self._ending, *self._complete)
            if not recording.kept and os.path.isdir(recording.directory)
        ]

    def write_down(self) -> None:
        """End all recordings, and write down what is in memory."""
        running = [*self._running.values()]
        self._running.clear()
        for recording in running:
            self._end(recording, time.time_ns())
            recording.kept = True
        self._drain()
        for recording in self._ending:
            recording.complete()
        for recording in (*self._ending, *self._complete):
            if recording.kept:
                recording.write()
        self._ending, self._complete = [], []
        for alarm in (self._settling, self._saving):
            self._loop.cancel(alarm)

    def close(self) -> None:
        """Write down what is in memory, and close the socket."""
        self.write_down()
        if self._claimed is not None:
            self._claimed.close()
            self._claimed = None
        if self._ring is not None:
            self._loop.unwatch(self._ring.fileno())
            self._ring.close()
            self._ring = None

    def _forget_others(self, directory: str) -> None:
        """Forget what nobody has asked to keep of tests before; it is not to be kept."""
        test = test_of(directory)
        self._complete = [each for each in self._complete if each.kept or each.test == test]

    def _bound_memory(self) -> None:
        """Write down what the finisher, which is far behind, has not taken."""
        waiting = [each for each in self._complete if each.kept and each.in_memory]
        size = sum(each.buffer.in_memory for each in waiting)
        while size > WAITING_BYTES:
            recording = waiting.pop()
            size -= recording.buffer.in_memory
            recording.write()

    def _end(self, recording: _Recording, until_ns: int) -> None:
        recording.leave_out_after(until_ns)
        self._ending.append(recording)
        self._drain()
        recording.end()
        if self._settling is None:
            self._settling = self._loop.call_later(SETTLE_SECONDS, self._settle)

    def _settle(self, seconds: float = SETTLE_SECONDS) -> None:
        """Complete recordings that ended *seconds* ago."""
        self._settling = None
        self._drain()
        now = time.monotonic()
        left = []
        for recording in self._ending:
            come = recording.has_come
            given_up = now - recording.ended > LATEST_SECONDS
            if now - recording.ended < seconds or not (come or given_up):
                left.append(recording)
                continue
            if not come:
                recording.is_cut = True
            recording.complete()
            if recording.is_empty:
                continue
            self._complete.append(recording)
        self._ending = left
        self._bound_memory()
        if left:
            self._settling = self._loop.call_later(SETTLE_SECONDS, self._settle)
        self._on_complete()

    def _save(self) -> None:
        """Write down what the tests that go on have sent: it is not to be lost with this."""
        self._saving = None
        for recording in self._running.values():
            if recording.buffer.in_memory:
                recording.buffer.save()
        if self._running:
            self._saving = self._loop.call_later(SAVE_SECONDS, self._save)

    def _open(self, interface: str, expression: str | None) -> PacketRing:
        if self._ring is None:
            claimed, self._claimed = self._claimed, None
            self._ring = PacketRing(interface, expression, claimed)
            self._loop.watch(self._ring.fileno(), self._drain)
        return self._ring

    def _drain(self) -> None:
        """Hand each packet that the kernel has released to the recordings."""
        if self._ring is None:
            return
        for packets in self._ring.ready():
            recordings = (*self._running.values(), *self._ending)
            if recordings:
                for time_ns, data, length in packets:
                    for recording in recordings:
                        recording.take(time_ns, data, length)
                for recording in recordings:
                    recording.buffer.flush()


_FOREVER = 1 << 63


class _Recording:
    """One recording, and when it was.

    :param begin: the blocks that stand before its packets.
    :ivar received: how many packets had been received when it started; at its end, since then.
    :ivar dropped: the same of those that the kernel had no room for.
    """

    def __init__(
        self, ring: PacketRing, directory: str, begin: bytes, since_ns: int, limit: int | None
    ) -> None:
        self._ring = ring
        self.directory = directory
        self.test = test_of(directory)
        self.spans = [[since_ns, _FOREVER]]
        self.received = ring.received
        self.dropped = ring.dropped
        self.ended = 0.0
        self._blocks = 0
        self.kept = False
        self.path = os.path.join(directory, CAPTURE_FILE)
        self.buffer = PacketBuffer(self.path, begin, limit)
        self.is_cut = False
        self.told: str | None = None

    @property
    def problem(self) -> str | None:
        """What is missing, once it has ended."""
        problem = self.buffer.problem
        if problem is None and self.dropped:
            problem = f"{CAPTURE_FILE} lacks {self.dropped} packets the kernel dropped"
        if problem is None and self.buffer.left_out:
            problem = (
                f"{CAPTURE_FILE} lacks {self.buffer.left_out} packets in its middle: it is longer "
                "than --pcap-limit"
            )
        if problem is None and self.is_cut:
            problem = (
                f"{CAPTURE_FILE} may lack its last packets: they did not come through the ring"
            )
        return problem

    def late_problems(self) -> list[str]:
        """Return what is missing, unless that is what was said when it was stopped."""
        problem = self.problem
        return [] if problem in (None, self.told) else [f"{self.directory}: {problem}"]

    def take(self, time_ns: int, data: bytes, length: int) -> None:
        for first, last in self.spans:
            if first <= time_ns <= last:
                self.buffer.add(pcapng.packet(time_ns, data, length))
                return

    def leave_out_after(self, until_ns: int) -> None:
        self.spans[-1][1] = min(self.spans[-1][1], until_ns)

    def end(self) -> None:
        """Note what the ring, which has just been emptied, says of it."""
        self._ring.count()
        self.received = self._ring.received - self.received
        self.dropped = self._ring.dropped - self.dropped
        self.ended = time.monotonic()
        self._blocks = self._ring.blocks

    @property
    def has_come(self) -> bool:
        """Whether the kernel has handed over all packets from before the end."""
        return self._ring.blocks > self._blocks or not self._ring.is_filling

    def complete(self) -> None:
        """End the capture; a file is closed."""
        self.buffer.end(pcapng.statistics(time.time_ns(), self.received, self.dropped))

    @property
    def is_empty(self) -> bool:
        """Whether there is no packet in it, nor one missing."""
        return not self.buffer.packets and self.problem is None

    @property
    def in_memory(self) -> bool:
        """Whether there is something in it that is in no file."""
        return not self.buffer.in_file and not self.is_empty

    def write(self) -> None:
        """Write down what is in memory."""
        if self.in_memory:
            self.buffer.save()
            self.buffer.close()
