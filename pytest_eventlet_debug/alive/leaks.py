"""Tell what a test left behind that was not there before it.

Greenthreads, tasks, listeners, timers, threads, child processes, descriptors. Nothing here
switches greenthreads; so what the hub would end on its next turn is judged after the next
test, when it has had that turn.
"""

from __future__ import annotations

import _socket
from collections import Counter
from collections import deque
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import dataclasses
import gc
import io
import posix
import re
import sys
import types
from typing import Any
from typing import Literal
from typing import NamedTuple
import weakref

import pytest

from pytest_eventlet_debug.alive import descriptors
from pytest_eventlet_debug.alive.endings import EndingWatch
from pytest_eventlet_debug.alive.fixture_values import FixtureValues
from pytest_eventlet_debug.alive.greenthreads import Greenthread
from pytest_eventlet_debug.alive.greenthreads import Look
from pytest_eventlet_debug.alive.heap import Follower
from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.hub import describe_timer
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Waits
from pytest_eventlet_debug.alive.model import is_of_asyncio
from pytest_eventlet_debug.alive.model import thread_name
from pytest_eventlet_debug.alive.origins import Origins
from pytest_eventlet_debug.alive.spawns import SpawnWatch
from pytest_eventlet_debug.alive.tasks import Task
from pytest_eventlet_debug.alive.tasks import find_tasks
from pytest_eventlet_debug.alive.wakers import Listener
from pytest_eventlet_debug.alive.wakers import Timer
from pytest_eventlet_debug.report_properties import ERROR_PROPERTY
from pytest_eventlet_debug.report_properties import LEFT_DESCRIPTORS
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import starvation
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.collector import collector_paused
from pytest_eventlet_debug.system.open_descriptors import OpenDescriptors
from pytest_eventlet_debug.warning_types import EventletLeakWarning

Mode = Literal["warn", "fail"]

GRACE_SECONDS = 0.2
"""What threads and processes that are about to end are given for it."""
MOST_GRACE_SECONDS = 2.0
"""The same where others have the CPUs."""
MAX_LINES = 30
"""Leftovers of one test that are named; the rest is counted."""

_SECONDS = re.compile(r"-?\d+\.\d+ s left")
_HUB_TASK = "Hub.run.<locals>.async_run()"


MAX_REACHED = 20_000
"""Objects that are looked at for what a hub still holds."""


class LeakWatch:
    """Judges each test that passes by what it leaves; a plugin object.

    What fixtures of a wider scope than one test make is theirs, and no leak. Of a test that
    fails only that is told which its traceback does not keep alive: threads, processes, and
    what a hub holds.

    :param mode: whether to warn, or to fail the test in its teardown.
    :param own_descriptors: returns those of this plugin.
    :param list_descriptors: returns all with what the kernel calls them; ``None`` to look here.
    """

    def __init__(
        self,
        mode: Mode,
        own_descriptors: Callable[[], Collection[int]],
        list_descriptors: Callable[[], dict[int, str]] | None = None,
    ) -> None:
        self._mode = mode
        self._own_descriptors = own_descriptors
        self._follower = Follower()
        self._list_descriptors = list_descriptors or OpenDescriptors().look
        self._known = _Known()
        self._late = _Late()
        self._failed = False
        self._begun = False
        self._spawns = SpawnWatch()
        self._origins = Origins()
        self._endings = EndingWatch()
        self._fixtures = FixtureValues()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        self._failed = False
        self._spawns.look_again()
        self._origins.begin()
        self._endings.look_again()
        if not self._begun:
            self._begun = True
            self._accept()
        return (yield)

    def pytest_unconfigure(self) -> None:
        self._spawns.stop()
        self._origins.stop()
        self._endings.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        result = yield
        if fixturedef.scope != "function":
            self._fixtures.begin(fixturedef)
            self._accept()
        return result

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        self._fixtures.end(fixturedef)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed or hasattr(report, "wasxfail"):
            self._failed = True
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        try:
            result = yield
        except BaseException:
            self._accept()
            raise
        found: list[tuple[list[str], list[str]]] = []
        # A leak unseen is better than a test that fails for being watched.
        with Shield(lambda line: item.user_properties.append((ERROR_PROPERTY, line)), "leaks"):
            judged = self._judge(item.nodeid)
            found = _by_lines(judged.by_test(), item.nodeid)
            item.stash[LEFT_DESCRIPTORS] = judged.left
        for nodeids, lines in found:
            if nodeids != [item.nodeid]:
                item.warn(EventletLeakWarning(_text(lines, f"{_earlier(nodeids)} left")))
            elif self._failed:
                item.warn(EventletLeakWarning(_text(lines, "The test, which failed, left")))
            elif self._mode == "warn":
                item.warn(EventletLeakWarning(_text(lines, "The test left")))
            else:
                pytest.fail(_text(lines, "The test left"), pytrace=False)
        return result

    def _look(self) -> _Census:
        return _look(self._follower, self._list_descriptors, self._own_descriptors())

    def _accept(self) -> None:
        with Shield():
            self._known.accept(self._look())

    def _find(self, census: _Census, nodeid: str) -> _Findings:
        return _Findings(census, self._known, self._late, nodeid, self._failed, self._origins)

    def _judge(self, nodeid: str) -> _Findings:
        """Return what is left by which test."""
        census = self._look()
        found = self._find(census, nodeid)
        if found.uncertain:
            # Garbage is not left behind, and what ends by itself neither.
            del census
            found.forget_census()
            _wait_for(found.still_ending)
            gc.collect()
            census = self._look()
            self._known.excuse(self._fixtures.reached(), census)
            found = self._find(census, nodeid)
        self._late = found.late
        self._known.accept(census)
        found.forget_census()
        return found


