"""Say which child processes ended badly or got stuck, and what the test still expects of them.

A child that ends in silence leaves a test that waits for its answer, and one that writes into a
pipe that nobody reads waits for the test, which may wait for it. Both show in the trace alone.

Many tests start what fails on purpose. So nothing is told of a test that passes, nor of a child
that another process of the test sent a signal, or whose program could not be started, which the
one that started it is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from itertools import islice
from typing import ClassVar

from pytest_eventlet_debug import dump_limits
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings import ended_children
from pytest_eventlet_debug.recordings.findings import living_children
from pytest_eventlet_debug.recordings.findings.call_names import POLLS
from pytest_eventlet_debug.recordings.findings.call_names import STARTS
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.findings.child_facts import ChildFacts
from pytest_eventlet_debug.recordings.findings.child_facts import merged
from pytest_eventlet_debug.recordings.findings.child_streams import CALLS as STREAM_CALLS
from pytest_eventlet_debug.recordings.findings.child_threads import CALLS
from pytest_eventlet_debug.recordings.findings.child_threads import TRANSFERS
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import Kind
from pytest_eventlet_debug.recordings.findings.own_waits import CHILD_WAITS
from pytest_eventlet_debug.recordings.findings.own_waits import is_waiting
from pytest_eventlet_debug.recordings.findings.protocol import ANY_OTHER
from pytest_eventlet_debug.recordings.findings.protocol import Handlers
from pytest_eventlet_debug.recordings.findings.protocol import Trace
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Signal
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall

_MOST = 5

_KILLS = names("kill tkill tgkill pidfd_send_signal")
_CALLS = CALLS | CHILD_WAITS | _KILLS | STARTS | POLLS | names("pipe pipe2 socketpair fcntl close")

_NUMBER = lazily(r"-?\d+")
_OF_PIDFD = lazily(r"\d+<pid:(\d+)>")


class Child:
    """The detector of child processes that end badly or get stuck."""

    kind: ClassVar[Kind] = "child"

    def __init__(self, trace: Trace) -> None:
        self._passed = trace.about.passed
        self._facts = facts = ChildFacts(trace.about)
        self._start_handlers = facts.processes.handlers()
        self._held_handlers = facts.held.handlers()

    def handlers(self) -> Handlers:
        if self._passed:
            return {}
        return {**dict.fromkeys(_CALLS, self._call), ANY_OTHER: self._other}

    def _other(self, event: Event) -> None:
        facts = self._facts
        if facts.is_over:
            if type(event) is Exit and event.pid == facts.main:
                facts.was_killed = event.signal == "SIGKILL"
            return
        if type(event) is Phase and facts.main is None:
            facts.main = event.pid
            facts.own.add(event.pid)
        elif type(event) is Switch:
            if facts.main in (None, event.pid):  # the first comes before that of a phase
                facts.greenthreads.of_test(event)
                facts.waits.ran(event)
            elif event.pid not in facts.own:
                facts.greenthreads.of_child(event)
        elif type(event) is Signal:
            facts.last_ns = event.time_ns
        elif type(event) is Exit:
            facts.last_ns = event.time_ns
            if event.pid == facts.main:
                facts.is_over = True
                facts.was_killed = event.signal == "SIGKILL"
            elif event.pid not in facts.own and event.superseded_by is None:
                facts.threads.at(event.pid).ended = event

    def _call(self, call: Syscall) -> None:
        name, pid, facts = call.name, call.pid, self._facts
        if facts.main is None:
            return
        if facts.is_over:
            # What has not returned is in the trace where its thread ends.
            if is_waiting(call) and call.start_ns < facts.last_ns:
                if pid in facts.own:
                    facts.waits.stick(call)
                else:
                    facts.threads.at(pid).stuck = call
            return
        facts.last_ns = max(facts.last_ns, call.start_ns)
        if name in self._start_handlers:
            self._start_handlers[name](call)
            self._started(call)
        if name in _KILLS:
            self._kill(call)
        elif name in CHILD_WAITS:
            facts.waits.wait(call)
        if pid in facts.own:
            self._of_test(call)
            return
        facts.threads.at(pid).stuck = call if is_waiting(call) else None
        facts.greenthreads.called(call)
        if name in STREAM_CALLS:
            facts.streams.see(call)
        if name in CALLS:
            facts.threads.see(call)

    def _started(self, call: Syscall) -> None:
        facts = self._facts
        thread = call.value or 0
        if call.pid in facts.own and "CLONE_THREAD" in call.args and thread > 0:
            facts.own.add(thread)
            facts.threads.forget(thread)

    def _of_test(self, call: Syscall) -> None:
        name, pid, facts = call.name, call.pid, self._facts
        if name == "write" and pid == facts.main and dump_limits.TITLE in call.args:
            facts.is_over = True  # all after it is the dump's
            return
        handler = self._held_handlers.get(name)
        if handler is not None and (facts.children or name not in TRANSFERS):
            handler(call)
        facts.waits.register(call)
        if facts.children:
            facts.waits.see(call)

    def _kill(self, call: Syscall) -> None:
        """Take note of who sends whom a signal. Who gets one of another process ends on purpose."""
        match = _OF_PIDFD.match(call.args) or _NUMBER.search(call.args)
        if match is None or call.errno is not None or "SIG" not in call.args:
            return
        facts, target = self._facts, int(match[match.re.groups])
        if target == call.pid:
            facts.killers.setdefault(target, call)  # a handler sends it once more
            return
        for pid in (target,) if target > 0 else tuple(facts.threads):
            thread = facts.threads.get(pid)
            if thread is None or thread.ended is None:
                facts.excused.add(pid)

    def findings(self) -> Iterable[Finding]:
        facts = self._facts
        if not facts.children:
            return
        waits = list(facts.waits.for_data(facts.main))
        found = chain(
            living_children.stuck(facts, waits),
            living_children.taking(facts, waits),
            living_children.holding(facts, waits),
            living_children.removing(facts),
            merged(living_children.sharing(facts)),
            merged(ended_children.tell(facts, waits)),
            merged(living_children.with_copies(facts)),
        )
        yield from islice(found, _MOST)
