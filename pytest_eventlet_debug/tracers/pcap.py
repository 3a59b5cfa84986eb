"""Record the packets that a test sends over a network interface, most often the loopback."""

from __future__ import annotations

import _socket
from collections.abc import Callable
import errno
import itertools
import os
from pathlib import Path
import posix
import sys

from pytest_eventlet_debug import fallbacks
from pytest_eventlet_debug.artifact_names import KEYS_FILE
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracer_registry import PCAP_FILTER
from pytest_eventlet_debug.tracer_registry import PCAP_INTERFACE
from pytest_eventlet_debug.tracer_registry import PCAP_LIMIT
from pytest_eventlet_debug.tracers import ports
from pytest_eventlet_debug.tracers import tls_keys
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import PHASES
from pytest_eventlet_debug.tracers.protocol import Phase
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import Tracer
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.protocol import TracerUnavailable

INTERFACE = "lo"

#: Of a longer node id the file keeps the beginning; a request to the helper has limits.
_NODEID_CHARACTERS = 4096

_numbers = itertools.count(1)


class Pcap(Tracer):
    """The packets on an interface, whole and with nanoseconds, as pcapng.

    The helper reads them from a ring that is open all the time, so a test that lasts a
    millisecond has all of its packets. Several instances may record at once. What other
    programs send over it meanwhile is recorded too. The keys of TLS connections that the
    test makes are kept beside the packets.
    """

    name = "pcap"
    default_phases: frozenset[Phase] = frozenset(PHASES)

    def __init__(
        self,
        helper: Helper,
        interface: str = INTERFACE,
        expression: str | None = None,
        limit: int | None = None,
        *,
        isolated: bool = False,
    ) -> None:
        """Record through *helper*; nothing is opened yet.

        :param interface: the network interface.
        :param expression: which packets, in the language of ``pcap-filter(7)``; all by
            default.
        :param limit: bytes of the longest capture that is kept whole; ``None`` for any.
        :param isolated: whether the tests have a network of their own.
        """
        self._helper = helper
        self._isolated = isolated
        self._interface = interface
        self._expression = expression
        self._limit = limit
        self._recording: Recording | None = None
        self._number = 0
        self._has_ring = False
        self._stopping: int | None = None
        self._keys = 0
        self._claimed: int | None = None
        self._opened: int | None = None

    @property
    def version(self) -> str:
        """The kernel's release: its packet sockets do the work."""
        return posix.uname().release

    def warm_up(self, *, trial: bool) -> None:
        """Have the helper open its packet socket; to allocate the ring can take 0.2 s."""
        request = self._helper.begin
        if trial:
            self._claimed = request("pcap-claim", interface=self._interface)
        self._opened = request("pcap-open", interface=self._interface, expression=self._expression)

    def check(self) -> None:
        """Find out whether packets can be captured; where there is a filter, open the socket.

        :raises TracerUnavailable: no packet can be captured on this machine.
        """
        if self._opened is None:
            self.warm_up(trial=True)
        if self._claimed is not None:
            claimed, self._claimed = self._claimed, None
            self._judge(claimed)
        if self._expression is not None:
            self.confirm()

    def confirm(self) -> None:
        """See to it that the packet socket is open.

        :raises TracerUnavailable: it cannot be opened.
        """
        if self._opened is not None:
            opened, self._opened = self._opened, None
            self._judge(opened)

    def _judge(self, request: int) -> None:
        judge(self._helper.end(request), self._interface, self._expression, self._isolated)

    def start(self, recording: Recording) -> None:
        """Record from this moment on."""
        if self._recording is not None:
            raise TracerError(f"pcap records {self._recording.nodeid} already")
        number = next(_numbers)
        if not tls_keys.install() and "ssl" in sys.modules:
            fallbacks.warn(
                "TLS connections cannot be decrypted: how to get their keys from this build of "
                f"Python {sys.version.partition(' ')[0]} is not known"
            )
        ports.begin()
        # Once the ring is there, a test need not wait: its packets are known by their times.
        start = self._helper.post if self._has_ring else self._helper.request
        start(
            "pcap-start",
            number=number,
            directory=str(recording.directory),
            nodeid=recording.nodeid[:_NODEID_CHARACTERS],
            since_ns=unpatched.time_ns(),
            interface=self._interface,
            expression=self._expression,
            limit=self._limit,
        )
        self._has_ring = True
        self._number = number
        self._recording = recording
        self._keys = tls_keys.begin()

    def pause(self) -> None:
        """Leave out the packets from now on."""
        if self._recording is not None:
            self._helper.request("pcap-pause", number=self._number, until_ns=unpatched.time_ns())

    def resume(self) -> None:
        """Record again from now on."""
        if self._recording is not None:
            self._helper.request("pcap-resume", number=self._number, since_ns=unpatched.time_ns())

    def begin_stop(self) -> None:
        """Leave out the packets from now on."""
        if self._recording is not None and self._stopping is None:
            until_ns = unpatched.time_ns()
            self._stopping = self._helper.begin("pcap-stop", number=self._number, until_ns=until_ns)

    def stop(self) -> None:
        """End the recording; all that was sent before will be in it.

        The file is written when the test is completed, and only if there is a packet in it.

        :raises TracerError: packets are missing. What could be captured is in the file
            all the same, and the number of packets dropped in ``capture.pcapng``.
        """
        if self._recording is None:
            return
        keys = tls_keys.end(self._keys)
        try:
            if keys:
                _write(self._recording.directory / KEYS_FILE, keys)
        finally:
            self._end()

    def _end(self) -> None:
        try:
            self.begin_stop()
        finally:
            stopping, self._recording, self._stopping = self._stopping, None, None
        assert stopping is not None
        self._helper.end(stopping)


