"""Complete what was recorded of a test, once all of it is on the disk.

A capture becomes readable beside its trace: comments on the packets, TLS keys, system
calls and phases as rows between them, packets of other programs left out. The trace is
read once, past the detectors of findings, and gives ``findings.json`` and the timeline. A
profile becomes callgrind.
This takes time in which the next test can run, so the helper has it done by a process of
its own, the *finisher*, at low priority: :func:`main`.

It is a fork of the helper, without site-packages as that, but with the directory that msgspec
is in.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import gc
import heapq
import io
import itertools
import json
import os
from pathlib import Path
import posix
import signal
import sys
from typing import BinaryIO

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug.artifact_names import BLOCK_PREFIX
from pytest_eventlet_debug.artifact_names import CALLGRIND_FILE
from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import FINDINGS_FILE
from pytest_eventlet_debug.artifact_names import KEYS_FILE
from pytest_eventlet_debug.artifact_names import PACKED_CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import PACKED_STRACE_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_COUNTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FACTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.artifact_names import STALLS_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifacts import TestRecord
from pytest_eventlet_debug.artifacts import note_artifacts
from pytest_eventlet_debug.artifacts import read_test
from pytest_eventlet_debug.profile_stats import Stats
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.recordings import profiles
from pytest_eventlet_debug.recordings import report_part
from pytest_eventlet_debug.recordings import story
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.cuts import is_cut
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings import stalls
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.long_trace import LongTrace
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Tally
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.wire import Wire
from pytest_eventlet_debug.recordings.marks import own_place
from pytest_eventlet_debug.recordings.own_thread import without_own_thread
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
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.strace_log import ends
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.timeline import Ends
from pytest_eventlet_debug.recordings.timeline import Row
from pytest_eventlet_debug.recordings.timeline import Trace
from pytest_eventlet_debug.recordings.timeline import explain
from pytest_eventlet_debug.recordings.timeline import in_order
from pytest_eventlet_debug.recordings.timeline import lay_out
from pytest_eventlet_debug.recordings.timeline import packet_row
from pytest_eventlet_debug.recordings.timeline import pass_trace
from pytest_eventlet_debug.recordings.timeline import phase_rows
from pytest_eventlet_debug.recordings.timeline import read_trace
from pytest_eventlet_debug.recordings.timeline import sender
from pytest_eventlet_debug.redaction import Redaction
from pytest_eventlet_debug.system import files

#: What is written here and by nobody else.
_WRITTEN = (
    *(STRACE_FILE, PACKED_STRACE_FILE, CAPTURE_FILE, PACKED_CAPTURE_FILE),
    *(PROFILE_FILE, CALLGRIND_FILE, PROFILE_FACTS_FILE),
    *(FINDINGS_FILE, report_part.PART_FILE),
)
_DRAFTS = tuple(f".{name}." for name in _WRITTEN)

# A connection's keys take a few hundred.
_MAX_KEYS_BYTES = 64 << 20

#: Bytes of the longest trace and the longest capture that are not packed. Few are longer, and
#: these have most of what is on the disk.
_LONG_BYTES = 1 << 20

_NOTHING: Mapping[Path, bytes] = {}

_JOURNALLED = frozenset(("syscall", "signal", "thread"))


def finish(
    directory: Path,
    *,
    shared: bool = False,
    ports: Collection[int] | None = None,
    redact: str | None = None,
    unwritten: Mapping[Path, bytes] = _NOTHING,
) -> None:
    """Complete a test's directory and those of its blocks.

    :param shared: whether other programs used the same network, so that their packets are to
        be left out where it is known which ones these are.
    :param ports: the ports that the test's process used, those in its trace aside; ``None``
        if they are not known.
    :param redact: a regular expression; what matches is taken out of the traces first, and so
        out of everything that is made of them.
    :param unwritten: captures, and what was counted, that are in no file yet, by their paths.
    :raises OSError: a file cannot be written.
    :raises Exception: as :func:`.profiles.complete` does; all else is complete then.
    """
    redaction = Redaction(redact)
    places = _places(directory, unwritten)
    if redact is not None:
        for place in places:
            _redact(place.directory / STRACE_FILE, redaction)
    test = read_test(directory)
    findings: list[Finding] = []
    problems: list[str] = []
    tally: Tally | None = None
    unread: Exception | None = None
    for place in places:
        detection = Detection(_about(test)) if place.is_traced else None
        trace = read_trace(place.directory, watch=detection.watch) if detection else Trace()
        block = None if place.directory == directory else place.directory.name
        profile: Stats = {}
        try:
            if test is not None and place.is_profiled:
                profile = profiles.complete(place.directory, test.nodeid, place.counts)
        except Exception as error:  # a test may lay anything in its place
            unread = error
        wire = Wire(trace.calls)
        _finish_recordings(place, trace, test, shared, ports, wire, profile)
        # Packets keep what matches.
        told = (_redacted(finding, redaction) for finding in wire.findings())
        found = [*(detection.findings() if detection else ()), *_of(test, told)]
        if place.is_cut:
            found = list(_of_cut(found))
        if block is None and STALLS_FILE in place.names:
            found = stalls.joined(stalls.read(directory), found)
        findings += _in_block(found, block)
        problems += [f"{block}/{line}" if block else line for line in trace.problems]
        if block is None and detection is not None:
            tally = detection.tally()
    for place in places:
        if place.is_cut:
            continue
        with contextlib.suppress(OSError):  # there is no room for both; it stays as it is
            for name in place.recordings:
                packing.pack(place.directory / name, _LONG_BYTES)
    if findings or any(place.recordings for place in places):
        placed = list(findings_file.in_place(findings, directory))
        findings_file.write(directory, placed, problems, tally)
    note_artifacts(directory)
    if unread is not None:
        raise unread


def _of(test: TestRecord | None, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Say of findings which test they are about."""
    for finding in findings:
        yield finding if test is None else replace(finding, nodeid=test.nodeid, hub=test.hub)


