"""Lay all that was recorded of a test on one clock: one row after the other.

Phases (``test.json``), system calls, signals and threads (``strace.txt``), packets
(``capture.pcapng``) and dumps of tasks and greenthreads carry CLOCK_REALTIME, so their
order is that of their times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import heapq
from pathlib import Path

from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_records import TestRecord
from pytest_eventlet_debug.artifact_records import read_test
from pytest_eventlet_debug.phrasing import span
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.attribution import Call
from pytest_eventlet_debug.recordings.findings.call_names import STARTS
from pytest_eventlet_debug.recordings.own_work import without_own_work
from pytest_eventlet_debug.recordings.packets import ACK
from pytest_eventlet_debug.recordings.packets import FIN
from pytest_eventlet_debug.recordings.packets import PSH
from pytest_eventlet_debug.recordings.packets import RST
from pytest_eventlet_debug.recordings.packets import SYN
from pytest_eventlet_debug.recordings.packets import Dissected
from pytest_eventlet_debug.recordings.packets import Segment
from pytest_eventlet_debug.recordings.packets import dissected
from pytest_eventlet_debug.recordings.pcapng import PcapngError
from pytest_eventlet_debug.recordings.pcapng import read
from pytest_eventlet_debug.recordings.rows import Kind
from pytest_eventlet_debug.recordings.rows import Row
from pytest_eventlet_debug.recordings.rows import Timeline
from pytest_eventlet_debug.recordings.rows import lay_out
from pytest_eventlet_debug.recordings.rows import when
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.strace_log import Unread
from pytest_eventlet_debug.recordings.strace_log import is_traced
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Signal
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import Unparsed

#: Rows of a trace that are kept, half from its beginning and half from its end.
MAX_ROWS = 200_000

#: Packets from several CPUs may come out of order by a few.
_WINDOW = 64

_FLAGS = ((SYN, "SYN"), (FIN, "FIN"), (RST, "RST"), (PSH, "PSH"), (ACK, "ACK"))


def read_timeline(directory: Path) -> Timeline:
    """Read a test's directory. What is not there or broken is left out and mentioned."""
    test = read_test(directory) or read_test(directory.parent)  # it may be a block's
    trace = read_trace(directory)
    packets = Ends()
    problems = _read_packets(directory / CAPTURE_FILE, trace.calls, packets)
    return trace.timeline(directory, test, packets, problems)


def _read_packets(path: Path, calls: Attribution, rows: Ends) -> list[str]:
    """Add the packets of a capture to *rows*; return what could not be read of it."""
    if not packing.is_there(path):
        return []
    try:
        for found in in_order(dissected(read(path))):
            rows.add(packet_row(found, sender(found, calls)))
    except PcapngError as error:
        return [f"{path.name}: {error}"]
    return []


def read_trace(
    directory: Path, watch: Callable[[Iterable[Event]], Iterable[Event]] = iter
) -> Trace:
    """Read the trace in a test's directory, as :func:`read_timeline` does; it may be none.

    :param watch: passes the events on, to see them on their way.
    """
    trace = Trace()
    trace.problems += _read_log(directory, lambda events: trace.take(watch(events)))
    return trace


def pass_trace(directory: Path, watch: Callable[[Iterable[Event]], Iterable[Event]]) -> list[str]:
    """Let *watch* see the trace in a directory, if there is one, and keep no rows of it.

    :return: what could not be read, a line each.
    """
    # A deque that keeps nothing is the fastest way to the end of an iterator.
    return _read_log(directory, lambda events: deque(watch(events), maxlen=0))


def _read_log(directory: Path, take: Callable[[Iterable[Event]], object]) -> list[str]:
    if is_traced(directory):
        try:
            with open_log(directory / STRACE_FILE) as log:
                take(without_own_work(parse(log)))
        except StraceLogError as error:
            return [f"{STRACE_FILE}: {error}"]
    return []


