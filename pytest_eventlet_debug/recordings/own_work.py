"""Leave out of a trace what is ours, and no test's: the watcher of stalls, and dumps."""

from __future__ import annotations

from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
import re

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Syscall

_MARK = lazily(
    rf'"{re.escape(marks.PREFIX)}(?:{marks.WATCHER}(?:/(\d{{1,10}}))?|{marks.OWN}/(begins|ends))"'
)


def without_own_work(events: Iterable[Event], known: Collection[int] = ()) -> Iterator[Event]:
    """Pass on all events but those of the watcher, and of a thread that does our work just now.

    The marks that say so are left out, too.

    :param known: threads that are left out, whether or not a mark names them.
    """
    own = set(known)
    for event in events:
        mark = None
        if type(event) is Syscall and event.name in marks.CALLS:
            mark = _MARK.search(event.args)
        if type(event) is Syscall and mark is not None:
            if mark[2] == "ends":
                own.discard(event.pid)
            else:
                own.add(int(mark[1]) if mark[1] else event.pid)
        elif not own or getattr(event, "pid", None) not in own:
            yield event