def _by_lines(found: list[tuple[str, list[str]]], own: str) -> list[tuple[list[str], list[str]]]:
    """Put tests before *own* together that left the same, but for the time that is left to it."""
    tests: dict[tuple[object, ...], tuple[list[str], list[str]]] = {}
    for nodeid, lines in found:
        key = (nodeid == own, *sorted(_SECONDS.sub("", line) for line in lines))
        tests.setdefault(key, ([], lines))[0].append(nodeid)
    return list(tests.values())


def _earlier(nodeids: list[str]) -> str:
    if len(nodeids) == 1:
        return f"{nodeids[0]}, an earlier test,"
    others = "another" if len(nodeids) == 2 else f"{len(nodeids) - 1} others"
    return f"{nodeids[0]} and {others}, earlier tests, each"


def _text(lines: list[str], who: str) -> str:
    counted = Counter(lines)
    shown = [f"{line} x {count}" if count > 1 else line for line, count in counted.items()]
    if len(shown) > MAX_LINES:
        shown[MAX_LINES:] = [f"... and {len(shown) - MAX_LINES} more"]
    return "\n".join([f"{who} behind:", *(f"  {line}" for line in shown)])


def _wait_for(still: Callable[[], bool]) -> None:
    """Wait until something ends, for :data:`GRACE_SECONDS` in which there is a CPU for it."""
    began = unpatched.monotonic()
    processes = {unpatched.getpid(), *_children()}
    before = starvation.run_delays(processes)
    while still():
        waited = unpatched.monotonic() - began
        if waited >= MOST_GRACE_SECONDS:
            return
        lacked = starvation.lacked(before, starvation.run_delays(processes))
        if waited - lacked >= GRACE_SECONDS:
            return
        unpatched.select.poll().poll(5)


@dataclasses.dataclass
class _Census:
    """Everything that a test might leave behind, at one moment. Not to be kept."""

    look: Look
    greenlets: list[Any]
    tasks: dict[int, tuple[Any, Task]]
    listeners: list[Listener]
    timers: list[Timer]
    threads: dict[int, Any]
    children: set[int]
    files: dict[int, str]
    excused: set[int]
    """Descriptors of eventlet's and multiprocessing's own, which are known from then on, whatever
    becomes of them."""
    loops: list[Any]
    heap: Heap


