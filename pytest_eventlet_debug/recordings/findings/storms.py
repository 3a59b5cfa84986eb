"""Find syscall storms: a thread that makes the same few calls at full speed for nothing.

The model is the endless ``accept4(...) = -1 EBADF`` of eventlet#912, which people found
by reading straces. A *run* is a stretch of one thread's calls in which no byte moves and
few kinds of calls come again and again, in whatever order; so a loop that takes another
descriptor in each turn is found too. Three kinds come of it:

- ``storm``: the calls do no good; most telling is the one that fails.
- ``hub busy``: the hub polls and wakes nobody.
- ``spin``: one greenthread gives way without ever waiting for something. Where the hub need not
  poll meanwhile, there is no call at all, and it is the marks of switches that tell.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.call_names import SLEEPS
from pytest_eventlet_debug.recordings.findings.call_names import WAITS
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.polled_waits import Additions
from pytest_eventlet_debug.recordings.findings.polls import events_of
from pytest_eventlet_debug.recordings.findings.protocol import ANY_CALL
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.findings.storm_runs import PROGRESS
from pytest_eventlet_debug.recordings.findings.storm_runs import ROLES
from pytest_eventlet_debug.recordings.findings.storm_runs import WAIT
from pytest_eventlet_debug.recordings.findings.storm_runs import CallKind
from pytest_eventlet_debug.recordings.findings.storm_runs import Key
from pytest_eventlet_debug.recordings.findings.storm_runs import Role
from pytest_eventlet_debug.recordings.findings.storm_runs import Run
from pytest_eventlet_debug.recordings.findings.storm_runs import is_printed
from pytest_eventlet_debug.recordings.findings.storm_runs import key_of
from pytest_eventlet_debug.recordings.findings.storm_text import Caught
from pytest_eventlet_debug.recordings.findings.storm_text import Storm
from pytest_eventlet_debug.recordings.findings.storm_text import shown
from pytest_eventlet_debug.recordings.findings.storm_text import shown_in
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Gap
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import is_hub

#: How often the most frequent call of a run comes.
MIN_REPEATS = 60
MIN_CALLS_PER_KIND = 20
#: Calls a second; strace takes up to a millisecond for each call on a socket.
MIN_RATE = 200
#: The share of its time that a run may spend blocked; more is waiting, not spinning.
MAX_BLOCKED = 0.5
#: The share of the turns in which a call is made, or a greenthread runs, to count as a part.
MIN_SHARE = 0.1
#: The share of the hub's polls after which a greenthread runs; before a timer is due, the ``poll``
#: hub polls some 15 times without waiting, as its timeout is whole milliseconds.
MIN_WOKEN_SHARE = 0.02
#: How often it has to run for that; once or twice is the beginning or the end.
MIN_WOKEN = 5
MIN_RUN_SECONDS = 0.02
#: All runs of one pattern.
MIN_SECONDS = 0.1
#: A test may well call ``sleep(0)`` one or two thousand times.
MIN_SPIN_TURNS = 10_000
#: Turns in a row that no system call interrupts, of which those are made up.
MIN_TURNS = 500
_MOST_PATTERNS = 256

_USUAL_ERRORS = frozenset(("EAGAIN", "EINPROGRESS", "EALREADY", "EINTR"))


class Storms:
    """The detector of storms."""

    kind: ClassVar[Kind] = "storm"

    def __init__(self, trace: Trace) -> None:
        self._processes = trace.processes
        self._registrations = trace.registrations
        self._additions = Additions()
        self._runs: dict[int, Run] = {}
        self._found: dict[object, Storm] = {}

    def handlers(self) -> Handlers:
        return {ANY_CALL: self._call, ANY_OTHER: self._other}

    def _call(self, call: Syscall) -> None:
        name = call.name
        role = ROLES.get(name)
        if role == "ignored":
            return
        if role == "wait" and name in POLLS:
            self._additions.waited(call)
        run = self._runs.get(call.pid) or self._run(call.pid)
        if run.turns:
            self._end_turns(run)
        early = run.early
        if early is None:
            self._count(call, run, role)
        elif role == "transfer" and call.value and call.value > 0:
            if not is_printed(call):
                run.clear()
        else:
            early.append(call)
            if len(early) == MIN_REPEATS:
                run.early = None
                for each in early:
                    self._count(each, run, ROLES.get(each.name))

    def _count(self, call: Syscall, run: Run, role: Role | None) -> None:
        """Add a call to the thread's run, or end that."""
        key = key_of(call, role)
        if key is PROGRESS:
            self._end(call.pid, run)
        elif key is not None:
            if not run.has_room(key):
                self._end(call.pid, run)
                run.early = None
            run.add(key, call, role)

    def _run(self, pid: int) -> Run:
        if self._processes.main is None:
            self._processes.main = pid
        run = self._runs[pid] = Run()
        return run

    def _other(self, event: Event) -> None:
        if type(event) is Switch:
            run = self._runs.get(event.pid) or self._run(event.pid)
            run.ran[event.greenthread] = run.ran.get(event.greenthread, 0) + 1
            self._additions.ran(event.pid, event.greenthread)
            if not is_hub(event.greenthread):
                self._turn(run, event)
        elif type(event) is Exit and event.pid in self._runs:
            run = self._runs.pop(event.pid)
            self._end(event.pid, run)
            self._end_turns(run)
        elif type(event) is Gap:
            for run in self._runs.values():
                self._end_turns(run)

    def _turn(self, run: Run, switch: Switch) -> None:
        """Count how often a greenthread runs with only the hub in between."""
        if run.last_turn is None or run.last_turn.greenthread != switch.greenthread:
            self._end_turns(run)
        if not run.turns:
            run.first_turn = switch
        run.turns += 1
        run.last_turn = switch

    def _end_turns(self, run: Run) -> None:
        """Judge the turns that end here with a call, or because another greenthread runs."""
        first, last = run.first_turn, run.last_turn
        if run.turns >= MIN_TURNS and first is not None and last is not None:
            seconds = (last.time_ns - first.time_ns) / 1e9
            who = last.greenthread
            text = f"greenthread {who} and the hub run in turns, without a system call"
            storm = Storm("spin", text, (text,), run.turns, seconds, last.pid, who, first.line)
            self._add((last.pid, "spin", None, who), storm)
        run.turns = 0

    def _add(self, same: object, storm: Storm) -> None:
        known = self._found.get(same)
        if known is not None:
            known.count += storm.count
            known.duration += storm.duration
        elif len(self._found) < _MOST_PATTERNS:
            self._found[same] = storm

    def _end(self, pid: int, run: Run) -> None:
        """Judge the run that ends here, and begin another."""
        for kind in run.kinds.values():
            if kind.count >= MIN_REPEATS:
                self._judge(pid, run)
                break
        run.clear()

    def _judge(self, pid: int, run: Run) -> None:
        kinds = run.kinds
        calls = sum(kind.count for kind in kinds.values())
        first = min((kind.first for kind in kinds.values()), key=lambda call: call.line)
        last = max((kind.last for kind in kinds.values()), key=lambda call: call.line)
        seconds = (last.start_ns + (last.duration_ns or 0) - first.start_ns) / 1e9
        if (
            seconds < MIN_RUN_SECONDS
            or calls < MIN_CALLS_PER_KIND * len(kinds)
            or calls < MIN_RATE * seconds
            or run.blocked_ns >= MAX_BLOCKED * seconds * 1e9
            # Short sleeps in a row take less time asleep than strace takes to write them down.
            or all(kind.first.name in SLEEPS for kind in kinds.values())
        ):
            return
        self._record(pid, run, seconds)

    def _record(self, pid: int, run: Run, seconds: float) -> None:
        kinds = sorted(_frequent(run.kinds).items(), key=_rank)
        telling = kinds[0][1]
        others = _others(run.ran, [kind for _, kind in kinds])
        name = _name(kinds, others)
        if name == "hub busy" and _wakes(run.ran, telling.count):
            name = None  # there are timers that come due
        if name is None:
            return
        pattern = tuple(shown(key, kind.last) for key, kind in kinds)
        storm = Storm(
            name,
            pattern[0],
            pattern,
            telling.count,
            seconds,
            pid,
            next(iter(others)) if name == "spin" else telling.last.greenthread,
            telling.first.line,
            self._caught(pid, run),
            at=telling.last.where if name == "storm" else "",
        )
        self._add((pid, name, frozenset(key for key, _ in kinds), storm.greenthread), storm)

    def _caught(self, pid: int, run: Run) -> tuple[Caught, ...]:
        """Return what the run's waits brought, the descriptors in the order of their numbers."""
        found: dict[int, Caught] = {}
        frequent = _frequent(run.kinds)
        # To close it once is what ends the run, or comes after it.
        used = {key[1] for key in run.kinds if key[0] != "close" or key in frequent}
        for kind in frequent.values():
            if kind.last.name not in WAITS:
                continue
            at_first = {fd for _, fd in events_of(kind.first)}
            for events, fd in events_of(kind.amid):
                since = fd in at_first
                call = kind.first if since else kind.amid
                known = self._registrations.find(pid, fd, call.line)
                text = shown_in(call, fd)
                added = self._additions.find(pid, fd)
                end = self._registrations.ended(pid, fd)
                end = end if end is not None and end.line < call.line else None
                # Once it is closed, its number may be another's.
                served = str(fd) in used and (known is not None or end is None)
                found[fd] = Caught(events, fd, known, added, served, text, call.line, since, end)
        return tuple(found[fd] for fd in sorted(found))

    def storms(self) -> list[Storm]:
        """Return the storms, the longest first."""
        for pid, run in self._runs.items():
            self._end(pid, run)
            self._end_turns(run)
        long = [
            storm
            for storm in self._found.values()
            if storm.duration >= MIN_SECONDS
            and (storm.count >= MIN_SPIN_TURNS or not storm.may_be_progress)
        ]
        for storm in long:
            storm.who = self._processes.describe(storm.pid, storm.greenthread)
        return sorted(long, key=lambda storm: (-storm.duration, storm.line))

    def findings(self) -> Iterable[Finding]:
        for storm in self.storms():
            yield Finding(
                storm.kind,
                storm.describe(),
                tuple(Evidence(call, STRACE_FILE, storm.line) for call in storm.pattern[:1]),
                counts={"calls": storm.count, "seconds": storm.duration},
            )


