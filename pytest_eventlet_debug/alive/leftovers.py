"""What is new in a census, by the test that left it, in words.

What the hub would end on its next turn is judged after the next test, when it has had that turn.
"""

from __future__ import annotations

import _socket
from collections.abc import Iterable
import contextlib
import io
import sys
from typing import Any
import weakref

import msgspec

from pytest_eventlet_debug.alive import descriptors
from pytest_eventlet_debug.alive.census import Census
from pytest_eventlet_debug.alive.census import children
from pytest_eventlet_debug.alive.census import descriptors_of_loop
from pytest_eventlet_debug.alive.census import held_by_hubs
from pytest_eventlet_debug.alive.greenthreads import Greenthread
from pytest_eventlet_debug.alive.greenthreads import Look
from pytest_eventlet_debug.alive.hub import describe_timer
from pytest_eventlet_debug.alive.hub import started_at
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import is_of_asyncio
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.origins import Origins
from pytest_eventlet_debug.phrasing import cut
from pytest_eventlet_debug.system import unpatched


class Known:
    """What there was before. Keeps nothing alive."""

    def __init__(self) -> None:
        self._things: dict[int, weakref.ref[Any]] = {}
        self.threads: dict[int, int] = {}
        self.children: set[int] = set()
        self.files: dict[int, str] = {}

    def has(self, thing: Any) -> bool:
        """Say whether it is the very same object that was there."""
        known = self._things.get(id(thing))
        return known is not None and known() is thing

    def excuse(self, things: Iterable[Any], census: Census) -> None:
        """Take some objects for known, with the descriptors and threads that are theirs."""
        threads = {id(thread): ident for ident, thread in census.threads.items()}
        for thing in things:
            with contextlib.suppress(TypeError):
                self._things[id(thing)] = weakref.ref(thing)
            if id(thing) in threads:
                self.threads[threads[id(thing)]] = id(thing)
            for kind in (_socket.socket, io.FileIO):
                if issubclass(type(thing), kind):
                    with contextlib.suppress(ValueError, OSError):
                        number = kind.fileno(thing)  # not what a subclass makes of it
                        self.files[number] = census.files.get(number, "")

    def accept(self, census: Census) -> None:
        """Take all that is there now for known, and forget what has gone."""
        things: dict[int, weakref.ref[Any]] = {}
        for thing in census.objects():
            with contextlib.suppress(TypeError):
                things[id(thing)] = weakref.ref(thing)
        self._things = things
        self.threads = {ident: id(thread) for ident, thread in census.threads.items()}
        self.children = set(census.children)
        self.files = dict(census.files)


class _Awaited(msgspec.Struct, frozen=True):
    """A greenthread that the hub will wake on its next turn."""

    nodeid: str
    greenlet: weakref.ref[Any]
    #: The ids of the timers and listeners that will.
    wakers: tuple[int, ...]


class Late(msgspec.Struct):
    """What is judged after the next test."""

    greenlets: list[_Awaited] = []
    #: Descriptors with the test that opened them.
    files: dict[tuple[int, str], str] = {}


