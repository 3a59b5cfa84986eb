"""Complete what was recorded of a test, once all of it is on the disk.

A capture becomes readable beside its trace: comments on the packets, TLS keys, system
calls and phases as rows between them, packets of other programs left out. The trace is
read once, past the detectors of findings, and gives ``findings.json`` and the timeline.
This takes time in which the next test can run, so the helper has it done by a process of
its own, the *finisher*, at low priority: :func:`main`.

It runs in a fresh interpreter without site-packages, as the helper does, but with the
directory that msgspec is in.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import heapq
import itertools
import json
import os
from pathlib import Path
import signal
import sys
from typing import BinaryIO

from msgspec.structs import replace

from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import KEYS_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_names import TIMELINE_FILE
from pytest_eventlet_debug.artifacts import TestRecord
from pytest_eventlet_debug.artifacts import note_artifacts
from pytest_eventlet_debug.artifacts import read_test
from pytest_eventlet_debug.artifacts import recorded
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.recordings import perfetto
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import About
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
from pytest_eventlet_debug.recordings.timeline import Row
from pytest_eventlet_debug.recordings.timeline import Trace
from pytest_eventlet_debug.recordings.timeline import explain
from pytest_eventlet_debug.recordings.timeline import in_order
from pytest_eventlet_debug.recordings.timeline import lay_out
from pytest_eventlet_debug.recordings.timeline import packet_row
from pytest_eventlet_debug.recordings.timeline import phase_rows
from pytest_eventlet_debug.recordings.timeline import read_trace
from pytest_eventlet_debug.recordings.timeline import sender

_NICE = 10

_JOURNALLED = frozenset(("syscall", "signal", "thread"))


def finish(directory: Path, *, shared: bool = False, ports: Collection[int] | None = None) -> None:
    """Complete a test's directory and those of its blocks.

    :param shared: whether other programs used the same network, so that their packets are to
        be left out where it is known which ones these are.
    :param ports: the ports that the test's process used, those in its trace aside; ``None``
        if they are not known.
    :raises OSError: a file cannot be written.
    """
    test = read_test(directory)
    findings: list[Finding] = []
    problems: list[str] = []
    for each in recorded(directory):
        detection = Detection(_about(test))
        trace = read_trace(each, watch=detection.watch)
        block = None if each == directory else each.name
        findings += _in_block(detection.findings(), block)
        problems += [f"{block}/{line}" if block else line for line in trace.problems]
        _finish_recordings(each, trace, test, shared, ports)
    if any((each / STRACE_FILE).exists() for each in recorded(directory)):
        findings_file.write(directory, findings, problems)
    note_artifacts(directory)


def find(directory: Path) -> findings_file.Findings:
    """Return what a test's trace shows, where it is not completed: its process has just died."""
    detection = Detection(_about(read_test(directory)))
    trace = read_trace(directory, watch=detection.watch)
    return findings_file.Findings(
        format=findings_file.FORMAT,
        findings=tuple(detection.findings()),
        problems=tuple(trace.problems),
    )


def _about(test: TestRecord | None) -> About:
    if test is None:
        return About()
    return About(test.nodeid, test.hub, test.pid, test.phases)


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


def _finish_recordings(
    directory: Path,
    trace: Trace,
    test: TestRecord | None,
    shared: bool,
    ports: Collection[int] | None,
) -> None:
    """Complete the capture in one directory, and write the timeline."""
    traced = (directory / STRACE_FILE).exists()
    captured = (directory / CAPTURE_FILE).exists()
    packets: list[Row] = []
    unread: list[str] = []
    if captured:
        own = {*(ports or ()), *trace.calls.ports}
        known = ports is not None or traced
        packets, unread = _finish_capture(directory, trace, test, own if shared and known else None)
    if traced or captured:
        with _replacing(directory / TIMELINE_FILE) as file:
            with open(file.fileno(), "w", encoding="utf-8", closefd=False) as text:
                perfetto.write(lay_out(directory, test, trace, packets, unread), text)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of *path* when it is complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb") as file:
            yield file
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise


_NO_SECTION = Section(None, None)
_NO_INTERFACE = Interface(None, LINKTYPE_ETHERNET)


@dataclasses.dataclass
class _Kept:
    """What a capture turned out to hold."""

    section: Section = _NO_SECTION
    interface: Interface = _NO_INTERFACE
    statistics: Statistics | None = None
    foreign: int = 0
    problems: list[str] = dataclasses.field(default_factory=list)


def _finish_capture(
    directory: Path, trace: Trace, test: TestRecord | None, own: Collection[int] | None
) -> tuple[list[Row], list[str]]:
    """Write a capture anew; return its packets as rows, and what could not be read of it."""
    kept = _Kept()
    source = in_order(_own_packets(read(directory / CAPTURE_FILE), own, kept))
    first = next(source, None)  # by then the section and the interface are known
    packets = itertools.chain(() if first is None else (first,), source)
    keys = directory / KEYS_FILE
    rows: list[Row] = []
    with _replacing(directory / CAPTURE_FILE) as file:
        file.write(_header(kept))
        if keys.exists():
            file.write(pcapng.tls_secrets(keys.read_bytes()))
        explained = _explained(packets, trace.calls, rows)
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
    return rows, kept.problems


def _explained(
    packets: Iterable[Dissected], calls: Attribution, rows: list[Row]
) -> Iterator[tuple[int, int, bytes]]:
    """Yield packets as blocks with comments, and add their rows to *rows*."""
    for number, found in enumerate(packets, 1):
        packet = found.packet
        sent = sender(found, calls)
        rows.append(packet_row(found, number, sent))
        comment = explain(found, sent, calls)
        block = pcapng.packet(packet.time_ns, packet.data, packet.length, comment)
        yield packet.time_ns, 1, block


def _journal(trace: Trace, test: TestRecord | None) -> list[tuple[int, int, bytes]]:
    """Return system calls and phases as blocks, by time in whole microseconds."""
    entries = []
    rows = trace.rows()
    for row in rows:
        if row.kind in _JOURNALLED:
            who = f"[{row.greenthread}] " if row.greenthread is not None else ""
            spent = f" <{row.duration_ns / 1e9:.6f}>" if row.duration_ns is not None else ""
            text = f"{row.pid} {who}{row.text}{spent} (line {row.line})"
            entries.append((row.time_ns, "strace", text))
    if trace.left_out:
        text = f"here {trace.left_out} rows of the trace are left out"
        entries.append((rows[len(rows) // 2].time_ns, "strace", text))
    for row in phase_rows(test):
        entries.append((row.time_ns, "pytest", f"{row.name} begins"))
        entries.append((row.time_ns + (row.duration_ns or 0), "pytest", f"{row.text}, ended"))
    entries.sort(key=lambda entry: entry[0])
    return [
        (
            time_ns // 1000 * 1000,
            0,
            pcapng.journal(time_ns, {"SYSLOG_IDENTIFIER": source, "MESSAGE": text}),
        )
        for time_ns, source, text in entries
    ]


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


def main() -> None:
    """Finish the directories that standard input names, a JSON line each, until it ends.

    For each line one is written to standard output: ``null``, or what went wrong.
    """
    # So that drafts are deleted: the usual way ends at once.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    with contextlib.suppress(OSError):
        os.nice(_NICE)
    for line in sys.stdin.buffer:
        order = json.loads(line)
        try:
            finish(Path(order["directory"]), shared=order["shared"], ports=order["ports"])
        except Exception as error:
            answer: str | None = f"{order['directory']}: {type(error).__name__}: {error}"
        else:
            answer = None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
