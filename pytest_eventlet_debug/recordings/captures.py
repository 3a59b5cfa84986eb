"""The packets of a test become a capture that explains itself.

Each packet is commented with the call that sent it, and between them stand the system calls and
the phases of the test. What other programs sent is left out.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
import heapq
import io
import itertools
from pathlib import Path

import msgspec

from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import KEYS_FILE
from pytest_eventlet_debug.artifact_records import TestRecord
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.recordings import story
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.drafts import replacing
from pytest_eventlet_debug.recordings.findings.wire import Wire
from pytest_eventlet_debug.recordings.marks import own_place
from pytest_eventlet_debug.recordings.packets import Dissected
from pytest_eventlet_debug.recordings.packets import Segment
from pytest_eventlet_debug.recordings.packets import dissect
from pytest_eventlet_debug.recordings.pcapng import LINKTYPE_ETHERNET
from pytest_eventlet_debug.recordings.pcapng import Block
from pytest_eventlet_debug.recordings.pcapng import Interface
from pytest_eventlet_debug.recordings.pcapng import Packet
from pytest_eventlet_debug.recordings.pcapng import PcapngError
from pytest_eventlet_debug.recordings.pcapng import Section
from pytest_eventlet_debug.recordings.pcapng import Statistics
from pytest_eventlet_debug.recordings.pcapng import read
from pytest_eventlet_debug.recordings.rows import Row
from pytest_eventlet_debug.recordings.rows import phase_rows
from pytest_eventlet_debug.recordings.timeline import Ends
from pytest_eventlet_debug.recordings.timeline import Trace
from pytest_eventlet_debug.recordings.timeline import explain
from pytest_eventlet_debug.recordings.timeline import in_order
from pytest_eventlet_debug.recordings.timeline import packet_row
from pytest_eventlet_debug.recordings.timeline import sender
from pytest_eventlet_debug.system import files

# A connection's keys take a few hundred.
_MAX_KEYS_BYTES = 64 << 20

_JOURNALLED = frozenset(("syscall", "signal", "thread"))


class Capture:
    """A capture, which is in its file or still in memory.

    :param content: what is in memory.
    :param in_file: whether there is a file, packed or not.
    """

    def __init__(self, path: Path, content: bytes | None, in_file: bool) -> None:
        self.path = path
        self._content = content
        #: Until it turns out that nothing in it is the test's.
        self.is_there = in_file or content is not None

    def has_packets(self) -> bool:
        """Say whether there is a packet in it."""
        if self._content is not None:
            return True
        try:
            return any(type(block) is Packet for block in read(self.path))
        except PcapngError:
            return False

    def blocks(self) -> Iterator[Block]:
        """Yield what it holds.

        :raises PcapngError: it breaks off.
        """
        if self._content is not None:
            return pcapng.parse(io.BytesIO(self._content))
        return read(self.path)

    def drop(self) -> None:
        """Leave no capture behind: there was nothing of the test's in it."""
        self.is_there = False
        self.path.unlink(missing_ok=True)
        packing.packed(self.path).unlink(missing_ok=True)


_NO_SECTION = Section(None, None)
_NO_INTERFACE = Interface(None, LINKTYPE_ETHERNET)


class _Kept(msgspec.Struct):
    """What a capture turned out to hold."""

    section: Section = _NO_SECTION
    interface: Interface = _NO_INTERFACE
    statistics: Statistics | None = None
    foreign: int = 0
    problems: list[str] = []


def complete(
    capture: Capture,
    trace: Trace,
    test: TestRecord | None,
    own: Collection[int] | None,
    wire: Wire,
    rows: Ends,
) -> list[str]:
    """Write a capture with its comments; return what could not be read of it.

    One without packets of the test's, and of which none are missing, is dropped.

    :param trace: what the test called.
    :param own: the ports of the test; ``None`` to leave out nothing.
    :param wire: sees each packet.
    :param rows: takes their rows.
    :raises OSError: it cannot be written.
    """
    kept = _Kept()
    source = in_order(_own_packets(capture.blocks(), own, kept))
    first = next(source, None)  # by then the section and the interface are known
    if first is None and not (kept.problems or (kept.statistics and kept.statistics.dropped)):
        capture.drop()
        return []
    packets = itertools.chain(() if first is None else (first,), source)
    keys = capture.path.with_name(KEYS_FILE)
    with replacing(capture.path) as file:
        file.write(_header(kept))
        if keys.exists():
            file.write(pcapng.tls_secrets(files.read(keys, _MAX_KEYS_BYTES)))
        timed = ((found.packet.time_ns, 1, found) for found in packets)
        entries: Iterator[tuple[int, int, bytes | Dissected]]
        entries = heapq.merge(_journal(trace, test), timed)
        last_ns = 0
        for number, (time_ns, _, entry) in enumerate(entries, 1):
            if isinstance(entry, bytes):
                file.write(entry)
            else:
                file.write(_explained(_numbered(entry, number), trace.calls, rows, wire))
            last_ns = time_ns
        if kept.statistics is not None:
            received, dropped = kept.statistics
            file.write(pcapng.statistics(last_ns, received or 0, dropped or 0))
        # How many were left out stands in the beginning and is known last.
        file.seek(0)
        file.write(_header(kept))
    return kept.problems


