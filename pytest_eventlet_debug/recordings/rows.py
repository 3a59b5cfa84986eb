"""What happened in a test as rows on one clock, whatever recorded them."""

from __future__ import annotations

from collections.abc import Iterable
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Literal
from typing import NamedTuple

import msgspec

from pytest_eventlet_debug.artifact_names import TASKS_FILE
from pytest_eventlet_debug.artifact_records import GOOD_ENDS
from pytest_eventlet_debug.artifact_records import TestRecord

if TYPE_CHECKING:
    from pytest_eventlet_debug.recordings.attribution import Call

Kind = Literal["phase", "syscall", "signal", "thread", "switch", "packet", "dump"]


class Row(NamedTuple):
    """One thing that happened."""

    #: Nanoseconds since the epoch; a call's entry.
    time_ns: int
    kind: Kind
    #: One line for a reader: the call as strace wrote it, a packet's ends and flags.
    text: str
    #: The thread, as in strace's first column.
    pid: int | None = None
    #: The process of that thread, as far as the trace tells.
    process: int | None = None
    greenthread: str | None = None
    duration_ns: int | None = None
    #: Line of ``strace.txt``, or number of the packet in its file.
    line: int | None = None
    #: The call, signal or phase.
    name: str = ""
    failed: bool = False
    #: The call that sent a packet.
    cause: Call | None = None
    #: The line of Python that made a call, see :class:`~.trace_events.Syscall`.
    at: str | None = None


class Timeline(msgspec.Struct, frozen=True):
    """All rows of one test in the order of their times.

    :param nodeid: the test, or ``""`` where there is no ``test.json``.
    :param problems: what could not be read, a line each.
    :param left_out: how many rows in the middle of a long trace are missing.
    """

    nodeid: str
    rows: list[Row]
    problems: list[str]
    left_out: int = 0

    @property
    def begin_ns(self) -> int:
        """The time that counts as zero: the first phase's, else the first row's."""
        phases = (row.time_ns for row in self.rows if row.kind == "phase")
        return next(phases, self.rows[0].time_ns if self.rows else 0)


def lay_out(
    directory: Path,
    test: TestRecord | None,
    calls: Iterable[Row] = (),
    packets: Iterable[Row] = (),
    problems: Iterable[str] = (),
    left_out: int = 0,
) -> Timeline:
    """Lay what was recorded, and all else that is known of a test, on one clock.

    :param directory: the test's or a block's, where the dumps are.
    :param calls: the rows of a trace.
    :param packets: those of a capture.
    :param problems: what could not be read.
    :param left_out: how many rows are not among these.
    """
    rows = [*calls, *phase_rows(test), *_dump_rows(directory), *packets]
    rows.sort(key=when)
    return Timeline(test.nodeid if test else "", rows, list(problems), left_out)


def phase_rows(test: TestRecord | None) -> list[Row]:
    """Return the phases of a test; none where nothing is known of it."""
    rows = []
    for phase, (begin_ns, end_ns) in (test.phases if test else {}).items():
        outcome = test.outcomes.get(phase) if test else None
        text = f"{phase}: {outcome}" if outcome else phase
        failed = outcome is not None and outcome not in GOOD_ENDS
        duration = max(end_ns - begin_ns, 0)
        rows.append(Row(begin_ns, "phase", text, duration_ns=duration, name=phase, failed=failed))
    return rows


def _dump_rows(directory: Path) -> list[Row]:
    rows = []
    with contextlib.suppress(OSError):
        written_ns = (directory / TASKS_FILE).stat().st_mtime_ns
        rows.append(Row(written_ns, "dump", TASKS_FILE, name=TASKS_FILE))
    return rows


def when(row: Row) -> int:
    """Return the time of a row, to sort by."""
    return row.time_ns