class Leftovers:
    """What is new in a census, in words.

    :param known: what there was before.
    :param late: what was left to be judged now.
    :param nodeid: the test that has ended.
    :param excused: whether it failed: its traceback keeps things alive.
    :param origins: knows where descriptors were opened.
    """

    def __init__(
        self,
        census: Census,
        known: Known,
        late: Late,
        nodeid: str,
        excused: bool,
        origins: Origins,
    ) -> None:
        self._origins = origins
        #: What is left to be judged after the next test.
        self.late = Late()
        self._nodeid = nodeid
        self._lines: dict[str, list[str]] = {}
        self._threads: set[int] = set()
        self._children: set[int] = set()
        #: Whether another look may excuse something: garbage, or what ends by itself.
        self.uncertain = False
        #: The descriptors among what this test left.
        self.left: list[int] = []
        reported = self._judge_late(census, late)
        reported |= self._judge_greenlets(census, known, excused)
        if not excused:
            self._judge_tasks(census, known)
        self._judge_wakers(census, known, reported)
        self._judge_threads(census, known)
        self._judge_children(census, known)
        self._judge_files(census, known, late, excused)

    def by_test(self) -> list[tuple[str, list[str]]]:
        """Return the lines of each test, earlier tests first."""
        found = [(nodeid, lines) for nodeid, lines in self._lines.items() if lines]
        found.sort(key=lambda each: each[0] == self._nodeid)
        return found

    def still_ending(self) -> bool:
        """Say whether a thread or process that is new still lives."""
        return bool(self._children & children() or self._threads & sys._current_frames().keys())

    def _add(self, nodeid: str, line: str) -> None:
        self._lines.setdefault(nodeid, []).append(line)

    def _judge_late(self, census: Census, late: Late) -> set[int]:
        """Report greenthreads that have had their turn and live on; keep the others."""
        reported: set[int] = set()
        living = {id(each): each for each in census.greenlets}
        for each in late.greenlets:
            greenlet = each.greenlet()
            if greenlet is None or id(greenlet) not in living:
                continue
            if set(_due_wakers(census.look, greenlet)) & set(each.wakers):
                self.late.greenlets.append(each)  # the hub has not run since
                continue
            described = census.look.describe(greenlet)
            if described is not None:
                self._add(each.nodeid, _greenthread_line(described))
                reported.add(id(greenlet))
        return reported

    def _judge_greenlets(self, census: Census, known: Known, failed: bool) -> set[int]:
        reported: set[int] = set()
        for greenlet in census.greenlets:
            if known.has(greenlet):
                continue
            described = census.look.describe(greenlet)
            if described is None or described.state in ("current", "running"):
                continue
            wakers = _due_wakers(census.look, greenlet)
            if wakers:
                late = _Awaited(self._nodeid, weakref.ref(greenlet), tuple(wakers))
                self.late.greenlets.append(late)
                continue
            held_by_hub = census.look.greenlets.wakers.timers_of(greenlet) or (
                census.look.greenlets.wakers.listeners_of(greenlet)
            )
            if not held_by_hub and (failed or described.state == "not started"):
                continue  # an object like any other, of a traceback perhaps
            self.uncertain = True
            reported.add(id(greenlet))
            self._add(self._nodeid, _greenthread_line(described))
        return reported

    def _judge_tasks(self, census: Census, known: Known) -> None:
        for thing, task in census.tasks.values():
            if not known.has(thing):
                self.uncertain = True
                users = [each for each in task.stack if not is_of_asyncio(each)]
                place = _place(task.created or (users[-1] if users else None))
                line = f"task {task.name}, {task.coroutine}{place}, {task.state}"
                by = f", cancelled{_place(task.cancelled)}" if task.cancelled is not None else ""
                self._add(self._nodeid, f"{line}{_waits(task.waits)}{by}")

    def _judge_wakers(self, census: Census, known: Known, reported: set[int]) -> None:
        late = {id(each.greenlet()) for each in self.late.greenlets}
        told = reported | late
        pool = getattr(sys.modules.get("eventlet.tpool"), "_coro", None)
        for listener in census.listeners:
            owner = listener.greenlet
            if known.has(listener.raw) or id(owner) in told or owner is pool or known.has(owner):
                continue
            name = census.look.greenlets.name(owner)
            where = descriptors.describe(listener.fd)
            self._add(
                self._nodeid, f"listener to {listener.event} fd {listener.fd}, {where}: {name}"
            )
        for timer in census.timers:
            target = timer.greenlet
            # One that is due does its work on the hub's next turn.
            if timer.seconds <= 0 or known.has(timer.raw) or id(target) in told:
                continue
            if timer.action == "switch" and known.has(target):
                continue  # a greenthread from before, that goes on sleeping
            what = describe_timer(timer, census.look)
            when = f"{timer.seconds:.3f} s{started_at(timer.raw)}"
            self._add(self._nodeid, f"timer to {what} in {when}")

    def _judge_threads(self, census: Census, known: Known) -> None:
        for ident, thread in census.threads.items():
            if known.threads.get(ident) != id(thread) or (
                thread is not None and not known.has(thread)
            ):
                self.uncertain = True
                self._threads.add(ident)
                kind = "daemon thread" if getattr(thread, "_daemonic", False) else "thread"
                self._add(self._nodeid, f"{kind} {thread_name(ident) or hex(ident)}")

    def _judge_children(self, census: Census, known: Known) -> None:
        for pid in sorted(census.children - known.children):
            self.uncertain = True
            self._children.add(pid)
            self._add(self._nodeid, _process_line(pid))

    def _judge_files(self, census: Census, known: Known, late: Late, excused: bool) -> None:
        of_loops = {number: loop for loop in census.loops for number in descriptors_of_loop(loop)}
        told: set[int] = set()
        held: set[int] | None = None
        for number, target in sorted(census.files.items()):
            if number in census.excused:
                continue
            if known.files.get(number) == target:
                nodeid = late.files.get((number, target))
            else:
                nodeid = None if excused else self._nodeid
            if nodeid is None:
                continue
            if held is None:
                held = held_by_hubs(census.heap)
            if self.late.greenlets or number in held:
                # It may be theirs, and closed when they end.
                self.late.files[number, target] = nodeid
                continue
            self.uncertain = True
            loop = of_loops.get(number)
            if loop is None:
                origin = self._origins.of(number, target)
                self._add(nodeid, f"fd {number}, {descriptors.describe(number)}{origin}")
                if nodeid == self._nodeid:
                    self.left.append(number)
            elif id(loop) not in told:
                told.add(id(loop))
                kind = type(loop).__qualname__
                self._add(nodeid, f"an asyncio loop that is not closed, {kind}")


def _due_wakers(look: Look, greenlet: Any) -> list[int]:
    """Return the ids of what will wake a greenlet on the hub's next turn."""
    due = [id(each.raw) for each in look.greenlets.wakers.timers_of(greenlet) if each.seconds <= 0]
    for listener in look.greenlets.wakers.listeners_of(greenlet):
        poll = unpatched.select.poll()
        with contextlib.suppress(OSError, ValueError, OverflowError):
            events = {"read": unpatched.select.POLLIN, "write": unpatched.select.POLLOUT}
            poll.register(listener.fd, events[listener.event])
            # A descriptor that is closed is ready, too.
            if poll.poll(0):
                due.append(id(listener.raw))
    return due


def _greenthread_line(each: Greenthread) -> str:
    place = _place(each.stack[-1] if each.stack else None)
    by = "".join(
        f", {verb} at {frame.location}"
        for verb, frame in (("spawned", each.spawned), ("killed", each.killed))
        if frame is not None
    )
    return f"greenthread {each.name}{place}{_waits(each.waits)}{by}"


def _place(frame: Frame | None) -> str:
    return f" ({frame.location})" if frame is not None else ""


def _waits(waits: Waits | None) -> str:
    if waits is None:
        return ""
    if waits.seconds is None:
        left = ""
    else:
        left = f", {waits.seconds:.3f} s left" if waits.seconds > 0 else ", overdue"
    return f", waits on {waits.text}{left}"


def _process_line(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return f"child process {pid}, {process.name()}, which ended and was not waited for"
        text = " ".join(process.cmdline() or [process.name()])
    except (psutil.Error, OSError):
        return f"child process {pid}"
    return f"child process {pid}, {cut(text, 100)}"
