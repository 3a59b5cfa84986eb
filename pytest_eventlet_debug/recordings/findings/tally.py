"""Count the calls of a test, and compare the counts of one test on several hubs.

Only what says something about the test itself is compared. Waits and registrations are
each hub's own way; files and memory are those of imports, which the first test on a hub
pays for. Time counts where the hub slept until a timer was due: unlike the wall clock,
and unlike waiting for others, it does not grow with the load of the machine.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path

import msgspec

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.call_names import SLEEPS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import ANY_CALL
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import Event
from pytest_eventlet_debug.recordings.strace_log import Phase
from pytest_eventlet_debug.recordings.strace_log import Syscall
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse

MIN_CALLS = 20
MIN_RATIO = 4.0
"""Calls on one hub for each on another; a retry more or less is no difference."""
MIN_SECONDS = 0.3
MIN_SECONDS_RATIO = 2.0
MIN_SECONDS_SHARE = 0.7
"""How much of the longer sleep must show in the time that the test took."""

_COMPARED = names(
    """socket socketpair bind listen accept accept4 connect shutdown getsockname getpeername
    sendto sendmsg recvfrom recvmsg setsockopt getsockopt pipe pipe2 eventfd2
    fork vfork clone clone3 execve wait4 waitid kill tgkill"""
)
_WAITS = SLEEPS | POLLS
_HUB = ":hub"


class Tally(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a test did in its call phase, in figures.

    :param calls: how often each system call was made, children included.
    :param seconds: from the first to the last call.
    :param slept: seconds of these that the hub slept until a timer was due.
    :param line: of the longest such sleep in the trace; ``None`` without any.
    """

    calls: dict[str, int] = {}
    seconds: float = 0.0
    slept: float = 0.0
    line: int | None = None


class Tallying:
    """Counts while a trace passes by; takes part in a detection by its handlers."""

    def __init__(self, about: About) -> None:
        self._main: int | None = None
        self._in_call = False
        self._calls: dict[str, int] = {}
        self._first_ns = 0
        self._last_ns = 0
        self._slept_ns = 0
        self._longest_ns = 0
        self._line: int | None = None

    def handlers(self) -> Mapping[str, Callable[[Syscall], None] | Callable[[Event], None]]:
        waits = dict.fromkeys(_WAITS, self._wait)
        return {**waits, ANY_CALL: self._call, ANY_OTHER: self._other}

    def _call(self, call: Syscall) -> None:
        if self._in_call:
            self._calls[call.name] = self._calls.get(call.name, 0) + 1
            self._last_ns = call.start_ns

    def _wait(self, call: Syscall) -> None:
        duration_ns = call.duration_ns
        if (
            not duration_ns
            or call.value != 0
            or not self._in_call
            or call.pid != self._main
            or not (call.greenthread or "").endswith(_HUB)
        ):
            return
        self._slept_ns += duration_ns
        if duration_ns > self._longest_ns:
            self._longest_ns, self._line = duration_ns, call.line

    def _other(self, event: Event) -> None:
        if type(event) is Phase:
            self._in_call = event.phase == "call"
            if self._in_call:
                self._first_ns = event.time_ns
            self._main = event.pid

    def tally(self) -> Tally:
        """Return the figures, once the trace has ended."""
        seconds = max(self._last_ns - self._first_ns, 0) / 1e9
        return Tally(self._calls, seconds, self._slept_ns / 1e9, self._line)


def compare(tallies: Mapping[str, Tally]) -> list[Finding]:
    """Say what one test cost more on one hub than on another, most telling first.

    :param tallies: of one test that ended alike on all these hubs, by the hub's name.
    """
    if len(tallies) < 2:
        return []
    return [*_slept(tallies), *_calls(tallies)]


def _slept(tallies: Mapping[str, Tally]) -> Iterator[Finding]:
    most = max(tallies, key=lambda hub: tallies[hub].slept)
    least = min(tallies, key=lambda hub: tallies[hub].slept)
    long, short = tallies[most], tallies[least]
    more = long.slept - short.slept
    if more < MIN_SECONDS or long.slept < MIN_SECONDS_RATIO * short.slept:
        return
    if long.seconds - short.seconds < MIN_SECONDS_SHARE * more:
        return  # there it waited as long with events between
    evidence = Evidence("the longest of its sleeps", STRACE_FILE, long.line)
    yield Finding(
        "hub cost",
        f"slept {long.slept:.1f} s on {most}, {short.slept:.1f} s on {least}",
        (evidence,),
        "seen once",
        {"seconds": more},
        hub=most,
    )


def _calls(tallies: Mapping[str, Tally]) -> Iterator[Finding]:
    found = []
    for name in _COMPARED.intersection(*[set().union(*(each.calls for each in tallies.values()))]):
        counts = {hub: tally.calls.get(name, 0) for hub, tally in tallies.items()}
        most, least = max(counts.values()), min(counts.values())
        if most >= MIN_CALLS and most >= MIN_RATIO * max(least, 1):
            found.append((most - least, name, counts))
    for difference, name, counts in sorted(found, reverse=True):
        hubs = sorted(counts, key=lambda hub: (-counts[hub], hub))
        shown = ", ".join(f"{counts[hub]:,} on {hub}" for hub in hubs)
        yield Finding(
            "hub cost",
            f"{name} {shown}",
            certainty="seen once",
            counts={"calls": difference},
            hub=hubs[0],
        )


def read(directory: Path) -> Tally:
    """Return the figures of a recorded test; without a trace they are empty.

    :raises StraceLogError: the trace cannot be read.
    """
    tallying = Tallying(About())
    path = directory / STRACE_FILE
    if path.exists():
        handlers = tallying.handlers()
        with open_log(path) as log:
            for event in parse(log):
                if type(event) is not Syscall:
                    handlers[ANY_OTHER](event)  # type: ignore[arg-type]
                    continue
                handlers[ANY_CALL](event)
                if event.name in _WAITS:
                    handlers[event.name](event)
    return tallying.tally()
