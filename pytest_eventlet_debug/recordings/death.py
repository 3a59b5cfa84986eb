"""How far a test had got when its process died in it, from its trace."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from pathlib import Path

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Phase

_MARK = f'"{marks.PREFIX}{marks.PHASE}/'
_END = " +++ "


def phases(directory: Path) -> dict[str, tuple[int, int]]:
    """Return when each phase began and ended, the last one with the process.

    :return: nanoseconds since the epoch; nothing where the trace does not reach until then, so
        that phases may be missing.
    """
    begun: dict[str, Phase] = {}
    ended: Exit | None = None
    with contextlib.suppress(StraceLogError):
        for event in parse(_telling(directory / STRACE_FILE)):
            if isinstance(event, Phase):
                begun[event.phase] = event
            elif isinstance(event, Exit) and begun and event.pid == _last(begun).pid:
                ended = event
    if ended is None:
        return {}
    begins = [*(each.time_ns for each in begun.values()), ended.time_ns]
    return {name: (begins[place], begins[place + 1]) for place, name in enumerate(begun)}


def _telling(path: Path) -> Iterator[str]:
    """Yield the lines that may tell of phases and of the end; they are a few of a million."""
    with open_log(path) as log:
        yield from (line for line in log if _MARK in line or _END in line)


def _last(begun: dict[str, Phase]) -> Phase:
    return begun[next(reversed(begun))]
