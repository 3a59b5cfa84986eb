"""What the HTML report shows of one test's recordings, in one file: ``report.js``.

A page that was opened from a file may load scripts and nothing else, so the data is a script
with one call in it. The rows of a timeline are stored by column, as JSON, compressed: a few per
cent of the trace's size. Whatever a test may have written, the script holds base64 alone.
"""

from __future__ import annotations

from array import array
import base64
from collections.abc import Iterable
from collections.abc import Sequence
import json
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any
import zlib

import msgspec

from pytest_eventlet_debug.artifact_names import PART_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.system import files

if TYPE_CHECKING:
    from pytest_eventlet_debug.profiling.stats import Stats
    from pytest_eventlet_debug.recordings.rows import Row
    from pytest_eventlet_debug.recordings.rows import Timeline

_BEGIN, _END = 'eventletReport.receive("', '");\n'
_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/="

#: Rows that repeat, from which on the timeline marks them.
_LEAST_ROWS = 10

#: No part that is written comes near.
_MOST_BYTES = 256 << 20

#: What else is on a timeline than recordings.
_UNTRACED = frozenset(("phase", "dump"))

#: Half as long as the best takes, for a file that is a fifth larger.
_LEVEL = 4


def script(data: Any) -> str:
    """Return a script that hands *data*, which can be JSON, to the page that loads it."""
    return script_of(as_json(data))


def as_json(data: Any) -> str:
    """Return *data* as JSON."""
    try:
        return msgspec.json.encode(data).decode()
    except UnicodeEncodeError:  # of a name that is not UTF-8
        return json.dumps(data, separators=(",", ":"))


def script_of(text: str) -> str:
    """Return a script that hands over what is JSON already."""
    packed = base64.b64encode(zlib.compress(text.encode(), _LEVEL)).decode("ascii")
    return f"{_BEGIN}{packed}{_END}"


def is_part(path: Path) -> bool:
    """Say whether a file is a script of :func:`script`'s, and nothing more.

    A test may have written one of this name, which the page must not run.
    """
    try:
        raw = files.read(path, _MOST_BYTES)
    except OSError:
        return False
    begin, end = _BEGIN.encode(), _END.encode()
    is_call = raw.startswith(begin) and raw.endswith(end)
    return is_call and not raw[len(begin) : -len(end)].translate(None, _BASE64)


def write(
    directory: Path, timeline: Timeline, profile: Stats | None = None, path: Path | None = None
) -> None:
    """Write the part of a test, or of a block of one.

    :param directory: where the recordings are.
    :param profile: by default the one there.
    :param path: the file, by default the one there.
    :raises OSError: it cannot be written.
    """
    from pytest_eventlet_debug.recordings import flame_graph  # most parts are the finisher's

    if profile is None:
        flames = flame_graph.read(directory / PROFILE_FILE)
    else:
        flames = flame_graph.build(profile)
    data = {**_columns(timeline), "flames": flames}
    files.write_first(path or directory / PART_FILE, script(data).encode("ascii"))


def _columns(timeline: Timeline) -> dict[str, Any]:
    return {
        "begin": str(timeline.begin_ns),  # more than a JavaScript number can hold
        "leftOut": timeline.left_out,
        "problems": timeline.problems,
        **_Columns(timeline.rows, timeline.begin_ns).as_json(),
        **_folded(timeline.rows),
    }


def _folded(rows: Sequence[Row]) -> dict[str, Any]:
    """Return which rows the timeline leaves out at first, its imports by the place of their first
    call, and what repeats: places, how often, and the calls of a turn.
    """
    if all(row.kind in _UNTRACED for row in rows):
        return {"untold": [0] * len(rows), "imports": {}, "repeats": []}
    from pytest_eventlet_debug.recordings import story  # it needs all that reads traces

    told = story.told(rows)
    return {
        "untold": [int(n not in told) for n in range(len(rows))],
        "imports": {
            n: [(row.duration_ns or 0) // 1000, _text(row)]
            for n, row in told.items()
            if row is not rows[n]
        },
        "repeats": [
            [first, last, chapter.count, ", ".join(dict.fromkeys(row.name for row in chapter.rows))]
            for first, last, chapter in story.repeats(told)
            if len(chapter.rows) * chapter.count >= _LEAST_ROWS
        ],
    }


def _text(row: Row) -> str:
    return row.text if row.at is None else f"{row.text} at {row.at}"


class _Columns:
    """The rows of a timeline, a list for each field; times are microseconds."""

    def __init__(self, rows: Iterable[Row], begin_ns: int) -> None:
        self._kinds: dict[str, int] = {}
        self._names: dict[str, int] = {}
        self._lanes: dict[tuple[int | None, str | None], int] = {}
        self._texts: list[str] = []
        self._columns = {name: array("q") for name in ("k", "n", "l", "t", "d", "f", "i")}
        self._causes: dict[int, tuple[int, int, str]] = {}
        for row in rows:
            self._add(row, begin_ns)

    def _add(self, row: Row, begin_ns: int) -> None:
        lane = (None, None) if row.kind in ("phase", "dump") else (row.pid, row.greenthread)
        duration = row.duration_ns
        values = (
            self._kinds.setdefault(row.kind, len(self._kinds)),
            self._names.setdefault(row.name, len(self._names)),
            self._lanes.setdefault(lane, len(self._lanes)),
            (row.time_ns - begin_ns) // 1000,
            -1 if duration is None else duration // 1000,
            row.failed,
            row.line or 0,
        )
        if row.cause is not None:
            cause = row.cause
            self._causes[len(self._texts)] = (cause.line, cause.fd, cause.name)
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)
        self._texts.append(_text(row))

    def as_json(self) -> dict[str, Any]:
        return {
            "kinds": list(self._kinds),
            "names": list(self._names),
            "lanes": [list(lane) for lane in self._lanes],
            "texts": self._texts,
            "causes": self._causes,
            **{name: column.tolist() for name, column in self._columns.items()},
        }
