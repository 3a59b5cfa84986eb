"""Complete what was recorded of a test, once all of it is on the disk.

A capture becomes readable beside its trace: comments on the packets, TLS keys, system
calls and phases as rows between them, packets of other programs left out; and the
timeline is written. This takes time in which the next test can run, so the helper has it
done by a process of its own, the *finisher*, at low priority: :func:`main`.

It runs in a fresh interpreter without site-packages, as the helper does.
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
import sys
from typing import Any
from typing import BinaryIO

from pytest_eventlet_debug.artifacts import TEST_FILE
from pytest_eventlet_debug.artifacts import note_artifacts
from pytest_eventlet_debug.artifacts import read_json
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.recordings import perfetto
from pytest_eventlet_debug.recordings import report_part
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.packets import LINKTYPE_ETHERNET
from pytest_eventlet_debug.recordings.packets import Block
from pytest_eventlet_debug.recordings.packets import Interface
from pytest_eventlet_debug.recordings.packets import Packet
from pytest_eventlet_debug.recordings.packets import PacketsError
from pytest_eventlet_debug.recordings.packets import Section
from pytest_eventlet_debug.recordings.packets import Statistics
from pytest_eventlet_debug.recordings.packets import dissect
from pytest_eventlet_debug.recordings.packets import read
from pytest_eventlet_debug.recordings.timeline import KEYS_FILE
from pytest_eventlet_debug.recordings.timeline import PCAP_FILE
from pytest_eventlet_debug.recordings.timeline import PCAPNG_FILE
from pytest_eventlet_debug.recordings.timeline import STRACE_FILE
from pytest_eventlet_debug.recordings.timeline import Trace
from pytest_eventlet_debug.recordings.timeline import explain
from pytest_eventlet_debug.recordings.timeline import in_order
from pytest_eventlet_debug.recordings.timeline import lay_out
from pytest_eventlet_debug.recordings.timeline import phase_rows
from pytest_eventlet_debug.recordings.timeline import read_trace

TIMELINE_FILE = "timeline.json"

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
    for each in (directory, *sorted(directory.glob("block-*"))):
        trace = read_trace(each)
        captured = (each / PCAPNG_FILE).exists()
        if captured:
            own = {*(ports or ()), *trace.calls.ports}
            known = ports is not None or (each / STRACE_FILE).exists()
            _finish_capture(each, trace, own if shared and known else None)
        if captured or (each / STRACE_FILE).exists():
            timeline = lay_out(each, trace)
            with _replacing(each / TIMELINE_FILE) as file:
                with open(file.fileno(), "w", encoding="utf-8", closefd=False) as text:
                    perfetto.write(timeline, text)
            report_part.write(each, timeline)
    note_artifacts(directory)


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
    problem: str | None = None


def _finish_capture(directory: Path, trace: Trace, own: Collection[int] | None) -> None:
    facts = read_json(directory / TEST_FILE) or read_json(directory.parent / TEST_FILE) or {}
    kept = _Kept()
    source = in_order(_own_packets(read(directory / PCAPNG_FILE), own, kept))
    first = next(source, None)  # by then the section and the interface are known
    packets = itertools.chain(() if first is None else (first,), source)
    keys = directory / KEYS_FILE
    with _replacing(directory / PCAPNG_FILE) as file:
        file.write(_header(kept))
        if keys.exists():
            file.write(pcapng.tls_secrets(keys.read_bytes()))
        last_ns = 0
        for time_ns, _, block in heapq.merge(
            _journal(trace, facts), _explained(packets, trace.calls)
        ):
            file.write(block)
            last_ns = time_ns
        if kept.statistics is not None:
            received, dropped = kept.statistics
            file.write(pcapng.statistics(last_ns, received or 0, dropped or 0))
        # How many were left out stands in the beginning and is known last.
        file.seek(0)
        file.write(_header(kept))
    if kept.foreign:
        _leave_out(directory / PCAP_FILE, own)


def _explained(packets: Iterable[Packet], calls: Attribution) -> Iterator[tuple[int, int, bytes]]:
    for packet in packets:
        comment = explain(packet, calls)
        block = pcapng.packet(packet.time_ns, packet.data, packet.length, comment)
        yield packet.time_ns, 1, block


def _journal(trace: Trace, facts: dict[str, Any]) -> list[tuple[int, int, bytes]]:
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
    for row in phase_rows(facts):
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
) -> Iterator[Packet]:
    """Yield the packets that are not other programs', and note all the rest in *kept*."""
    try:
        for block in blocks:
            if type(block) is Packet:
                if own is None or _is_own(block, own):
                    yield block
                else:
                    kept.foreign += 1
            elif type(block) is Section:
                kept.section = block
            elif type(block) is Interface:
                kept.interface = block
            elif type(block) is Statistics:
                kept.statistics = block
    except PacketsError as error:
        kept.problem = str(error)


def _is_own(packet: Packet, own: Collection[int]) -> bool:
    segment = dissect(packet)
    return segment is None or segment.source.port in own or segment.target.port in own


def _leave_out(path: Path, own: Collection[int] | None) -> None:
    """Write a pcap file anew without the packets of other programs."""
    kept = _Kept()
    with contextlib.suppress(FileNotFoundError):
        source = in_order(_own_packets(read(path), own, kept))
        first = next(source, None)
        with _replacing(path) as file:
            file.write(pcapng.pcap_header(kept.interface.linktype))
            for packet in itertools.chain(() if first is None else (first,), source):
                file.write(pcapng.pcap_packet(packet.time_ns, packet.data, packet.length))


def main() -> None:
    """Finish the directories that standard input names, a JSON line each, until it ends.

    For each line one is written to standard output: ``null``, or what went wrong.
    """
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
