"""Show what is alive: at the debugger's prompt, and in the report of a failing test."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterator
import contextlib
import functools
from pathlib import Path
import posix
import sys
from typing import Any

from msgspec.structs import replace
import pytest

from pytest_eventlet_debug.alive import debugger
from pytest_eventlet_debug.alive.acquisitions import AcquisitionWatch
from pytest_eventlet_debug.alive.asyncio_timeouts import AsyncioTimeoutWatch
from pytest_eventlet_debug.alive.asyncio_watch import AsyncioWatch
from pytest_eventlet_debug.alive.early_wakes import EarlyWakeWatch
from pytest_eventlet_debug.alive.endings import EndingWatch
from pytest_eventlet_debug.alive.executors import ExecutorWatch
from pytest_eventlet_debug.alive.hidden_errors import HiddenErrorWatch
from pytest_eventlet_debug.alive.hub import never_called
from pytest_eventlet_debug.alive.hub import not_begun
from pytest_eventlet_debug.alive.late_calls import LateCallWatch
from pytest_eventlet_debug.alive.local_calls import LocalCallWatch
from pytest_eventlet_debug.alive.pool_items import PoolWatch
from pytest_eventlet_debug.alive.render import render_endings
from pytest_eventlet_debug.alive.render import render_greenthreads
from pytest_eventlet_debug.alive.render import render_hubs
from pytest_eventlet_debug.alive.render import render_tasks
from pytest_eventlet_debug.alive.replaced_calls import ReplacedCallWatch
from pytest_eventlet_debug.alive.sends import SendWatch
from pytest_eventlet_debug.alive.shared_rlocks import SharedRLockWatch
from pytest_eventlet_debug.alive.snapshot import Alive
from pytest_eventlet_debug.alive.snapshot import take
from pytest_eventlet_debug.alive.spawns import SpawnWatch
from pytest_eventlet_debug.alive.tasks import Task
from pytest_eventlet_debug.alive.tasks import not_begun as task_not_begun
from pytest_eventlet_debug.alive.timeouts import TimeoutWatch
from pytest_eventlet_debug.alive.unawaited import UnawaitedWatch
from pytest_eventlet_debug.artifact_names import TASKS_FILE
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.report_properties import REASON_PROPERTY
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import stand_in

# Taken here, before a test can patch it.
_access = posix.access

_DUMPED = "_eventlet_debug_dumped"
# Stacks in the file, where there is more room than in a report.
_MAX_GROUPS_IN_FILE = 2000
# Tasks that ended with an exception, in the summary.
_MAX_FAILED = 2
# What unittest calls before it tears down and pytest can make a report.
_UNITTEST = ("_callSetUp", "_callTestMethod")
_NO_FAILURES = ("SkipTest", "_ShouldStop", "Skipped", "XFailed", "Exit", "KeyboardInterrupt")


@contextlib.contextmanager
def _own_work() -> Iterator[None]:
    """Have what this thread does meanwhile taken for ours by who reads a trace of it."""
    _access(marks.OWN_BEGINS, 0)
    try:
        yield
    finally:
        _access(marks.OWN_ENDS, 0)


class AliveDump:
    """Dumps what is alive as a debugger opens or a test fails; a plugin object.

    Not for ``--trace``, which opens before the test has done anything. Never raises.

    :param directory: returns the directory of a test's artifacts, made now.
    :param redact: takes out of a text what is not to be in it.
    """

    def __init__(
        self,
        config: pytest.Config,
        directory: Callable[[pytest.Item], Path],
        redact: Callable[[str], str],
    ) -> None:
        self._directory = directory
        self._redact = redact
        self._in_reports = not config.getoption("usepdb", False)
        self._asyncio = AsyncioWatch()
        self._endings = EndingWatch()
        self._asyncio_timeouts = AsyncioTimeoutWatch(lambda: self._take_at(None))
        noting = SpawnWatch(), SendWatch(), PoolWatch(), AcquisitionWatch()
        # In the order in which they tell.
        seen = EarlyWakeWatch(), LateCallWatch(), ReplacedCallWatch(), SharedRLockWatch()
        lost = UnawaitedWatch(), ExecutorWatch(), LocalCallWatch(), HiddenErrorWatch()
        self._telling = (*seen, *lost)
        of_asyncio = self._asyncio, self._asyncio_timeouts, self._endings
        self._watches = (*of_asyncio, *noting, *self._telling)
        self._timeouts = TimeoutWatch(self._take_at)
        self._error: BaseException | None = None
        self._began = 0.0
        self._modules = 0
        self._as_it_failed: tuple[int, Alive] | None = None
        self._others: frozenset[int] = frozenset()
        self._unittest: list[tuple[type, str, Any]] = []

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        # Threads of pytest's plugins say nothing of a test.
        with Shield():
            self._others = frozenset(sys._current_frames())
            self._asyncio.start()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        self._error = self._as_it_failed = None
        self._began = unpatched.monotonic()
        with Shield():  # what is not watched is not shown
            self._timeouts.begin()
            self._modules = len(sys.modules)
            for watch in self._watches:
                watch.begin()
            if self._in_reports and not self._unittest:
                self._watch_unittest()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self) -> None:
        with Shield():
            self._timeouts.begin()
            if len(sys.modules) != self._modules:  # fixtures have imported something
                for watch in self._watches:
                    watch.look_again()

    def pytest_unconfigure(self) -> None:
        with Shield():
            self._timeouts.stop()
            for watch in self._watches:
                watch.stop()
        for kind, name, original in self._unittest:
            setattr(kind, name, original)
        self._unittest.clear()

    def _watch_unittest(self) -> None:
        """Look before ``tearDown()`` does away with what there is to see."""
        kind = getattr(sys.modules.get("unittest.case"), "TestCase", None)
        for name in _UNITTEST:
            original = getattr(kind, name, None)
            if kind is not None and original is not None:
                self._unittest.append((kind, name, original))
                setattr(kind, name, self._failing(original))

    def _failing(self, original: Any) -> Any:
        def call(*args: Any) -> Any:
            __tracebackhide__ = True
            try:
                return original(*args)
            except BaseException as error:  # such as eventlet.Timeout
                if type(error).__name__ not in _NO_FAILURES:
                    with contextlib.suppress(Exception):
                        self._as_it_failed = (id(error), self._take(error))
                raise

        return stand_in(call, original)

    def _take(self, error: BaseException | None) -> Alive:
        with _own_work():
            return self._timeouts.of(error) or take(
                self._asyncio.cancelled.by(error), self._others, None, self._endings.last()
            )

    def _take_at(self, frame: Any) -> Alive:
        with _own_work():
            return take((), self._others, frame, self._endings.last())

    # Outside of what judges xfail, inside of the session that closes the artifacts.
    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        ended = unpatched.monotonic()
        report = yield
        if report.failed and call.excinfo is not None:
            error = call.excinfo.value
            if self._in_reports:
                self._report(item, report, error, ended)
            else:
                self._error = error  # for the debugger, which opens next
        elif call.when == "teardown":
            self._error = self._as_it_failed = None
        return report

    def _report(
        self, item: pytest.Item, report: pytest.TestReport, error: BaseException, ended: float
    ) -> None:
        try:
            # First of all: what is taken next may hold greenthreads, too.
            told = [*self._asyncio.told(), *(watch.told() for watch in self._telling)]
            seen = self._as_it_failed
            if seen and seen[0] == id(error):
                ago, alive = 0.0, seen[1]
            else:
                alive = self._take(error)
                ago = unpatched.monotonic() - ended
            self._as_it_failed = None
            seconds = unpatched.monotonic() - self._began
            never = never_called(alive.hubs, seconds)
            ran = ended - max(self._timeouts.resumed, self._began)
            begun = None
            if report.when == "call":
                begun = not_begun(alive.hubs, ago, seconds, ran)
                begun = begun or task_not_begun(alive.tasks, ago, ran)
            failed = alive.tasks.failed[:_MAX_FAILED]
            not_called = self._asyncio.calls.not_called(ago, ran)
            vain = _in_vain(alive) or self._asyncio_timeouts.of(error)
            caught = self._timeouts.caught(error)
            told = [self._timeouts.in_hub, *told, not_called]
            lines = (*told, vain, begun, *failed, never, caught)
            for line in filter(None, lines):
                report.user_properties.append((REASON_PROPERTY, self._redact(line)))
            with _own_work():
                report.sections += [(name, self._redact(text)) for name, text in sections(alive)]
                self._write(self._directory(item) / TASKS_FILE, alive)
        except BaseException as failure:
            text = f"could not be listed: {type(failure).__name__}"
            report.sections.append(("Asyncio tasks", text))

    def _write(self, path: Path, alive: Alive) -> None:
        text = "".join(
            (
                render_tasks(alive.tasks, _MAX_GROUPS_IN_FILE, alive.cancelled),
                render_greenthreads(alive.greenthreads, _MAX_GROUPS_IN_FILE),
                render_hubs(alive.hubs, _MAX_GROUPS_IN_FILE),
                f"{alive.timeout}\n" if alive.timeout else "",
                render_endings(alive.endings),
            )
        )
        files.append(path, self._redact(text).encode("utf-8", "backslashreplace"))

    def pytest_enter_pdb(self, pdb: Any) -> None:
        # Capturing is suspended by now, and the debugger made after that.
        stdout = getattr(pdb, "stdout", None) or sys.stdout
        try:
            error = self._error
            commands = debugger.add_commands(pdb, functools.partial(self._take, error))
            if getattr(pdb, _DUMPED, False) or debugger.opens_before_the_test():
                return
            setattr(pdb, _DUMPED, True)
            debugger.write(stdout, debugger.show(self._take(error)))
            if commands:
                debugger.write(stdout, debugger.HINT)
        except BaseException as failure:
            # Whatever it is, the debugger matters more.
            debugger.complain(stdout, failure)


def _in_vain(alive: Alive) -> str | None:
    """Say what the test waited for as a Timeout ended it, if that is not told by its line."""
    waited = alive.in_vain() if alive.timeout else ""
    return f"the test waited in vain {waited}" if waited else None


def _is_of_hub(task: Task) -> bool:
    """Say whether a task is what the asyncio hub runs as, or that it waits for before 3.12."""
    is_made = task.created is not None and HUBS in task.created.filename
    return is_made and task.coroutine in ("Hub.run.<locals>.async_run()", "Event.wait()")


def sections(alive: Alive) -> list[tuple[str, str]]:
    """Return the sections of a report, without those of which there is nothing to say."""
    found = []
    others = not all(map(_is_of_hub, alive.tasks.tasks))
    if others or alive.tasks.failed or alive.cancelled:
        # The traceback keeps finished tasks, and they are no news.
        tasks = replace(alive.tasks, done=0)
        found.append(("Asyncio tasks", render_tasks(tasks, cancelled=alive.cancelled)))
    threads = [each for each in alive.greenthreads.threads if each.calls or not each.of_tpool]
    if alive.greenthreads.greenthreads or threads:
        found.append(("Greenthreads", render_greenthreads(alive.greenthreads)))
    if any(hub.listeners or hub.timers for hub in alive.hubs):
        found.append(("Hub", render_hubs(alive.hubs)))
    if alive.timeout:
        found.append(("Timeout", alive.timeout))
    if alive.endings:
        found.append(("Cancelled and killed", render_endings(alive.endings)))
    return [(name, text.rstrip("\n")) for name, text in found]
