"""Leave the thread that watches for stalls out of a trace: it is ours, and no test's."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
import re

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Syscall

_MARK = lazily(rf'"{re.escape(marks.PREFIX + marks.WATCHER)}(?:/(\d{{1,10}}))?"')


def without_own_thread(events: Iterable[Event], known: Collection[int] = ()) -> Iterator[Event]:
    """Pass on all events but the watcher's marks, and those of the thread that they name.

    :param known: threads that are left out, whether or not a mark names them.
    """
    own = set(known)
    for event in events:
        mark = None
        if type(event) is Syscall and event.name in marks.CALLS:
            mark = _MARK.search(event.args)
        if type(event) is Syscall and mark is not None:
            own.add(int(mark[1]) if mark[1] else event.pid)
        elif not own or getattr(event, "pid", None) not in own:
            yield event