def _look(
    follower: Follower,
    list_descriptors: Callable[[], dict[int, str]],
    own_descriptors: Collection[int],
) -> _Census:
    heap = follower.walk()
    with collector_paused():
        look = Look(heap)
        has_hubs = bool(heap.hubs)
        files = list_descriptors()
        # The standard ones are pytest's, which moves them as it captures.
        for number in {0, 1, 2, *own_descriptors}:
            files.pop(number, None)
        return _Census(
            look,
            _greenlets(heap, look) if heap.greenlets else [],
            _tasks(heap) if any(not task.done() for task in heap.tasks) else {},
            _of_all(look.wakers.listeners) if has_hubs else [],
            _of_all(look.wakers.timers) if has_hubs else [],
            _threads(heap),
            _children(),
            files,
            set(_descriptors_of_eventlet(heap)) | {fd for _, fd in _of_multiprocessing() if fd},
            _loops(heap),
            heap,
        )


def _of_all(by_hub: dict[int, list[Any]]) -> list[Any]:
    return [each for some in by_hub.values() for each in some]


def _greenlets(heap: Heap, look: Look) -> list[Any]:
    pool = getattr(sys.modules.get("eventlet.tpool"), "_coro", None)
    return [
        each
        for each in heap.greenlets
        if not each.dead
        and each.parent is not None
        and each is not pool
        and not look.is_infrastructure(each)
    ]


def _tasks(heap: Heap) -> dict[int, tuple[Any, Task]]:
    things = {id(task): task for task in heap.tasks}
    described = {task.id: task for task in find_tasks(heap).tasks if task.id in things}
    hubs = [task for task in described.values() if task.coroutine == _HUB_TASK]
    own = {task.id for task in hubs}.union(*(task.awaits for task in hubs))
    return {
        number: (things[number], task) for number, task in described.items() if number not in own
    }


def _loops(heap: Heap) -> list[Any]:
    of_hubs = {id(getattr(hub, "loop", None)) for hub in heap.hubs}
    found = []
    for loop in heap.loops:
        with contextlib.suppress(Exception):
            if id(loop) not in of_hubs and not loop.is_closed():
                found.append(loop)
    return found


def _descriptors_of_loop(loop: Any) -> Iterator[int]:
    for name in ("_selector", "_ssock", "_csock"):
        with contextlib.suppress(Exception):
            yield getattr(loop, name).fileno()


def _descriptors_of_eventlet(heap: Heap) -> Iterator[int]:
    """Yield what hubs and the thread pool have open as long as they live."""
    for hub in heap.hubs:
        # With its thread a hub's greenlet ends, but nobody closes what the hub has open.
        if getattr(getattr(hub, "greenlet", None), "dead", False):
            continue
        with contextlib.suppress(Exception):
            yield hub.poll.fileno()
        yield from _descriptors_of_loop(getattr(hub, "loop", None))
    pool = sys.modules.get("eventlet.tpool")
    for name in ("_rsock", "_wsock"):
        with contextlib.suppress(Exception):
            yield getattr(pool, name).fileno()


def _of_multiprocessing() -> Iterator[tuple[int | None, int | None]]:
    """Yield process and descriptor of what multiprocessing starts once and keeps.

    That is its resource tracker, and from Python 3.14 on, unless a program says otherwise, the
    server that forks its processes.
    """
    for module, name, pid, descriptor in (
        ("resource_tracker", "_resource_tracker", "_pid", "_fd"),
        ("forkserver", "_forkserver", "_forkserver_pid", "_forkserver_alive_fd"),
    ):
        kept = getattr(sys.modules.get(f"multiprocessing.{module}"), name, None)
        yield getattr(kept, pid, None), getattr(kept, descriptor, None)