def _write(path: Path, data: bytes) -> None:
    """Write the keys beside the packets.

    :raises TracerError: it cannot be written.
    """
    try:
        files.replace(path, data)
    except OSError as error:
        raise TracerError(f"the TLS keys cannot be written: {error}") from error


def prepare(settings: Settings) -> None:
    """Gather TLS keys, and the ports used where nothing else tells whose a packet is."""
    tls_keys.install()
    if not ("strace" in settings.tracer_names or settings.isolate):
        ports.install()


def make(settings: Settings, start_helper: Callable[[], Helper]) -> Pcap:
    """Return a tracer of the interface and the packets that the options name."""
    return Pcap(
        start_helper(),
        settings.value(PCAP_INTERFACE),
        settings.value(PCAP_FILTER),
        settings.value(PCAP_LIMIT),
        isolated=settings.isolate,
    )


def judge(
    answer: dict[str, object], interface: str, expression: str | None, isolated: bool
) -> None:
    """Judge what the helper says of opening its packet socket.

    :raises TracerUnavailable: it cannot be opened; says why and what to do.
    """
    reason, words = answer["errno"], answer["words"]
    if not reason:
        return
    if "filter" in answer:
        raise TracerUnavailable(f"--pcap-filter: {expression!r}: {answer['filter']}")
    # Whoever is not root has every right in a network of its own.
    if reason in (errno.EPERM, errno.EACCES) and (isolated or posix.geteuid() == 0):
        raise TracerUnavailable(
            "pcap needs the right to open a packet socket (CAP_NET_RAW), which root does not have "
            "here: run as another user, with --eventlet-isolate, or start the container with it "
            "(`--cap-add NET_RAW`)"
        )
    if reason in (errno.EPERM, errno.EACCES):
        raise TracerUnavailable(
            "pcap needs the right to open a packet socket (CAP_NET_RAW): give the tests a "
            "network of their own with --eventlet-isolate, run as root, or "
            "give it to the interpreter: `setcap cap_net_raw+ep "
            f"{os.path.realpath(sys.executable)}`"
        )
    if interface != INTERFACE and reason in (errno.ENODEV, errno.ENXIO, errno.EAFNOSUPPORT):
        names = ", ".join(sorted(name for _, name in _socket.if_nameindex()))
        raise TracerUnavailable(
            f"--pcap-interface: {interface!r} cannot be captured on ({words}). "
            f"Interfaces here: {names}."
        )
    if reason in (errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT):
        raise TracerUnavailable(
            "pcap needs packet sockets, which this kernel lacks (CONFIG_PACKET; "
            "`modprobe af_packet`)"
        )
    if reason in (errno.ENODEV, errno.ENETDOWN, errno.EADDRNOTAVAIL):
        raise TracerUnavailable(
            f"pcap finds the interface {interface} missing or down ({words}): "
            f"`ip link set {interface} up`"
        )
    raise TracerUnavailable(f"pcap cannot open a packet socket: {words}")