class Ends:
    """The rows of a beginning and of an end.

    :param limit: how many rows are kept.
    """

    def __init__(self, limit: int = MAX_ROWS) -> None:
        self.left_out = 0
        self._first: list[Row] = []
        self._last: deque[Row] = deque(maxlen=max(limit // 2, 1))

    def add(self, row: Row) -> None:
        half = self._last.maxlen or 1
        if len(self._first) < half:
            self._first.append(row)
        else:
            self.left_out += len(self._last) == half
            self._last.append(row)

    def rows(self) -> list[Row]:
        """Return those that are kept, in the order in which they were added."""
        return [*self._first, *self._last]


class Trace:
    """The rows of a trace, and its socket calls.

    ``problems`` says what could not be read.

    :param limit: how many rows are kept; the socket calls are all kept.
    """

    def __init__(self, limit: int = MAX_ROWS) -> None:
        self.calls = Attribution()
        self.problems: list[str] = []
        self._unread = Unread()
        self._ends = Ends(limit)
        self._processes: dict[int, int] = {}

    def take(self, events: Iterable[Event]) -> None:
        """Take in the events of a log."""
        add = self._ends.add
        for event in events:
            if type(event) is Syscall:
                self.calls.add(event)
            row = self._row(event)
            if row is not None:
                add(row)

    @property
    def left_out(self) -> int:
        """How many rows in the middle are not kept."""
        return self._ends.left_out

    def rows(self) -> list[Row]:
        """Return the rows in the order of their times."""
        return sorted(self._ends.rows(), key=when)

    def timeline(
        self, directory: Path, test: TestRecord | None, packets: Ends, unread: Iterable[str]
    ) -> Timeline:
        """Return the timeline of a test or of a block.

        :param directory: where it is recorded.
        :param packets: the rows of its capture.
        :param unread: what could not be read of that.
        """
        problems = [*self.problems, *unread]
        foreign = self._unread.describe()
        if foreign is not None:
            problems.insert(0, f"{STRACE_FILE}: {foreign}")
        left_out = self.left_out + packets.left_out
        return lay_out(directory, test, self.rows(), packets.rows(), problems, left_out)

    def _row(self, event: Event) -> Row | None:
        if type(event) is Syscall:
            process = self._processes.get(event.pid, event.pid)
            if event.name in STARTS and event.value:
                shares = "CLONE_THREAD" in event.args
                self._processes[event.value] = process if shares else event.value
            return Row(
                event.start_ns,
                "syscall",
                _written(event),
                event.pid,
                process,
                event.greenthread,
                event.duration_ns,
                event.line,
                event.name,
                event.errno is not None,
                None,
                event.at,
            )
        if type(event) is Switch:
            text = f"greenthread {event.greenthread} runs"
            return self._of(event, event.time_ns, "switch", text, event.greenthread)
        if type(event) is Phase:
            # The times in test.json are the session's; a mark is the tracer's beginning.
            return None
        if type(event) is Signal:
            text = f"{event.name} {event.info}"
            return self._of(event, event.time_ns, "signal", text, name=event.name)
        if type(event) is Exit:
            return self._of(event, event.time_ns, "thread", _ended(event))
        if type(event) is Unparsed:
            self._unread.add(event)
        return None

    def _of(
        self,
        event: Switch | Signal | Exit,
        time_ns: int,
        kind: Kind,
        text: str,
        greenthread: str | None = None,
        name: str = "",
    ) -> Row:
        process = self._processes.get(event.pid, event.pid)
        return Row(time_ns, kind, text, event.pid, process, greenthread, None, event.line, name)


def _written(call: Syscall) -> str:
    if call.state != "returned":
        return f"{call.name}({call.args.rstrip(', ')} <{call.state}>"
    return f"{call.name}({call.args}) = {call.ret}"


def _ended(event: Exit) -> str:
    if event.signal is not None:
        return f"thread {event.pid} was killed by {event.signal}"
    if event.superseded_by is not None:
        return f"thread {event.pid} is replaced: thread {event.superseded_by} called execve"
    return f"thread {event.pid} exited with {event.status}"


def in_order(source: Iterable[Dissected]) -> Iterator[Dissected]:
    """Yield packets by time where some are out of order by a few places."""
    waiting: list[tuple[int, int, Dissected]] = []
    for found in source:
        entry = (found.packet.time_ns, found.packet.number, found)
        if len(waiting) < _WINDOW:
            heapq.heappush(waiting, entry)
        else:
            yield heapq.heappushpop(waiting, entry)[2]
    while waiting:
        yield heapq.heappop(waiting)[2]


def sender(found: Dissected, calls: Attribution) -> Call | None:
    """Return the call that sent a packet. Packets are to be asked for in time order."""
    if found.segment is None:
        return None
    return calls.sender(found.segment, found.packet.time_ns)


def packet_row(found: Dissected, sent: Call | None) -> Row:
    """Return the row of a packet.

    :param sent: the call that sent it.
    """
    packet, segment = found
    if segment is None:
        text = f"{packet.length} bytes, not TCP or UDP"
        return Row(packet.time_ns, "packet", text, line=packet.number)
    return Row(
        packet.time_ns,
        "packet",
        describe(segment),
        sent.pid if sent is not None else None,
        None,
        sent.greenthread if sent is not None else None,
        None,
        packet.number,
        segment.protocol,
        bool(segment.flags & RST),
        sent,
    )


def describe(segment: Segment) -> str:
    """Say in one line what a packet is: ``tcp 127.0.0.1:1 -> 127.0.0.1:2 PSH ACK 35 bytes``."""
    flags = [name for flag, name in _FLAGS if segment.flags & flag]
    size = [f"{segment.payload} bytes"] if segment.payload or segment.protocol == "udp" else []
    about = ["icmp error about"] if segment.quoted else []
    words = [*about, segment.protocol, str(segment.source), "->", str(segment.target)]
    return " ".join([*words, *flags, *size])


def explain(found: Dissected, sent: Call | None, calls: Attribution) -> str | None:
    """Say which calls sent and received a packet, for a comment on it.

    :return: ``None`` if the trace knows nothing of it.
    """
    packet, segment = found
    if segment is None:
        return None
    received = calls.receiver(segment)
    parts = []
    if sent is not None:
        later = span(packet.time_ns - sent.start_ns)
        parts.append(f"sent by {_told(sent)}, {later} before")
    else:
        owner = calls.owner(segment)
        if owner is not None:
            parts.append(f"sent by the kernel for fd {owner}")
    if received is not None:
        parts.append(f"received by {_told(received)}")
    return "; ".join(parts) or None


def _told(call: Call) -> str:
    greenthread = f", greenthread {call.greenthread}" if call.greenthread is not None else ""
    at = f", {call.at}" if call.at is not None else ""
    return f"{call.name}(fd {call.fd}){greenthread}{at}, trace line {call.line}"
