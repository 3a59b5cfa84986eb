"""Tell of child processes that go on, and of what they do to the test that waits."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import re

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import counted
from pytest_eventlet_debug.recordings.findings.channels import WRITES
from pytest_eventlet_debug.recordings.findings.channels import End
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.findings.child_facts import ChildFacts
from pytest_eventlet_debug.recordings.findings.child_facts import finding
from pytest_eventlet_debug.recordings.findings.child_facts import how_it_ended
from pytest_eventlet_debug.recordings.findings.child_threads import TRANSFERS
from pytest_eventlet_debug.recordings.findings.child_threads import ChildThread
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.own_waits import Wait
from pytest_eventlet_debug.recordings.findings.own_waits import own
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: A child that waits for less may well go on.
STUCK_NS = 1_000_000_000

_SHARED = lazily(rf"(\d+)(?:{ANNOTATION})?, EPOLL_CTL_(?:ADD|DEL), (\d+(?:{ANNOTATION})?)")


def stuck(facts: ChildFacts, waits: list[Wait]) -> Iterator[Finding]:
    """Tell of children that wait for the test process."""
    for pid, thread in facts.threads.items():
        call = thread.stuck
        end = end_of(call.args) if call is not None and call.name in TRANSFERS else None
        if call is None or end is None or facts.processes.process(pid) == facts.main:
            continue
        until_ns = facts.last_ns
        if thread.ended is not None:
            until_ns = thread.ended.time_ns
        elif facts.until_ns is not None and not facts.is_over:
            until_ns = facts.until_ns  # nothing else need be in the trace since
        waited_ns = until_ns - call.start_ns
        if waited_ns < STUCK_NS:
            continue
        writes = call.name in WRITES
        # What is closed later does away with what is in the way.
        enough_ns = call.start_ns + STUCK_NS
        held = facts.held
        others = held.readers(end, enough_ns) if writes else held.writers(end, enough_ns)
        other = next(iter(others), None)
        expected = _expected(facts, pid, call, end, waits)
        if other is None or not (writes or expected):
            continue
        lack = "did not read from it" if writes else "wrote nothing into it"
        state = "is full" if writes else "is empty"
        yield finding(
            f"{facts.name(pid)} waited for {waited_ns / 1e9:.2f} s in "
            f"{call.name}({end.shown}){own(call.where)}, which {state}: the test process has "
            f"its other end, {other.shown}, and {lack}{expected}",
            Evidence(f"{call.name}({end.shown})", STRACE_FILE, call.line),
            {"seconds": waited_ns / 1e9},
        )


def _expected(facts: ChildFacts, pid: int, since: Syscall, end: End, waits: list[Wait]) -> str:
    """Say what the test process expects of a child, for the end of a phrase."""
    call = facts.waits.for_an_end(set(facts.family(pid)), since)
    if call is not None:
        who = facts.processes.describe(call.pid, call.greenthread)
        return f"; {who} waited for the child to end{own(call.where)} (line {call.line})"
    ends = facts.ends(pid)
    for wait in waits:
        other = end_of(wait.shown)
        if other is not None and other.channel != end.channel and other.channel in ends:
            return f"; {wait.who} waited for {wait.shown}{own(wait.where)} (line {wait.line})"
    return ""


def taking(facts: ChildFacts, waits: list[Wait]) -> Iterator[Finding]:
    """Tell of children that read what the test process waits for, from the same end."""
    for wait in waits:
        end = end_of(wait.shown)
        for pid, thread in facts.threads.items():
            call = thread.took.get(end.channel) if end is not None else None
            took = end_of(call.args) if call is not None else None
            if call is None or took is None or end is None or took.side != end.side:
                continue
            if wait.end is not None and wait.end.line < call.line:
                continue
            amount = counted(call.value or 0, "byte")
            yield finding(
                f"{facts.name(pid)} read {amount} from {took.shown}"
                f"{own(call.where)}, an end that the test process has, too; {wait.who} waited "
                f"in vain for {wait.shown}{own(wait.where)} (line {wait.line})",
                Evidence(f"{call.name}({took.shown})", STRACE_FILE, call.line),
                {"bytes": float(call.value or 0)},
            )
            break


def holding(facts: ChildFacts, waits: list[Wait]) -> Iterator[Finding]:
    """Tell of children that have inherited the other end of what the test process reads."""
    for wait in waits:
        first, holder, held = facts.holder(wait) or (0, 0, None)
        thread = facts.threads.get(first)
        if held is None or thread is None or thread.ended is None:
            continue
        yield finding(
            f"{wait.who} waited in vain for {wait.shown}{own(wait.where)} (line {wait.line}): "
            f"{facts.name(first)} {how_it_ended(thread.ended)}, but "
            f"{facts.processes.describe(holder, None)} descends from it, has inherited the "
            f"other end as {held.shown}, and goes on",
            Evidence(f"+++ {how_it_ended(thread.ended)} +++", STRACE_FILE, thread.ended.line),
            {},
        )


def _on_shared_sets(
    facts: ChildFacts, chosen: Callable[[ChildThread], Syscall | None]
) -> Iterator[tuple[int, Syscall, Syscall, re.Match[str]]]:
    """Yield children of the test process, how each began, and a call on an epoll set of its.

    :param chosen: returns that call of a child's, of which the set and the descriptor are matched.
    """
    for pid, start in facts.children.items():
        thread = facts.threads.get(pid)
        call = chosen(thread) if thread is not None else None
        match = _SHARED.match(call.args) if call is not None else None
        if call is not None and match is not None and start.pid in facts.own:
            yield pid, start, call, match


def sharing(facts: ChildFacts) -> Iterator[tuple[object, Finding]]:
    """Tell of children that have their hub poll with the epoll set of the test's; for merging."""
    for pid, start, call, match in _on_shared_sets(facts, lambda thread: thread.shares):
        yield (
            (start.at, call.at),
            finding(
                f"{facts.name(pid)} shares the epoll set {match[1]} of the test process since "
                f"the fork: it adds {match[2]}{own(call.where)}, whose events come to both of "
                "them",
                Evidence(f"epoll_ctl({match[0]})", STRACE_FILE, call.line),
                {},
            ),
        )


def removing(facts: ChildFacts) -> Iterator[Finding]:
    """Tell of children that take what the test waits for out of the epoll set of its hub."""
    for pid, start, call, match in _on_shared_sets(facts, lambda thread: thread.removes):
        wait = facts.waits.registered(facts.main or 0, int(match[2].partition("<")[0]), call.line)
        if wait is None or wait.line > start.line or wait.shown != match[2]:
            continue
        yield finding(
            f"{facts.name(pid)} shares the epoll set {match[1]} of the test process since the "
            f"fork: it removes {match[2]}{own(call.where)}, for which {wait.who} "
            f"waited{own(wait.where)} (line {wait.line}), so that its hub hears no more of it",
            Evidence(f"epoll_ctl({match[0]})", STRACE_FILE, call.line),
            {},
        )


def with_copies(facts: ChildFacts) -> Iterator[tuple[object, Finding]]:
    """Tell of greenthreads of the test process that go on in a child; for merging."""
    for pid, switch, call in facts.greenthreads.find():
        first = f", first{own(call.where)}" if call is not None else ""
        yield (
            (facts.children[pid].at, switch.greenthread, first),
            finding(
                f"{facts.name(pid)} runs a copy of greenthread {switch.greenthread} of the "
                f"test process since the fork{first}",
                Evidence(f"greenthread {switch.greenthread}", STRACE_FILE, switch.line),
                {},
            ),
        )