def _numbered(found: Dissected, number: int) -> Dissected:
    """Return a packet with its number in the finished file."""
    return found._replace(packet=found.packet._replace(number=number))


def _explained(found: Dissected, calls: Attribution, rows: Ends, wire: Wire) -> bytes:
    """Return a packet as a block with a comment, and add its row to *rows*."""
    packet = found.packet
    wire.see(packet, found.segment)
    sent = sender(found, calls)
    rows.add(packet_row(found, sent))
    comment = explain(found, sent, calls)
    return pcapng.packet(packet.time_ns, packet.data, packet.length, comment)


def _journal(trace: Trace, test: TestRecord | None) -> list[tuple[int, int, bytes]]:
    """Return system calls and phases as blocks, by time in whole microseconds.

    As in the timeline, an import is one row, and the calls of pytest are left out.
    """
    entries = []
    rows = trace.rows()
    for row in story.told(rows).values():
        if row.kind in _JOURNALLED:
            entries.append((row.time_ns, _journal_fields(row)))
    if trace.left_out:
        text = f"here {trace.left_out} rows of the trace are left out"
        entries.append((rows[len(rows) // 2].time_ns, _entry("strace", text)))
    for row in phase_rows(test):
        entries.append((row.time_ns, _entry("pytest", f"{row.name} begins")))
        end_ns = row.time_ns + (row.duration_ns or 0)
        entries.append((end_ns, _entry("pytest", f"{row.text}, ended")))
    entries.sort(key=lambda entry: entry[0])
    return [
        (time_ns // 1000 * 1000, 0, pcapng.journal(time_ns, fields)) for time_ns, fields in entries
    ]


def _entry(source: str, text: str) -> dict[str, str]:
    return {"SYSLOG_IDENTIFIER": source, "MESSAGE": text}


def _journal_fields(row: Row) -> dict[str, str]:
    """Return a row of the trace by systemd.journal-fields(7), so that it can be filtered for.

    The greenthread stands for the name of the thread that it runs in, and the line is the
    user's own one.
    """
    who = f"[{row.greenthread}] " if row.greenthread is not None else ""
    spent = f" <{row.duration_ns / 1e9:.6f}>" if row.duration_ns is not None else ""
    at = f" at {row.at}" if row.at is not None else ""
    fields = _entry("strace", f"{row.pid} {who}{row.text}{spent}{at} (line {row.line})")
    fields["_PID"] = str(row.pid)
    if row.greenthread is not None:
        fields["_COMM"] = row.greenthread
    place = own_place(row.at) if row.at is not None else None
    if place is not None:
        fields["CODE_FILE"] = place.file
        fields["CODE_LINE"] = str(place.line)
        fields["CODE_FUNC"] = place.function
    return fields


def _header(kept: _Kept) -> bytes:
    """Return the beginning of the file; its length does not depend on the number."""
    others = f"{kept.foreign} packets of other programs are left out".ljust(60)
    section = kept.section
    return pcapng.section(section.comment or "", section.application or "", others) + (
        pcapng.interface(kept.interface.name or "", kept.interface.linktype)
    )


def _own_packets(
    blocks: Iterable[Block], own: Collection[int] | None, kept: _Kept
) -> Iterator[Dissected]:
    """Yield the packets that are not other programs', and note all the rest in *kept*."""
    try:
        for block in blocks:
            if type(block) is Packet:
                segment = dissect(block)
                if own is None or _is_own(segment, own):
                    yield Dissected(block, segment)
                else:
                    kept.foreign += 1
            elif type(block) is Section:
                kept.section = block
            elif type(block) is Interface:
                kept.interface = block
            elif type(block) is Statistics:
                kept.statistics = block
    except PcapngError as error:
        kept.problems.append(f"{CAPTURE_FILE}: {error}")


def _is_own(segment: Segment | None, own: Collection[int]) -> bool:
    return segment is None or segment.source.port in own or segment.target.port in own
