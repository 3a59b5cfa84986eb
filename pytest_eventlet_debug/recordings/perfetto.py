"""A timeline as a Chrome trace, for https://ui.perfetto.dev and ``chrome://tracing``.

The format is the Trace Event Format,
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU. Times are
microseconds since the first event, whose time stands in ``otherData``: viewers drop what
is before zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import itertools
import json
import re
from typing import Any
from typing import TextIO

from pytest_eventlet_debug.recordings.rows import Row
from pytest_eventlet_debug.recordings.rows import Timeline

_STARTED = re.compile(r"(?:clone3?|v?fork)\(.*\) = (\d+)")
_PROGRAM = re.compile(r'execve\("(?:[^"]*/)?([^"/]+)"')

#: Characters of one call's text; what strace -s lets through is not all needed here.
_TEXT = 1000


def write(timeline: Timeline, file: TextIO) -> None:
    """Write a timeline as one JSON object, an event on each line."""
    about = {
        "nodeid": timeline.nodeid,
        "begin_unix_ns": _zero(timeline),
        "left_out": timeline.left_out,
        "problems": timeline.problems,
    }
    file.write(f'{{"displayTimeUnit": "ns",\n"otherData": {json.dumps(about)},\n"traceEvents": [')
    separator = "\n"
    for event in events(timeline):
        file.write(separator + json.dumps(event))
        separator = ",\n"
    file.write("\n]}\n")


def events(timeline: Timeline) -> Iterator[dict[str, Any]]:
    """Yield the trace events of a timeline, and before them the names of their tracks."""
    zero = _zero(timeline)
    last_ns = max((row.time_ns + (row.duration_ns or 0) for row in timeline.rows), default=zero)
    tracks = _Tracks(timeline.rows)
    running: dict[int, Row] = {}
    found = []
    for row in timeline.rows:
        if row.kind == "switch":
            assert row.pid is not None
            before = running.get(row.pid)
            if before is not None:
                found.append(_run(before, row.time_ns, zero, tracks))
            running[row.pid] = row
        else:
            found.extend(_events(row, zero, tracks))
    found += [_run(row, last_ns, zero, tracks) for row in running.values()]
    yield from tracks.names()
    yield from found


def _zero(timeline: Timeline) -> int:
    """Return the time of the first event; a packet may belong to a call before all rows."""
    causes = (row.cause.start_ns for row in timeline.rows if row.cause is not None)
    rows = (row.time_ns for row in timeline.rows)
    return min((*causes, *rows), default=timeline.begin_ns)


class _Tracks:
    """The processes and threads of the trace, real ones and those made up for it.

    :ivar test: the number of the one for the test as a whole; viewers show the numbers, so
        these are small ones that no real process has.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        traced = [row for row in rows if row.pid is not None and row.kind != "packet"]
        self._process_of = {row.pid or 0: row.process or row.pid or 0 for row in traced}
        self._names = {}
        # Greenthreads are marked in the test's process alone.
        labelled = (row.pid for row in traced if row.kind == "switch")
        main = next(labelled, None)
        if main is not None:
            self._names[main] = "pytest"
        started = set()
        for row in traced:
            program = _PROGRAM.match(row.text) if not row.failed else None
            clone = _STARTED.match(row.text)
            if program is not None:
                self._names[row.pid or 0] = program[1]
            elif clone is not None:
                started.add(int(clone[1]))
        for thread, process in self._process_of.items():
            if thread == process and thread not in started and main is not None:
                self._process_of[thread] = main  # it was there before the trace
        self._free = (n for n in itertools.count(1) if n not in self._process_of)
        self.test, self._network = next(self._free), next(self._free)
        self._greenthreads: dict[int, int] = {}
        self._processes = {self.test: "test"}
        self._threads: dict[tuple[int, int], str] = {(self.test, 1): "phases"}
        self._flows: dict[str, int] = {}

    def of_thread(self, row: Row) -> tuple[int, int]:
        thread = row.pid or 0
        process = self._process_of.get(thread, thread)
        self._processes.setdefault(process, self._names.get(process, "process"))
        self._threads.setdefault((process, thread), "thread")
        return process, thread

    def of_greenthreads(self, row: Row) -> tuple[int, int]:
        process, thread = self.of_thread(row)
        if thread not in self._greenthreads:
            self._greenthreads[thread] = next(self._free)
        number = self._greenthreads[thread]
        self._threads.setdefault((process, number), f"greenthreads of {thread}")
        return process, number

    def of_flow(self, row: Row) -> tuple[int, int]:
        words = row.text.split()
        ends = sorted(words[at] for at in (1, 3)) if row.name and len(words) > 3 else []
        name = f"{words[0]} {' and '.join(ends)}" if ends and words[2] == "->" else "other packets"
        number = self._flows.setdefault(name, len(self._flows) + 1)
        self._processes.setdefault(self._network, "packets")
        self._threads.setdefault((self._network, number), name)
        return self._network, number

    def names(self) -> Iterator[dict[str, Any]]:
        for process, name in self._processes.items():
            yield _metadata("process_name", process, 0, name)
            order = {self.test: 0, self._network: 2}.get(process, 1)
            yield {
                **_metadata("process_sort_index", process, 0, name),
                "args": {"sort_index": order},
            }
        for (process, thread), name in self._threads.items():
            yield _metadata("thread_name", process, thread, name)