def _held_by_hubs(heap: Heap) -> set[int]:
    """Return the descriptors that hubs hold in the midst of a turn, and drop as they go on.

    A hub waits inside of the call that switched to the test: of a listener, or of a timer
    with the exception that it threw, whose traceback leads to the sockets.
    """
    ahead: deque[Any] = deque()
    stops = {
        id(module.__dict__) for module in tuple(sys.modules.values()) if hasattr(module, "__dict__")
    }
    for hub in heap.hubs:
        stops.update((id(hub), id(vars(hub))))
        frame = getattr(getattr(hub, "greenlet", None), "gr_frame", None)
        while frame is not None:
            ahead.extend(frame.f_locals.values())
            frame = frame.f_back
    pipes = {getattr(sys.modules.get("eventlet.greenio.py3"), "GreenFileIO", None)}
    ends: tuple[type, ...] = (type, types.ModuleType, types.FunctionType, types.CodeType)
    greenlet = getattr(sys.modules.get("greenlet"), "greenlet", None)
    if greenlet is not None:
        ends = (*ends, greenlet)
    held: set[int] = set()
    while ahead and len(stops) < MAX_REACHED:
        thing = ahead.popleft()
        if id(thing) in stops:
            continue
        stops.add(id(thing))
        green = getattr(thing, "__dict__", {}).get("_fileno") if type(thing) in pipes else None
        if type(green) is int:
            held.add(green)
        elif issubclass(type(thing), (_socket.socket, io.FileIO)):
            with contextlib.suppress(ValueError, OSError):
                held.add(thing.fileno())
        elif not issubclass(type(thing), ends):
            ahead.extend(gc.get_referents(thing))
    return held


def _threads(heap: Heap) -> dict[int, Any]:
    """Return the threads that run Python code by ident, each with its object if it has one."""
    ours: set[Any] = set()
    pool = getattr(sys.modules.get("eventlet.tpool"), "_threads", ())
    ours.update(getattr(each, "_ident", None) for each in pool)
    for hub in heap.hubs:
        executor = getattr(getattr(hub, "loop", None), "_default_executor", None)
        ours.update(getattr(each, "_ident", None) for each in getattr(executor, "_threads", ()))
    found: dict[int, Any] = {}
    own = sys._getframe()
    for ident, top in sys._current_frames().items():
        if top is own:
            continue  # whoever looks is no leak, under whichever name eventlet has it
        name = thread_name(ident) or ""
        if ident not in ours and not name.startswith("pytest_timeout"):
            found[ident] = _thread_object(ident)
    return found


def _thread_object(ident: int) -> Any:
    for module in ("__original_module_threading", "threading"):
        thread = getattr(sys.modules.get(module), "_active", {}).get(ident)
        if thread is not None:
            return thread
    return None


def _children() -> set[int]:
    pid = unpatched.getpid()
    if unpatched.on_linux():
        try:
            posix.waitid(posix.P_ALL, 0, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT)
        except ChildProcessError:
            return set()
    try:
        folder = f"/proc/{pid}/task"
        texts = [
            unpatched.read_file(f"{folder}/{thread}/children") for thread in posix.listdir(folder)
        ]
        found = {int(word) for text in texts for word in text.split()}
    except OSError:
        # Not Linux, or a thread that ended meanwhile.
        import psutil  # slow to import, and seldom needed

        found = {each.pid for each in psutil.Process(pid).children()}
    return found - {pid for pid, _ in _of_multiprocessing()}


class _Known:
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

    def excuse(self, things: Iterable[Any], census: _Census) -> None:
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

    def accept(self, census: _Census) -> None:
        """Take all that is there now for known, and forget what has gone."""
        things: dict[int, weakref.ref[Any]] = {}
        for thing in _objects(census):
            with contextlib.suppress(TypeError):
                things[id(thing)] = weakref.ref(thing)
        self._things = things
        self.threads = {ident: id(thread) for ident, thread in census.threads.items()}
        self.children = set(census.children)
        self.files = dict(census.files)


def _objects(census: _Census) -> Iterator[Any]:
    yield from census.greenlets
    yield from (task for task, _ in census.tasks.values())
    yield from (listener.raw for listener in census.listeners)
    yield from (timer.raw for timer in census.timers)
    yield from (thread for thread in census.threads.values() if thread is not None)
    yield from census.loops


class _Awaited(NamedTuple):
    """A greenthread that the hub will wake on its next turn."""

    nodeid: str
    greenlet: weakref.ref[Any]
    wakers: tuple[int, ...]
    """The ids of the timers and listeners that will."""


@dataclasses.dataclass
class _Late:
    """What is judged after the next test."""

    greenlets: list[_Awaited] = dataclasses.field(default_factory=list)
    files: dict[tuple[int, str], str] = dataclasses.field(default_factory=dict)
    """Descriptors with the test that opened them."""


