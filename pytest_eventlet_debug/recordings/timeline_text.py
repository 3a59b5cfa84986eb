"""A timeline as text, for a terminal and for grep."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterator

from pytest_eventlet_debug.phrasing import span
from pytest_eventlet_debug.recordings import story
from pytest_eventlet_debug.recordings.rows import Row
from pytest_eventlet_debug.recordings.rows import Timeline


def lines(timeline: Timeline, kinds: Collection[str] = (), *, raw: bool = False) -> Iterator[str]:
    """Yield a line for each row, with the seconds since the test began in front.

    :param kinds: of the rows to show; empty for all.
    :param raw: whether to show all rows, and each as strace wrote it.
    """
    if timeline.nodeid:
        yield timeline.nodeid
    rows = [row for row in timeline.rows if not kinds or row.kind in kinds]
    if raw:
        for row in rows:
            yield _line(row, timeline.begin_ns)
    else:
        yield from _story(rows, timeline.begin_ns, "switch" in kinds)
    if timeline.left_out:
        yield f"{timeline.left_out} rows in the middle of the trace are left out"
    for problem in timeline.problems:
        yield f"not complete: {problem}"


def _story(rows: list[Row], zero: int, switches: bool) -> Iterator[str]:
    left_out = story.LeftOut()
    for chapter in story.tell(rows, left_out, switches=switches):
        until = f"{chapter.count:,} times, until {_seconds(chapter.until_ns - zero)}"
        for row in chapter.rows:
            line = _line(row._replace(text=story.shortened(row.text)), zero)
            alone = chapter.count > 1 and len(chapter.rows) == 1
            yield f"{line}  ({until})" if alone else line
        if len(chapter.rows) > 1:
            yield f"{'':12} ^ these {len(chapter.rows)} rows {until}"
    if left_out.describe():
        yield f"not shown: {left_out.describe()}; --raw shows all"


def _line(row: Row, zero: int) -> str:
    return f"{_seconds(row.time_ns - zero):>12} {row.kind:7} {_text(row)}"


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
    if row.at is not None:
        parts.append(f"at {row.at}")
    cause = row.cause
    if cause is not None:
        who = f"[{cause.greenthread}] " if cause.greenthread is not None else ""
        later = span(row.time_ns - cause.start_ns)
        parts.append(
            f"<- {who}{cause.name}(fd {cause.fd}), trace line {cause.line}, {later} before"
        )
    return " ".join(parts)
