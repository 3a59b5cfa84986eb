"""What each thread of a process that hangs did last, and the call that it is in."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from pytest_eventlet_debug.recordings.findings.processes import Processes
from pytest_eventlet_debug.recordings.own_work import without_own_work
from pytest_eventlet_debug.recordings.story import is_runners
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: Calls that are shown of all threads together, and of each at least.
_ALL = 24
_LEAST = 3
_MOST_THREADS = 12
_TEXT = 300


def describe(
    lines: Iterable[str],
    now_ns: int,
    main: int | None = None,
    children: Mapping[int, str] | None = None,
    own: Collection[int] = (),
) -> Iterator[str]:
    """Yield the last calls of each thread that has not ended, below the thread's name.

    Marks are none of them, nor what pytest and this plugin do. Threads whose last call has returned
    come last.

    :param lines: what strace writes of the process, as far as it has got.
    :param now_ns: the time, nanoseconds since the epoch, up to which a call has not returned.
    :param main: the test's process as strace calls it; ``None`` for the first that is seen.
    :param children: the command lines of processes whose start the lines do not show.
    :param own: threads of this plugin's that the lines may not name.
    :raises StraceLogError: the lines cannot be read.
    """
    processes = Processes(main)
    handlers = processes.handlers()
    threads: dict[int, deque[Syscall]] = {}
    for event in without_own_work(parse(lines), own):
        if isinstance(event, Exit):
            threads.pop(event.pid, None)
        elif isinstance(event, Syscall):
            if processes.main is None:
                processes.main = event.pid
            handler = handlers.get(event.name)
            if handler is not None:
                handler(event)
            if _is_in_call(event) or not is_runners(f"{event.name}({event.args}", event.at):
                threads.setdefault(event.pid, deque(maxlen=_ALL)).append(event)
    shown = sorted(threads.items(), key=lambda item: (not _is_in_call(item[1][-1]), item[0]))
    each = max(_ALL // max(len(shown), 1), _LEAST)
    for thread, calls in shown[:_MOST_THREADS]:
        program = (children or {}).get(thread)
        name = f"child process {thread} ({program})" if program else _name(processes, thread)
        yield f"{name}:"
        for call in list(calls)[-each:]:
            yield f"  {_line(call, now_ns)}"
    if len(shown) > _MOST_THREADS:
        yield f"and {len(shown) - _MOST_THREADS} more threads"


def _is_in_call(call: Syscall) -> bool:
    return call.state in ("unfinished", "truncated", "detached")


def _name(processes: Processes, thread: int) -> str:
    if thread == processes.main:
        return f"its process {thread}"
    return processes.describe(thread, None)


def _line(call: Syscall, now_ns: int) -> str:
    who = f"[{call.greenthread}] " if call.greenthread is not None else ""
    if _is_in_call(call):
        seconds = max(now_ns - call.start_ns, 0) / 1e9
        text = f"{call.name}({call.args.rstrip(', ')[:_TEXT]}{call.where}"
        return f"{who}{text}: has not returned in {seconds:.1f} s"
    return f"{who}{call.name}({call.args[:_TEXT]}) = {call.ret}{call.where}"