class _Findings:
    """What is new in a census, in words."""

    def __init__(
        self,
        census: _Census,
        known: _Known,
        late: _Late,
        nodeid: str,
        excused: bool,
        origins: Origins,
    ) -> None:
        self._origins = origins
        self.late = _Late()
        self._nodeid = nodeid
        self._lines: dict[str, list[str]] = {}
        self._census: _Census | None = census
        self._threads: dict[int, Any] = {}
        self._children: set[int] = set()
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
        return bool(self._children & _children()) or any(
            ident in self._threads for ident in sys._current_frames()
        )

    def forget_census(self) -> None:
        """Let go of all objects."""
        self._census = None
        self._threads = dict.fromkeys(self._threads)

    def _add(self, nodeid: str, line: str) -> None:
        self._lines.setdefault(nodeid, []).append(line)

    def _judge_late(self, census: _Census, late: _Late) -> set[int]:
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

    def _judge_greenlets(self, census: _Census, known: _Known, failed: bool) -> set[int]:
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
            held_by_hub = census.look.wakers.timers_of(greenlet) or (
                census.look.wakers.listeners_of(greenlet)
            )
            if not held_by_hub and (failed or described.state == "not started"):
                continue  # an object like any other, of a traceback perhaps
            self.uncertain = True
            reported.add(id(greenlet))
            self._add(self._nodeid, _greenthread_line(described))
        return reported

    def _judge_tasks(self, census: _Census, known: _Known) -> None:
        for thing, task in census.tasks.values():
            if not known.has(thing):
                self.uncertain = True
                users = [each for each in task.stack if not is_of_asyncio(each)]
                place = _place(task.created or (users[-1] if users else None))
                line = f"task {task.name}, {task.coroutine}{place}, {task.state}"
                by = f", cancelled{_place(task.cancelled)}" if task.cancelled is not None else ""
                self._add(self._nodeid, f"{line}{_waits(task.waits)}{by}")

    def _judge_wakers(self, census: _Census, known: _Known, reported: set[int]) -> None:
        late = {id(each.greenlet()) for each in self.late.greenlets}
        told = reported | late
        pool = getattr(sys.modules.get("eventlet.tpool"), "_coro", None)
        for listener in census.listeners:
            owner = listener.greenlet
            if known.has(listener.raw) or id(owner) in told or owner is pool or known.has(owner):
                continue
            name = census.look.name(owner)
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
            self._add(self._nodeid, f"timer to {what} in {timer.seconds:.3f} s")

    def _judge_threads(self, census: _Census, known: _Known) -> None:
        for ident, thread in census.threads.items():
            if known.threads.get(ident) != id(thread) or (
                thread is not None and not known.has(thread)
            ):
                self.uncertain = True
                self._threads[ident] = thread
                kind = "daemon thread" if getattr(thread, "_daemonic", False) else "thread"
                self._add(self._nodeid, f"{kind} {thread_name(ident) or hex(ident)}")

    def _judge_children(self, census: _Census, known: _Known) -> None:
        for pid in sorted(census.children - known.children):
            self.uncertain = True
            self._children.add(pid)
            self._add(self._nodeid, _process_line(pid))

    def _judge_files(self, census: _Census, known: _Known, late: _Late, excused: bool) -> None:
        of_loops = {number: loop for loop in census.loops for number in _descriptors_of_loop(loop)}
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
                held = _held_by_hubs(census.heap)
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
    due = [id(each.raw) for each in look.wakers.timers_of(greenlet) if each.seconds <= 0]
    for listener in look.wakers.listeners_of(greenlet):
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
        f", {verb} at {frame.filename}:{frame.lineno}"
        for verb, frame in (("spawned", each.spawned), ("killed", each.killed))
        if frame is not None
    )
    return f"greenthread {each.name}{place}{_waits(each.waits)}{by}"


def _place(frame: Frame | None) -> str:
    return f" ({frame.filename}:{frame.lineno})" if frame is not None else ""


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
        words: Iterable[str] = process.cmdline() or [process.name()]
        text = " ".join(words)
    except (psutil.Error, OSError):
        return f"child process {pid}"
    return f"child process {pid}, {text if len(text) <= 100 else text[:97] + '...'}"
