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
import json
import os
from pathlib import Path
import posix
import signal
import sys

from msgspec.structs import replace

from pytest_eventlet_debug.artifact_names import BLOCK_PREFIX
from pytest_eventlet_debug.artifact_names import CALLGRIND_FILE
from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import FINDINGS_FILE
from pytest_eventlet_debug.artifact_names import PACKED_CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import PACKED_STRACE_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_COUNTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FACTS_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.artifact_names import STALLS_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifacts import TestRecord
from pytest_eventlet_debug.artifacts import note_artifacts
from pytest_eventlet_debug.artifacts import note_death
from pytest_eventlet_debug.artifacts import read_test
from pytest_eventlet_debug.profile_stats import Stats
from pytest_eventlet_debug.recordings import captures
from pytest_eventlet_debug.recordings import death
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings import profiles
from pytest_eventlet_debug.recordings import report_part
from pytest_eventlet_debug.recordings.cuts import is_cut
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings import stalls
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.long_trace import LongTrace
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Tally
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.wire import Wire
from pytest_eventlet_debug.recordings.own_thread import without_own_thread
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.strace_log import ends
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.timeline import Ends
from pytest_eventlet_debug.recordings.timeline import Trace
from pytest_eventlet_debug.recordings.timeline import lay_out
from pytest_eventlet_debug.recordings.timeline import pass_trace
from pytest_eventlet_debug.recordings.timeline import read_trace
from pytest_eventlet_debug.redaction import Redaction
from pytest_eventlet_debug.system import files

#: What is written here and by nobody else.
_WRITTEN = (
    *(STRACE_FILE, PACKED_STRACE_FILE, CAPTURE_FILE, PACKED_CAPTURE_FILE),
    *(PROFILE_FILE, CALLGRIND_FILE, PROFILE_FACTS_FILE),
    *(FINDINGS_FILE, report_part.PART_FILE),
)
_DRAFTS = tuple(f".{name}." for name in _WRITTEN)


#: Bytes of the longest trace and the longest capture that are not packed. Few are longer, and
#: these have most of what is on the disk.
_LONG_BYTES = 1 << 20

#: The kernel closes a process's connections before it can be seen to have died, by less than this
#: even where others have the CPUs.
_DYING_NS = 1_000_000_000

_NOTHING: Mapping[Path, bytes] = {}


def finish(
    directory: Path,
    *,
    shared: bool = False,
    ports: Collection[int] | None = None,
    died_ns: int | None = None,
    alone: bool = False,
    redact: str | None = None,
    unwritten: Mapping[Path, bytes] = _NOTHING,
) -> None:
    """Complete a test's directory and those of its blocks.

    :param shared: whether other programs used the same network, so that their packets are to
        be left out where it is known which ones these are.
    :param ports: the ports that the test's process used, those in its trace aside; ``None``
        if they are not known.
    :param died_ns: when the test's process was seen to have died, if it did before the test ended;
        nanoseconds since the epoch.
    :param alone: whether no other process notes that.
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
    if died_ns is not None and alone:
        note_death(directory, death.phases(directory))
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
        wire = Wire(trace.calls, *_death(test, trace, died_ns))
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

    :param most: bytes of the trace that are read, of its beginning and its end, while it is being
        written; ``None`` for all.
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
    # A gap that was made for this look is no limit's. Nor is a trace cut that is being written.
    is_whole = most is not None or not is_cut(directory)
    shown = (each for each in detection.findings() if most is None or each.kind != LongTrace.kind)
    found = list(findings_file.in_place(shown, directory))
    return findings_file.Findings(
        format=findings_file.FORMAT,
        findings=tuple(found if is_whole else _of_cut(found)),
        problems=tuple(problems),
    )


def _about(test: TestRecord | None) -> About:
    if test is None:
        return About()
    return About(test.nodeid, test.hub, test.pid, test.phases, cpu=test.cpu, left=tuple(test.left))


def _death(
    test: TestRecord | None, trace: Trace, seen_ns: int | None
) -> tuple[int | None, int | None]:
    """Return when a test's process died, if it did in the test, as :class:`Wire` wants to know it.

    A process that hung is killed after the end of its last phase. When one crashed is known from
    its trace, by the last call that began, or else roughly from when it was seen dead.

    :return: a time after which it did nothing more, and one after which that is not certain.
    """
    ends = test.outcomes.values() if test is not None else ()
    if test is not None and "hung" in ends:
        return max((end for _, end in test.phases.values()), default=None), None
    if seen_ns is None and "crashed" not in ends:
        return None, None
    called_ns = max((row.time_ns for row in trace.rows() if row.kind == "syscall"), default=None)
    if called_ns is None and seen_ns is not None:
        return seen_ns, seen_ns - _DYING_NS
    return called_ns, None


def _redact(path: Path, redaction: Redaction) -> None:
    """Take out of a trace, line by line, what matches."""
    if not path.exists():
        return
    with captures.replacing(path) as file, open(files.open_to_read(path), "rb") as trace:
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
        self.capture = captures.Capture(
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
        unread = captures.complete(capture, trace, test, kept, wire, packets)
    if profile or place.recordings:
        rows = packets.rows()
        timeline = lay_out(place.directory, test, trace, rows, unread, packets.left_out)
        report_part.write(place.directory, timeline, profile)


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
