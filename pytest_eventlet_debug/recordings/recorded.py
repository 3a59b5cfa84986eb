"""Complete a trace and a capture, and find what they tell.

What this imports is slow to import; a profile needs none of it.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
import time

from msgspec.structs import replace

from pytest_eventlet_debug.artifact_names import CAPTURE_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_records import TestRecord
from pytest_eventlet_debug.artifact_records import read_test
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.recordings import captures
from pytest_eventlet_debug.recordings import report_part
from pytest_eventlet_debug.recordings.cuts import is_cut
from pytest_eventlet_debug.recordings.drafts import replacing
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.long_trace import LongTrace
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import redacted
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.wire import Wire
from pytest_eventlet_debug.recordings.own_work import without_own_work
from pytest_eventlet_debug.recordings.place import Place
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.strace_log import ends
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.timeline import Ends
from pytest_eventlet_debug.recordings.timeline import Trace
from pytest_eventlet_debug.recordings.timeline import pass_trace
from pytest_eventlet_debug.recordings.timeline import read_trace
from pytest_eventlet_debug.redaction import Redaction
from pytest_eventlet_debug.system import files

#: The kernel closes a process's connections before it can be seen to have died, by less than this
#: even where others have the CPUs.
_DYING_NS = 1_000_000_000


def complete(
    place: Place,
    test: TestRecord | None,
    profile: Stats,
    *,
    shared: bool,
    ports: Collection[int] | None,
    died_ns: int | None,
    redaction: Redaction,
) -> findings_file.Findings:
    """Complete what is in a directory, a profile aside, and write what the report shows of it.

    Return what is found, in the files of that directory.

    :param profile: empty if there is none.
    :param shared: as for :func:`.finisher.finish`, and so are all that follow.
    :raises OSError: a file cannot be written.
    """
    detection = Detection(_about(test)) if place.is_traced else None
    trace = read_trace(place.directory, watch=detection.watch) if detection else Trace()
    wire = Wire(trace.calls, *_death(test, trace, died_ns), _failed_ns(test))
    packets = Ends()
    unread: list[str] = []
    capture = captures.Capture(
        place.directory / CAPTURE_FILE, place.packets, place.has_capture_file
    )
    if capture.is_there and capture.has_packets():
        own = {*(ports or ()), *trace.calls.ports}
        known = ports is not None or place.is_traced
        kept = own if shared and known else None
        unread = captures.complete(capture, trace, test, kept, wire, packets)
        place.is_captured = capture.is_there
    if profile or place.recordings:
        timeline = trace.timeline(place.directory, test, packets, unread)
        report_part.write(place.directory, timeline, profile)
    # Packets keep what matches.
    told = (redacted(finding, redaction) for finding in wire.findings())
    found = [*(detection.findings() if detection else ()), *_of(test, told)]
    if place.is_cut:
        found = _of_cut(found)
    return findings_file.found(found, trace.problems, detection.tally() if detection else None)


def _of(test: TestRecord | None, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Say of findings which test they are about."""
    for finding in findings:
        yield finding if test is None else replace(finding, nodeid=test.nodeid, hub=test.hub)


def find(directory: Path, most: int | None = None) -> findings_file.Findings:
    """Return what a test's trace shows, where it is not completed: it hangs, or has just died.

    :param most: bytes of the trace that are read, of its beginning and its end, while it is being
        written; ``None`` for all.
    """
    about = _about(read_test(directory))
    if most is not None:
        about = replace(about, until_ns=time.time_ns())
    detection = Detection(about)
    if most is None:
        problems = pass_trace(directory, detection.watch)
    else:
        problems = []
        try:
            events = parse(ends(directory / STRACE_FILE, most))
            for _ in detection.watch(without_own_work(events)):
                pass
        except StraceLogError as error:
            problems.append(f"{STRACE_FILE}: {error}")
    # A gap that was made for this look is no limit's. Nor is a trace cut that is being written.
    is_whole = most is not None or not is_cut(directory)
    shown = (each for each in detection.findings() if most is None or each.kind != LongTrace.kind)
    found = list(findings_file.in_place(shown, directory))
    return findings_file.found(found if is_whole else _of_cut(found), problems)


def _about(test: TestRecord | None) -> About:
    if test is None:
        return About()
    return About(
        test.nodeid,
        test.hub,
        test.pid,
        test.phases,
        cpu=test.cpu,
        left=tuple(test.left),
        passed="teardown" in test.outcomes and not test.failed,
    )


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


def _failed_ns(test: TestRecord | None) -> int | None:
    """Return when a test's own function failed, if it did."""
    ends = ("failed", "hung")
    if test is None or test.outcomes.get("call") not in ends or "call" not in test.phases:
        return None
    return test.phases["call"][1]


def redact(path: Path, redaction: Redaction) -> None:
    """Take out of a trace, line by line, what matches."""
    if not path.exists():
        return
    with replacing(path) as file, open(files.open_to_read(path), "rb") as trace:
        for line in trace:
            text = line.decode("utf-8", "surrogateescape")
            end = "\n" if text.endswith("\n") else ""
            kept = redaction(text.removesuffix("\n")) + end
            file.write(kept.encode("utf-8", "surrogateescape"))


def _of_cut(findings: Iterable[Finding]) -> list[Finding]:
    """Say of findings that the trace which shows them is not whole."""
    return [replace(finding, certainty="cut trace") for finding in findings]