def find(directory: Path, most: int | None = None) -> findings_file.Findings:
    """Return what a test's trace shows, where it is not completed: it hangs, or has just died.

    :param most: bytes of the trace that are read, of its beginning and its end; ``None`` for all.
    """
    detection = Detection(_about(read_test(directory)))
    if most is None:
        problems = pass_trace(directory, detection.watch)
    else:
        problems = []
        try:
            events = parse(ends(directory / STRACE_FILE, most))
            for _ in detection.watch(without_own_thread(events)):
                pass
        except StraceLogError as error:
            problems.append(f"{STRACE_FILE}: {error}")
    # A gap that was made for this look is no limit's.
    shown = (each for each in detection.findings() if most is None or each.kind != LongTrace.kind)
    found = list(findings_file.in_place(shown, directory))
    return findings_file.Findings(
        format=findings_file.FORMAT,
        findings=tuple(_of_cut(found) if is_cut(directory) else found),
        problems=tuple(problems),
    )


def _about(test: TestRecord | None) -> About:
    if test is None:
        return About()
    return About(test.nodeid, test.hub, test.pid, test.phases, cpu=test.cpu, left=tuple(test.left))


def _redact(path: Path, redaction: Redaction) -> None:
    """Take out of a trace, line by line, what matches."""
    if not path.exists():
        return
    with _replacing(path) as file, open(files.open_to_read(path), "rb") as trace:
        for line in trace:
            text = line.decode("utf-8", "surrogateescape")
            end = "\n" if text.endswith("\n") else ""
            kept = redaction(text.removesuffix("\n")) + end
            file.write(kept.encode("utf-8", "surrogateescape"))


def _redacted(finding: Finding, redaction: Redaction) -> Finding:
    evidence = tuple(replace(each, text=redaction(each.text)) for each in finding.evidence)
    return replace(finding, title=redaction(finding.title), evidence=evidence)


def _of_cut(findings: Iterable[Finding]) -> list[Finding]:
    """Say of findings that the trace which shows them is not whole."""
    return [replace(finding, certainty="cut trace") for finding in findings]


def _in_block(findings: Iterable[Finding], block: str | None) -> Iterator[Finding]:
    """Say of findings that they are of a block's recordings, which are in its directory."""
    for finding in findings:
        if block is None:
            yield finding
            continue
        evidence = tuple(
            replace(each, file=f"{block}/{each.file}") if each.file is not None else each
            for each in finding.evidence
        )
        yield replace(finding, block=block, evidence=evidence)


def _places(directory: Path, unwritten: Mapping[Path, bytes]) -> list[_Place]:
    """Return the directories that hold a test's recordings: its own and those of its blocks."""
    place = _Place(directory, unwritten)
    blocks = sorted(name for name in place.names if name.startswith(BLOCK_PREFIX))
    return [place, *(_Place(directory / name, unwritten) for name in blocks)]


class _Place:
    """A directory with recordings, and what is to be completed there.

    :param unwritten: what is in no file, by the paths.
    """

    def __init__(self, directory: Path, unwritten: Mapping[Path, bytes]) -> None:
        self.directory = directory
        #: What is in it, as yet.
        self.names = frozenset(_without_drafts(directory))
        self.capture = _Capture(
            directory / CAPTURE_FILE,
            unwritten.get(directory / CAPTURE_FILE),
            bool({CAPTURE_FILE, PACKED_CAPTURE_FILE} & self.names),
        )
        self.counts = unwritten.get(directory / PROFILE_COUNTS_FILE)
        self.is_traced = bool({STRACE_FILE, PACKED_STRACE_FILE} & self.names)
        self.is_cut = STRACE_FILE in self.names and is_cut(directory)

    @property
    def is_profiled(self) -> bool:
        in_file = bool({PROFILE_COUNTS_FILE, PROFILE_FILE} & self.names)
        return in_file or self.counts is not None

    @property
    def recordings(self) -> list[str]:
        """The recordings that findings can be about."""
        found = {STRACE_FILE: self.is_traced, CAPTURE_FILE: self.capture.is_there}
        return [name for name, is_there in found.items() if is_there]


