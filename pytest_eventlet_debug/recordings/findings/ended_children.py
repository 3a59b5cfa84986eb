"""Tell of child processes that ended, and of what the test still expects of them."""

from __future__ import annotations

from collections.abc import Iterator
import re

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.channels import end_of
from pytest_eventlet_debug.recordings.findings.channels import transfer
from pytest_eventlet_debug.recordings.findings.child_facts import ChildFacts
from pytest_eventlet_debug.recordings.findings.child_facts import finding
from pytest_eventlet_debug.recordings.findings.child_facts import how_it_ended
from pytest_eventlet_debug.recordings.findings.child_threads import ChildThread
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.own_waits import Wait
from pytest_eventlet_debug.recordings.findings.own_waits import own
from pytest_eventlet_debug.recordings.trace_events import Syscall

_LONGEST = 80
#: With the line of code that may follow.
_WARNINGS = lazily(r"^(?:\S.*:\d+: )?\w*Warning: .*(?:\n  .*)?$", re.MULTILINE)


def tell(facts: ChildFacts, waits: list[Wait]) -> Iterator[tuple[object, Finding]]:
    """Tell of children that ended, those for which the test waits first; for merging."""
    ended = []
    for pid, start in facts.children.items():
        thread = facts.threads.get(pid)
        if thread is None or thread.ended is None or not _may_tell(facts, pid, thread):
            continue
        wait = _awaited(facts, pid, start, waits)
        is_direct = start.pid in facts.own
        is_bad = thread.ended.status != 0 and pid not in facts.excused
        if wait is not None or (is_bad and is_direct):
            ended.append((wait is None, facts.waits.reaped(pid) is not None, pid, wait))
    for _, _, pid, wait in sorted(ended, key=lambda each: each[:3]):
        thread = facts.threads.at(pid)
        yield _likeness(facts, pid, thread), _tell_end(facts, pid, thread, wait)


def _likeness(facts: ChildFacts, pid: int, thread: ChildThread) -> tuple[object, ...]:
    """Return what children that ended for the same reason have in common."""
    ended, start = thread.ended, facts.children[pid]
    how = (ended.status, ended.signal) if ended is not None else None
    return how, start.at, _last_line(thread.said)


def _may_tell(facts: ChildFacts, pid: int, thread: ChildThread) -> bool:
    if thread.failed and not thread.executed:
        return False
    killed = thread.ended is not None and thread.ended.signal == "SIGKILL"
    return not (killed and facts.was_killed and pid not in facts.killers)


def _awaited(facts: ChildFacts, pid: int, start: Syscall, waits: list[Wait]) -> Wait | None:
    """Return the test's wait for a channel that a child used, if no other process has it."""
    for wait in waits:
        end = end_of(wait.shown)
        if end is None or (end.side and wait.line < start.line):
            continue  # an asyncio loop's socket pair to itself is inherited, too
        if facts.holder(wait) is not None:
            continue
        users = {
            facts.processes.process(other)
            for other, each in facts.threads.items()
            if end.channel in each.ends and not each.has_same(end)
        }
        users.discard(facts.main)
        if pid in users and all(facts.has_ended(user) for user in users):
            return wait
    return None


def _tell_end(facts: ChildFacts, pid: int, thread: ChildThread, wait: Wait | None) -> Finding:
    ended = thread.ended
    assert ended is not None
    how = how_it_ended(ended)
    killer = facts.killers.get(pid) if ended.signal else None
    place = own(killer.where) if killer is not None else ""
    if ended.signal is None and thread.exiting is not None:
        # What a library calls on behalf of the line that forked is in every child.
        place = thread.exiting.where if ", from " not in thread.exiting.where else ""
    line = _last_line(thread.said)
    last = thread.last
    if line:
        after = f' after it had written "{line}"'
    elif last is not None:
        after = f" after {transfer(last)} (line {last.line})"
    else:
        after = ""
    status = {"status": float(ended.status)} if ended.status is not None else {}
    return finding(
        f"{facts.name(pid)} {how}{place}{after}{_consequence(facts, pid, thread, wait)}",
        Evidence(f"+++ {how} +++", STRACE_FILE, ended.line),
        status,
    )


def _consequence(facts: ChildFacts, pid: int, thread: ChildThread, wait: Wait | None) -> str:
    reaped, missed = facts.waits.reaped(pid), facts.waits.missed(pid)
    missing = ""
    if missed is not None:
        who = facts.processes.describe(missed.pid, missed.greenthread)
        missing = f"{who} got ECHILD{own(missed.where)} (line {missed.line})"
    unreaped = "; nobody waited for the child" if reaped is None else ""
    if reaped is None and missed is not None:
        unreaped = f"; its status was not kept, and {missing} in place of it"
    if wait is not None:
        return (
            f"; {wait.who} waited in vain for {wait.shown}{own(wait.where)} "
            f"(line {wait.line}), which no other process used{unreaped}"
        )
    for channel in facts.ends(pid):
        call = facts.waits.broken(channel)
        if call is not None and _returned_ns(call) >= thread.closed_ns:
            who = facts.processes.describe(call.pid, call.greenthread)
            end = end_of(call.args)
            what = f"got {call.errno}" if call.errno else "read the end of file"
            return (
                f"; {who} then {what} from {end.shown if end else ''}{own(call.where)} "
                f"(line {call.line}){unreaped}"
            )
    if reaped is not None:
        who = facts.processes.describe(reaped.pid, reaped.greenthread)
        rest = f", so that {missing} in place of the status" if missing else ""
        return f"; {who} waited for it{own(reaped.where)} (line {reaped.line}){rest}"
    return unreaped


def _returned_ns(call: Syscall) -> int:
    return call.start_ns + (call.duration_ns or 0)


def _last_line(said: str) -> str:
    """Return the last line of an output, as one to print; nothing if strace has cut it.

    Warnings that come at the end of a program, such as that nobody has awaited a coroutine, say
    less than the error before them.
    """
    said = said.rstrip()
    line = (_WARNINGS.sub("", said).rstrip() or said).rpartition("\n")[2].strip()
    if line.endswith("..."):
        return ""
    shown = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in line)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
