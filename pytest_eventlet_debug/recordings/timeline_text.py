"""A timeline as text, for a terminal and for grep."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator

from pytest_eventlet_debug.recordings.timeline import Row
from pytest_eventlet_debug.recordings.timeline import Timeline


def lines(timeline: Timeline, kinds: Collection[str] = ()) -> Iterator[str]:
    """Yield a line for each row, with the seconds since the test began in front.

    :param kinds: of the rows to show; empty for all.
    """
    if timeline.nodeid:
        yield timeline.nodeid
    zero = timeline.begin_ns
    for row in timeline.rows:
        if not kinds or row.kind in kinds:
            yield f"{_seconds(row.time_ns - zero):>12} {row.kind:7} {_text(row)}"
    if timeline.left_out:
        yield f"{timeline.left_out} rows in the middle of the trace are left out"
    for problem in timeline.problems:
        yield f"not complete: {problem}"


def _seconds(time_ns: int) -> str:
    sign = "-" if time_ns < 0 else ""
    seconds, rest = divmod(abs(time_ns), 1_000_000_000)
    return f"{sign}{seconds}.{rest // 1000:06}"


def _text(row: Row) -> str:
    parts = []
    if row.pid is not None and row.kind != "packet":
        parts.append(str(row.pid))
    if row.greenthread is not None and row.kind == "syscall":
        parts.append(f"[{row.greenthread}]")
    parts.append(row.text)
    if row.kind == "phase" and row.duration_ns is not None:
        parts.append(f"({row.duration_ns / 1e6:.3f} ms)")
    elif row.kind == "syscall" and row.duration_ns is not None:
        parts.append(f"<{_seconds(row.duration_ns)}>")
    cause = row.cause
    if cause is not None:
        who = f"[{cause.greenthread}] " if cause.greenthread is not None else ""
        later = (row.time_ns - cause.start_ns) / 1000
        parts.append(
            f"<- {who}{cause.name}(fd {cause.fd}), strace.txt line {cause.line}, "
            f"{later:.0f} us before"
        )
    return " ".join(parts).encode("utf-8", "backslashreplace").decode("utf-8")