def _metadata(kind: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": process, "tid": thread, "args": {"name": name}}


def _events(row: Row, zero: int, tracks: _Tracks) -> Iterator[dict[str, Any]]:
    if row.kind == "phase":
        yield _slice(
            row, zero, tracks.test, 1, row.name, row.duration_ns or 0, {"outcome": row.text}
        )
    elif row.kind == "syscall":
        process, thread = tracks.of_thread(row)
        facts = {"call": row.text[:_TEXT], "trace line": row.line}
        if row.greenthread is not None:
            facts["greenthread"] = row.greenthread
        if row.at is not None:
            facts["at"] = row.at
        name = f"{row.name} (failed)" if row.failed else row.name
        yield _slice(row, zero, process, thread, name, row.duration_ns or 0, facts)
    elif row.kind == "packet":
        process, thread = tracks.of_flow(row)
        # A slice and not an instant: an arrow needs one to end at.
        yield _slice(row, zero, process, thread, row.text, 1000, {"packet": row.line})
        if row.cause is not None and row.cause.start_ns <= row.time_ns:
            arrow = {"name": "sent", "cat": "packet", "id": row.line}
            sent = (row.cause.start_ns - zero) / 1000
            whence = tracks.of_thread(row)
            yield {**arrow, "ph": "s", "ts": sent, "pid": whence[0], "tid": whence[1]}
            ended = (row.time_ns - zero) / 1000
            yield {**arrow, "ph": "f", "bp": "e", "ts": ended, "pid": process, "tid": thread}
    else:
        process, thread = (tracks.test, 1) if row.kind == "dump" else tracks.of_thread(row)
        yield {
            "ph": "i",
            "s": "t",
            "name": row.name or row.text,
            "cat": row.kind,
            "ts": (row.time_ns - zero) / 1000,
            "pid": process,
            "tid": thread,
            "args": {"text": row.text[:_TEXT]},
        }


def _run(row: Row, until_ns: int, zero: int, tracks: _Tracks) -> dict[str, Any]:
    process, thread = tracks.of_greenthreads(row)
    length = max(until_ns - row.time_ns, 0)
    return _slice(row, zero, process, thread, row.greenthread or "", length, {})


def _slice(
    row: Row,
    zero: int,
    process: int,
    thread: int,
    name: str,
    duration_ns: int,
    facts: dict[str, Any],
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": row.kind,
        "ts": (row.time_ns - zero) / 1000,
        "dur": duration_ns / 1000,
        "pid": process,
        "tid": thread,
        "args": facts,
    }