def _without_drafts(directory: Path) -> Iterator[str]:
    """Yield what is in a directory, but delete what a process has left that was killed."""
    for name in posix.listdir(directory):
        if name.startswith(_DRAFTS):
            (directory / name).unlink(missing_ok=True)
        else:
            yield name


class _Capture:
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

    def writing(self) -> contextlib.AbstractContextManager[BinaryIO]:
        """Open the file that it is to be in."""
        # What was there before is no capture of this test's, or is replaced once all is read.
        return _replacing(self.path) if self._content is None else _writing(self.path)

    def drop(self) -> None:
        """Leave no capture behind: there was nothing of the test's in it."""
        self.is_there = False
        self.path.unlink(missing_ok=True)
        packing.packed(self.path).unlink(missing_ok=True)


def _finish_recordings(
    place: _Place,
    trace: Trace,
    test: TestRecord | None,
    shared: bool,
    ports: Collection[int] | None,
    wire: Wire,
    profile: Stats,
) -> None:
    """Complete the capture in one directory, and write what the report shows."""
    capture = place.capture
    packets = Ends()
    unread: list[str] = []
    if capture.is_there and capture.has_packets():
        own = {*(ports or ()), *trace.calls.ports}
        known = ports is not None or place.is_traced
        kept = own if shared and known else None
        unread = _finish_capture(capture, trace, test, kept, wire, packets)
    if profile or place.recordings:
        rows = packets.rows()
        timeline = lay_out(place.directory, test, trace, rows, unread, packets.left_out)
        report_part.write(place.directory, timeline, profile)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of *path* when it is complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(files.create(draft), "wb") as file:
            yield file
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file that nobody looks for before it is complete."""
    try:
        with open(files.create(path), "wb") as file:
            yield file
    except BaseException:
        path.unlink(missing_ok=True)
        raise


_NO_SECTION = Section(None, None)
_NO_INTERFACE = Interface(None, LINKTYPE_ETHERNET)


class _Kept(msgspec.Struct):
    """What a capture turned out to hold."""

    section: Section = _NO_SECTION
    interface: Interface = _NO_INTERFACE
    statistics: Statistics | None = None
    foreign: int = 0
    problems: list[str] = []


def _finish_capture(
    capture: _Capture,
    trace: Trace,
    test: TestRecord | None,
    own: Collection[int] | None,
    wire: Wire,
    rows: Ends,
) -> list[str]:
    """Write a capture with its comments; return what could not be read of it.

    One without packets of the test's, and of which none are missing, is dropped.

    :param rows: takes its packets.
    """
    kept = _Kept()
    source = in_order(_own_packets(capture.blocks(), own, kept))
    first = next(source, None)  # by then the section and the interface are known
    if first is None and not (kept.problems or (kept.statistics and kept.statistics.dropped)):
        capture.drop()
        return []
    packets = itertools.chain(() if first is None else (first,), source)
    keys = capture.path.with_name(KEYS_FILE)
    with capture.writing() as file:
        file.write(_header(kept))
        if keys.exists():
            file.write(pcapng.tls_secrets(files.read(keys, _MAX_KEYS_BYTES)))
        explained = _explained(packets, trace.calls, rows, wire)
        last_ns = 0
        for time_ns, _, block in heapq.merge(_journal(trace, test), explained):
            file.write(block)
            last_ns = time_ns
        if kept.statistics is not None:
            received, dropped = kept.statistics
            file.write(pcapng.statistics(last_ns, received or 0, dropped or 0))
        # How many were left out stands in the beginning and is known last.
        file.seek(0)
        file.write(_header(kept))
    return kept.problems


def _explained(
    packets: Iterable[Dissected], calls: Attribution, rows: Ends, wire: Wire
) -> Iterator[tuple[int, int, bytes]]:
    """Yield packets as blocks with comments, and add their rows to *rows*."""
    for number, found in enumerate(packets, 1):
        packet = found.packet
        wire.see(packet, found.segment)
        sent = sender(found, calls)
        rows.add(packet_row(found, number, sent))
        comment = explain(found, sent, calls)
        block = pcapng.packet(packet.time_ns, packet.data, packet.length, comment)
        yield packet.time_ns, 1, block


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


def expect_profiles() -> None:
    """Import what completing a profile takes, before the first one waits for that."""
    with contextlib.suppress(Exception):  # it will be said of each
        profiles.import_converter()


def main() -> None:
    """Finish the directories that standard input names, a JSON line each, until it ends.

    For each line one is written to standard output: ``null``, or what went wrong.
    """
    # So that drafts are deleted: the usual way ends at once.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    gc.freeze()  # what was imported stays, and is not to be walked for each test
    with open(0, "rb") as orders:
        for line in orders:
            order = json.loads(line)
            directory = Path(order.pop("directory"))
            unwritten = {
                Path(path): os.pread(fd, size, offset)
                for path, fd, offset, size in order.pop("memory")
            }
            try:
                finish(directory, **order, unwritten=unwritten)
            except Exception as error:
                answer: str | None = f"{directory}: {type(error).__name__}: {error}"
            else:
                answer = None
            os.write(1, json.dumps(answer).encode("ascii") + b"\n")
