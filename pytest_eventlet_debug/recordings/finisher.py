"""Complete what was recorded of a test, once all of it is on the disk.

A capture becomes readable beside its trace: comments on the packets, TLS keys, system
calls and phases as rows between them, packets of other programs left out. The trace is
read once, past the detectors of findings, and gives ``findings.json`` and the timeline. A
profile becomes callgrind.
This takes time in which the next test can run, so the helper has it done by a process of
its own, the *finisher*, at low priority: :func:`main`.

It is a fork of the helper. As that, it has no site-packages, but the directory that msgspec is in.
"""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import gc
import json
import os
from pathlib import Path
import signal
import sys

from msgspec.structs import replace

from pytest_eventlet_debug.artifact_names import STALLS_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_records import TestRecord
from pytest_eventlet_debug.artifact_records import note_artifacts
from pytest_eventlet_debug.artifact_records import note_death
from pytest_eventlet_debug.artifact_records import read_test
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings import profiles
from pytest_eventlet_debug.recordings import report_part
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings import stalls
from pytest_eventlet_debug.recordings.findings.file import Findings
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.place import Place
from pytest_eventlet_debug.recordings.place import places
from pytest_eventlet_debug.recordings.rows import lay_out
from pytest_eventlet_debug.redaction import Redaction

#: Bytes of the longest trace and the longest capture that are not packed. Few are longer, and
#: these have most of what is on the disk.
_LONG_BYTES = 1 << 20

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
    found_places = places(directory, unwritten)
    if redact is not None:
        for place in found_places:
            _redact(place, redaction)
    if died_ns is not None and alone:
        _note_death(directory)
    test = read_test(directory)
    read, unread = _complete_profiles(found_places, test)
    found: list[Findings] = []
    for place, profile in zip(found_places, read, strict=True):
        if place.recordings:
            from pytest_eventlet_debug.recordings import recorded  # slow to import

            found.append(
                recorded.complete(
                    place,
                    test,
                    profile,
                    shared=shared,
                    ports=ports,
                    died_ns=died_ns,
                    redaction=redaction,
                )
            )
        else:
            found.append(findings_file.found())
            if profile:
                report_part.write(place.directory, lay_out(place.directory, test), profile)
    for place in found_places:
        if not place.is_cut:
            _pack(place)
    _write_findings(found_places, found)
    note_artifacts(directory)
    if unread is not None:
        raise unread


def _complete_profiles(
    found_places: Iterable[Place], test: TestRecord | None
) -> tuple[list[Stats], Exception | None]:
    """Return what was profiled in each place, and why something could not be read."""
    read: list[Stats] = []
    unread: Exception | None = None
    for place in found_places:
        profile: Stats = {}
        try:
            if test is not None and place.is_profiled:
                profile = profiles.complete(place.directory, test.nodeid, place.counts)
        except Exception as error:  # a test may lay anything in its place
            unread = error
        read.append(profile)
    return read, unread


def _write_findings(found_places: Sequence[Place], found: Sequence[Findings]) -> None:
    """Write what was found of a test and of its blocks into the test's directory."""
    place, own = found_places[0], found[0]
    findings, problems = list(own.findings), list(own.problems)
    if STALLS_FILE in place.names:
        findings = stalls.joined(stalls.read(place.directory), findings)
    for block, more in zip(found_places[1:], found[1:], strict=True):
        name = block.directory.name
        findings += _in_block(more.findings, name)
        problems += [f"{name}/{line}" for line in more.problems]
    if findings or any(each.recordings for each in found_places):
        placed = findings_file.in_place(findings, place.directory)
        findings_file.write(place.directory, findings_file.found(placed, problems, own.tally))


def _redact(place: Place, redaction: Redaction) -> None:
    """Take out of a trace what matches."""
    if place.is_traced:
        from pytest_eventlet_debug.recordings import recorded

        recorded.redact(place.directory / STRACE_FILE, redaction)


def _pack(place: Place) -> None:
    with contextlib.suppress(OSError):  # there is no room for both; it stays as it is
        for name in place.recordings:
            packing.pack(place.directory / name, _LONG_BYTES)


def _note_death(directory: Path) -> None:
    from pytest_eventlet_debug.recordings import death

    note_death(directory, death.phases(directory))


def _in_block(findings: Iterable[Finding], block: str) -> Iterator[Finding]:
    """Say of findings that they are of a block's recordings, which are in its directory."""
    for finding in findings:
        evidence = tuple(
            replace(each, file=f"{block}/{each.file}") if each.file is not None else each
            for each in finding.evidence
        )
        yield replace(finding, block=block, evidence=evidence)


def expect(tracers: Collection[str]) -> None:
    """Import what completing recordings takes, before the first one waits for that.

    :param tracers: the names of those that will record.
    """
    if "cprofile" in tracers:
        with contextlib.suppress(Exception):  # it will be said of each
            profiles.import_converter()
    if not {"strace", "pcap"}.isdisjoint(tracers):
        from pytest_eventlet_debug.recordings import recorded  # noqa: F401


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