def _rank(item: tuple[Key, CallKind]) -> tuple[bool, bool, bool, int]:
    """Sort the call that says what is wrong to the front."""
    key, kind = item
    failed = isinstance(key[2], str)
    return key[0] == WAIT, not (_is_trouble(key) or failed), not _is_trouble(key), kind.first.line


def _is_trouble(key: Key) -> bool:
    """Say whether a call failed otherwise than calls that do not block do as a rule."""
    return isinstance(key[2], str) and key[2] not in _USUAL_ERRORS


def _frequent(kinds: dict[Key, CallKind]) -> dict[Key, CallKind]:
    """Return the kinds of calls that are the loop's, without what fell into its time."""
    turns = max(kind.count for kind in kinds.values())
    return {key: kind for key, kind in kinds.items() if kind.count >= MIN_SHARE * turns}


def _wakes(ran: dict[str | None, int], polls: int) -> bool:
    """Say whether the hub has somebody run now and then."""
    least = max(MIN_WOKEN, MIN_WOKEN_SHARE * polls)
    return any(count >= least for each, count in ran.items() if not is_hub(each))


def _others(ran: dict[str | None, int], kinds: list[CallKind]) -> set[str | None]:
    """Return the greenthreads that ran again and again and made no call of the loop."""
    turns = max(kind.count for kind in kinds)
    often = {each for each, count in ran.items() if count >= MIN_SHARE * turns}
    return often.difference(*((kind.first.greenthread, kind.last.greenthread) for kind in kinds))


def _name(kinds: list[tuple[Key, CallKind]], others: set[str | None]) -> Kind | None:
    """Return the kind of finding that a run is; ``None`` for progress.

    :param others: the greenthreads that ran meanwhile and made no call of the run.
    """
    if any(_is_trouble(key) for key, _ in kinds):
        return "storm"
    by_hub = all(is_hub(kind.last.greenthread) for _, kind in kinds)
    if not others:
        only_waits = all(key[0] == WAIT for key, _ in kinds)
        return "hub busy" if only_waits and by_hub else "storm"
    return "spin" if len(others) == 1 and by_hub else None
