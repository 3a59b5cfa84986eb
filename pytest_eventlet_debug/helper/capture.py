"""The packets of an interface, most often the loopback: the helper's side.

One AF_PACKET socket with a TPACKET_V3 ring serves the whole run, because tools that are
started around a short test lose its packets (libpcap#1495) and closing such a socket
costs 9 to 19 ms. Recordings come and go, several at once if need be; each takes from
the ring what arrives from its start on.

Layout of the ring: ``/usr/include/linux/if_packet.h`` and
https://docs.kernel.org/networking/packet_mmap.html.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import struct
import time
from typing import BinaryIO

from pytest_eventlet_debug import __version__
from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.helper.loop import Answer
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.system import files

#: A block holds a packet of 64 KiB and not two, so two fillers close any block.
BLOCK_BYTES = 1 << 17
BLOCKS = 512

#: Milliseconds after which the kernel hands over a block that is not full.
RETIRE_MILLISECONDS = 4

#: Seconds in which the kernel hands over what came on an interface without sentinels.
SETTLE_SECONDS = 5 * RETIRE_MILLISECONDS / 1000

#: Seconds for a sentinel to come through the ring; it takes well under a millisecond.
SENTINEL_SECONDS = 2.0

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_PACKET_IGNORE_OUTGOING = 23
_SO_ATTACH_FILTER = 26
_TPACKET_V3 = 2
_ETH_P_ALL = 3
_PACKET_OUTGOING = 4

_BLOCK_HEAD = struct.Struct("=3I")  # status, packets, offset of the first; at byte 8
_FRAME_HEAD = struct.Struct("=6IH")  # next, seconds, ns, captured, length, status, mac
_PACKET_TYPE_AT = 48 + 10  # sll_pkttype of the sockaddr_ll behind a tpacket3_hdr

_ARPHRD_ETHER = 1
_ARPHRD_LOOPBACK = 772
_ARPHRD_NONE = 65534
_LINKTYPES = {
    _ARPHRD_ETHER: pcapng.LINKTYPE_ETHERNET,
    _ARPHRD_LOOPBACK: pcapng.LINKTYPE_ETHERNET,
    _ARPHRD_NONE: pcapng.LINKTYPE_RAW,
}

_PAYLOAD_AT = 14 + 20 + 8  # behind the headers of Ethernet, IPv4 and UDP
_SENTINEL = b"\x7fpytest-eventlet-debug sentinel\n"
_FILLER = b"\0" * (65507 - len(_SENTINEL) - 8)


class Capture:
    """The packet socket, and what is being recorded from it."""

    def __init__(self, loop: Loop) -> None:
        """Open nothing yet; packets will come through *loop*."""
        self._loop = loop
        self._socket: socket.socket | None = None
        self._claimed: socket.socket | None = None
        self._recordings: dict[int, _Recording] = {}
        self._endings: dict[bytes, tuple[int, Answer, int]] = {}
        self._block = 0
        self._received = 0
        self._dropped = 0
        self._interface = ""
        self._linktype = pcapng.LINKTYPE_ETHERNET
        self._loops = True

    def claim(self, answer: Answer, *, interface: str) -> None:
        """Find out what can be known without a ring, which takes its time; answer as for open."""
        try:
            _hardware(interface)
            if self._socket is None and self._claimed is None:
                self._claimed = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        except OSError as error:
            answer(errno=error.errno or errno.EIO, words=str(error))
        else:
            answer(errno=0, words="")

    def open(self, answer: Answer, *, interface: str, expression: str | None) -> None:
        """Open the socket, unless it is open; answer with ``errno`` 0 or why not.

        :param interface: its name, such as ``lo``.
        :param expression: what to capture, in the language of ``pcap-filter(7)``; ``None``
            for everything.
        """
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
        answer: Answer,
        *,
        number: int,
        directory: str,
        nodeid: str,
        since_ns: int,
        interface: str,
        expression: str | None,
    ) -> None:
        """Record what arrives from *since_ns* on into a file in *directory*."""
        self._open(interface, expression)
        self._count()
        recording = _Recording(
            directory, nodeid, since_ns, self._received, self._dropped, interface, self._linktype
        )
        self._recordings[number] = recording
        answer()

    def pause(self, answer: Answer, *, number: int, until_ns: int) -> None:
        """Leave out what arrives after *until_ns*."""
        self._recordings[number].spans[-1][1] = until_ns
        answer()

    def resume(self, answer: Answer, *, number: int, since_ns: int) -> None:
        """Record again what arrives from *since_ns* on."""
        self._recordings[number].spans.append([since_ns, _FOREVER])
        answer()

    def stop(self, answer: Answer, *, number: int) -> None:
        """Take in every packet that was sent so far; answer when the file is complete."""
        if number not in self._recordings:
            answer("the capture does not know this recording")
            return
        self._drain()
        token = os.urandom(8)
        if not self._loops:
            # Nothing of ours may go out to a real network: what was sent is handed over soon.
            alarm = self._loop.call_later(SETTLE_SECONDS, lambda: self._settled(token))
            self._endings[token] = (number, answer, alarm)
            return
        alarm = self._loop.call_later(SENTINEL_SECONDS, lambda: self._end(token, late=True))
        self._endings[token] = (number, answer, alarm)
        try:
            self._send_sentinel(token)
        except OSError as error:
            self._end(token, error)

    def _settled(self, token: bytes) -> None:
        self._drain()
        self._end(token)

    def abandon(self) -> list[str]:
        """Take in what has come, close the files, and return their directories."""
        if self._socket is None:
            return []
        self._drain()
        self._count()
        directories = []
        for recording in self._recordings.values():
            received = self._received - recording.received_before
            recording.end(received, self._dropped - recording.dropped_before)
            directories.append(recording.directory)
        self._recordings.clear()
        return directories

    def close(self) -> None:
        """Close the files as they are, and the socket."""
        for recording in self._recordings.values():
            recording.close()
        self._recordings.clear()
        for _, _, alarm in self._endings.values():
            self._loop.cancel(alarm)
        self._endings.clear()
        if self._claimed is not None:
            self._claimed.close()
            self._claimed = None
        if self._socket is not None:
            self._loop.unwatch(self._socket.fileno())
            self._ring.close()
            self._socket.close()
            self._socket = None

    def _open(self, interface: str, expression: str | None) -> None:
        if self._socket is not None:
            return
        hardware = _hardware(interface)
        self._interface = interface
        self._loops = hardware == _ARPHRD_LOOPBACK
        self._linktype = (
            pcapng.LINKTYPE_RAW if hardware == _ARPHRD_NONE else pcapng.LINKTYPE_ETHERNET
        )
        # Protocol 0 keeps packets of other interfaces out until bind() has named one.
        packets = self._claimed or socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self._claimed = None
        try:
            packets.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            frames = BLOCKS * BLOCK_BYTES // 2048
            ring = (BLOCK_BYTES, BLOCKS, 2048, frames, RETIRE_MILLISECONDS, 0, 0)
            packets.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("=7I", *ring))
            if self._loops:
                try:
                    packets.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
                except OSError:
                    pass  # before Linux 4.20; _drain() leaves them out too
            self._ring = mmap.mmap(packets.fileno(), BLOCK_BYTES * BLOCKS)
            # strace is started from here; without the ring's page tables that is faster.
            self._ring.madvise(mmap.MADV_DONTFORK)
            if self._loops:
                self._sentinels = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                self._sentinels.setblocking(False)
                self._sentinels.bind(("127.0.0.1", 0))
                self._sentinels.connect(self._sentinels.getsockname())
            if expression is not None:
                if self._loops:
                    port = self._sentinels.getsockname()[1]
                    expression = f"({expression}) or (udp port {port} and host 127.0.0.1)"
                # ctypes is slow to import, and few want a filter.
                from pytest_eventlet_debug.helper.packet_filter import compile_filter

                program = compile_filter(expression, self._linktype)
                packets.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program.option)
            packets.bind((interface, _ETH_P_ALL))
        except BaseException:
            packets.close()
            raise
        self._block = 0
        self._socket = packets
        self._loop.watch(packets.fileno(), self._drain)

    def _send_sentinel(self, token: bytes) -> None:
        """Send a datagram that marks the end, and more that push it through the ring."""
        self._sentinels.send(_SENTINEL + token)
        try:
            # The kernel closes a block when the next packet does not fit: no need to
            # wait for the time after which it would hand over a block half full.
            self._sentinels.send(_SENTINEL + bytes(8) + _FILLER)
            self._sentinels.send(_SENTINEL + bytes(8) + _FILLER)
        except OSError:
            pass  # a small send buffer: a few milliseconds more
        try:
            while self._sentinels.recv(1):
                pass
        except OSError:
            pass  # the queue is empty

    def _drain(self) -> None:
        """Hand each packet that the kernel has released to the recordings."""
        ring = self._ring
        while True:
            base = self._block * BLOCK_BYTES
            status, packets, offset = _BLOCK_HEAD.unpack_from(ring, base + 8)
            if not status & 1:  # TP_STATUS_USER
                return
            ended = []
            if self._recordings:
                at = base + offset
                for _ in range(packets):
                    following, seconds, nanoseconds, captured, length, _, mac = (
                        _FRAME_HEAD.unpack_from(ring, at)
                    )
                    if ring[at + _PACKET_TYPE_AT] != _PACKET_OUTGOING or not self._loops:
                        data = ring[at + mac : at + mac + captured]
                        if self._loops and data.startswith(_SENTINEL, _PAYLOAD_AT):
                            token_at = _PAYLOAD_AT + len(_SENTINEL)
                            ended.append(data[token_at : token_at + 8])
                            if ended[-1] in self._endings:
                                self._recordings[self._endings[ended[-1]][0]].finish()
                        else:
                            time_ns = seconds * 1_000_000_000 + nanoseconds
                            for recording in self._recordings.values():
                                recording.take(time_ns, data, length)
                    at += following
                for recording in self._recordings.values():
                    recording.flush()
            ring[base + 8 : base + 12] = b"\0\0\0\0"  # TP_STATUS_KERNEL: back to the kernel
            self._block = (self._block + 1) % BLOCKS
            for token in ended:
                self._end(token)

    def _end(self, token: bytes, error: OSError | None = None, *, late: bool = False) -> None:
        """Complete the files of the recording whose sentinel has that token."""
        if token not in self._endings:
            return  # a filler, or the sentinel of another helper
        number, answer, alarm = self._endings.pop(token)
        self._loop.cancel(alarm)
        recording = self._recordings.pop(number)
        self._count()
        dropped = self._dropped - recording.dropped_before
        recording.end(self._received - recording.received_before, dropped)
        problem = recording.problem
        if problem is None and error is not None:
            problem = f"{CAPTURE_FILE} may lack its last packets: no sentinel over lo ({error})"
        if problem is None and late:
            problem = (
                f"{CAPTURE_FILE} may lack its last packets: the sentinel did not come "
                f"through lo within {SENTINEL_SECONDS:g} s"
            )
        if problem is None and dropped:
            problem = f"{CAPTURE_FILE} lacks {dropped} packets the kernel dropped"
        answer(problem)

    def _count(self) -> None:
        assert self._socket is not None
        # Reading the counters sets them to zero.
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        received, dropped, _ = struct.unpack("=3I", raw)
        self._received += received
        self._dropped += dropped


def _hardware(interface: str) -> int:
    """Return the kind of an interface, an ``ARPHRD_`` number of ``if_arp.h``.

    :raises OSError: there is no such interface, or its packets cannot be written down.
    """
    try:
        with open(f"/sys/class/net/{interface}/type") as file:
            hardware = int(file.read())
    except (OSError, ValueError):
        # /sys may be that of another network namespace, or not there at all.
        if interface not in [name for _, name in socket.if_nameindex()]:
            raise OSError(errno.ENODEV, f"there is no interface {interface}") from None
        return _ARPHRD_LOOPBACK if interface == "lo" else _ARPHRD_ETHER
    if hardware not in _LINKTYPES:
        raise OSError(errno.EAFNOSUPPORT, f"{interface} is no Ethernet")
    return hardware


_FOREVER = 1 << 63


class _Recording:
    """The file of one recording."""

    def __init__(
        self,
        directory: str,
        nodeid: str,
        since_ns: int,
        received: int,
        dropped: int,
        interface: str,
        linktype: int,
    ) -> None:
        self.directory = directory
        self.spans = [[since_ns, _FOREVER]]
        self.received_before = received
        self.dropped_before = dropped
        self.problem: str | None = None
        self._finished = False
        self._blocks: list[bytes] = []
        application = f"pytest-eventlet-debug {__version__}"
        begin = pcapng.section(nodeid, application) + pcapng.interface(interface, linktype)
        self._blocks.append(begin)
        fd = files.create(os.path.join(directory, CAPTURE_FILE))
        self._file: BinaryIO = open(fd, "wb", buffering=0)  # noqa: SIM115, open for long
        self.flush()

    def take(self, time_ns: int, data: bytes, length: int) -> None:
        if self._finished:
            return
        for first, last in self.spans:
            if first <= time_ns <= last:
                self._blocks.append(pcapng.packet(time_ns, data, length))
                return

    def finish(self) -> None:
        """Take nothing more: what comes now was sent after the end."""
        self._finished = True

    def flush(self) -> None:
        if self._blocks and self.problem is None:
            try:
                whole = memoryview(b"".join(self._blocks))
                while whole:
                    whole = whole[self._file.write(whole) :]
            except OSError as error:
                self.problem = f"the capture is incomplete: {error}"
        self._blocks.clear()

    def end(self, received: int, dropped: int) -> None:
        self._blocks.append(pcapng.statistics(time.time_ns(), received, dropped))
        self.flush()
        self.close()

    def close(self) -> None:
        self._file.close()
