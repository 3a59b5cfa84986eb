"""The packets of an interface, most often the loopback, out of a ring that the kernel fills.

Layout of the ring, TPACKET_V3: ``/usr/include/linux/if_packet.h`` and
https://docs.kernel.org/networking/packet_mmap.html.
"""

from __future__ import annotations

import _socket
from collections.abc import Iterator
import errno
import mmap
import struct

from pytest_eventlet_debug.recordings import pcapng

#: A block holds a packet of 64 KiB and not two, so two fillers close any block.
BLOCK_BYTES = 1 << 17
BLOCKS = 512

#: Milliseconds after which the kernel hands over a block that is not full.
RETIRE_MILLISECONDS = 4

_SOL_PACKET = 263
_PACKET_RX_RING = 5
_PACKET_STATISTICS = 6
_PACKET_VERSION = 10
_PACKET_IGNORE_OUTGOING = 23
_SO_ATTACH_FILTER = 26
_SO_TIMESTAMPNS = 35
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

#: When a packet was sent, nanoseconds since the epoch; its bytes; how many it had on the wire.
Packet = tuple[int, bytes, int]


class PacketRing:
    """One AF_PACKET socket, open as long as this is.

    :ivar linktype: a ``LINKTYPE_`` number of :mod:`pcapng`.
    :ivar received: packets so far, as of the last :meth:`count`.
    :ivar dropped: those for which there was no room, as of the last :meth:`count`.
    :ivar blocks: blocks that the kernel has handed over.
    """

    def __init__(
        self, interface: str, expression: str | None, claimed: _socket.socket | None = None
    ) -> None:
        """Open the socket, which takes 20 ms, in which the kernel waits for other CPUs.

        :param interface: its name, such as ``lo``.
        :param expression: what to capture, in the language of ``pcap-filter(7)``; ``None``
            for everything.
        :param claimed: what :func:`claim` returned.
        :raises OSError: there is no such interface, or no right to capture.
        :raises ValueError: the expression cannot be compiled.
        :raises ImportError: there is nothing to compile it.
        """
        self.received = 0
        self.dropped = 0
        self.blocks = 0
        packets = claimed or claim(interface)
        try:
            hardware = _hardware(interface)
            self._loops = hardware == _ARPHRD_LOOPBACK
            self.linktype = _LINKTYPES[hardware]
            packets.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            frames = BLOCKS * BLOCK_BYTES // 2048
            ring = (BLOCK_BYTES, BLOCKS, 2048, frames, RETIRE_MILLISECONDS, 0, 0)
            packets.setsockopt(_SOL_PACKET, _PACKET_RX_RING, struct.pack("=7I", *ring))
            if self._loops:
                try:
                    packets.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
                except OSError:
                    pass  # before Linux 4.20; _packets() leaves them out too
            self._ring = mmap.mmap(packets.fileno(), BLOCK_BYTES * BLOCKS)
            # strace is started from here; without the ring's page tables that is faster.
            self._ring.madvise(mmap.MADV_DONTFORK)
            # So the kernel stamps packets as they are sent, not as it comes round to them.
            packets.setsockopt(_socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            if expression is not None:
                # ctypes is slow to import, and few want a filter.
                from pytest_eventlet_debug.helper.packet_filter import compile_filter

                program = compile_filter(expression, self.linktype)
                packets.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, program.option)
            packets.bind((interface, _ETH_P_ALL))
        except BaseException:
            packets.close()
            raise
        self._socket = packets

    def fileno(self) -> int:
        """Return the descriptor that is ready when there are packets."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give up the ring."""
        self._ring.close()
        self._socket.close()

    def ready(self) -> Iterator[Iterator[Packet]]:
        """Yield the packets of each block that the kernel has handed over, and give it back.

        What is not taken of a block before the next is lost.
        """
        ring = self._ring
        while True:
            base = self.blocks % BLOCKS * BLOCK_BYTES
            status, packets, offset = _BLOCK_HEAD.unpack_from(ring, base + 8)
            if not status & 1:  # TP_STATUS_USER
                return
            yield self._packets(base + offset, packets)
            # So that a block which the kernel has not begun is seen to have no packets.
            ring[base + 12 : base + 16] = b"\0\0\0\0"
            ring[base + 8 : base + 12] = b"\0\0\0\0"  # TP_STATUS_KERNEL: back to the kernel
            self.blocks += 1

    def _packets(self, at: int, count: int) -> Iterator[Packet]:
        ring = self._ring
        for _ in range(count):
            following, seconds, nanoseconds, captured, length, _, mac = _FRAME_HEAD.unpack_from(
                ring, at
            )
            if ring[at + _PACKET_TYPE_AT] != _PACKET_OUTGOING or not self._loops:
                time_ns = seconds * 1_000_000_000 + nanoseconds
                yield time_ns, ring[at + mac : at + mac + captured], length
            at += following

    @property
    def is_filling(self) -> bool:
        """Whether there are packets that the kernel has not handed over."""
        base = self.blocks % BLOCKS * BLOCK_BYTES
        return bool(_BLOCK_HEAD.unpack_from(self._ring, base + 8)[1])

    def count(self) -> None:
        """Ask the kernel how many packets there were since the last time."""
        # Reading the counters sets them to zero.
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 12)
        received, dropped, _ = struct.unpack("=3I", raw)
        self.received += received
        self.dropped += dropped


def claim(interface: str) -> _socket.socket:
    """Find out what can be known without a ring; return a socket for one.

    :raises OSError: as :class:`PacketRing` does.
    """
    _hardware(interface)
    # Protocol 0 keeps packets of other interfaces out until bind() has named one.
    return _socket.socket(_socket.AF_PACKET, _socket.SOCK_RAW, 0)


def _hardware(interface: str) -> int:
    """Return the kind of an interface, an ``ARPHRD_`` number of ``if_arp.h``.

    :raises OSError: there is no such interface, or its packets cannot be written down.
    """
    try:
        with open(f"/sys/class/net/{interface}/type") as file:
            hardware = int(file.read())
    except (OSError, ValueError):
        # /sys may be that of another network namespace, or not there at all.
        if interface not in [name for _, name in _socket.if_nameindex()]:
            raise OSError(errno.ENODEV, f"there is no interface {interface}") from None
        return _ARPHRD_LOOPBACK if interface == "lo" else _ARPHRD_ETHER
    if hardware not in _LINKTYPES:
        raise OSError(errno.EAFNOSUPPORT, f"{interface} is not an Ethernet interface")
    return hardware
