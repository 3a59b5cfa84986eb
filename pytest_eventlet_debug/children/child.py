"""The child's side: a full pytest under one hub that tells its controller all it reports."""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from collections.abc import Generator
from collections.abc import Sequence
import contextlib
import io
from pathlib import Path
import posix
import sys
from typing import Any
import warnings

import msgspec
import pytest

from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug import roles
from pytest_eventlet_debug.alive import on_demand
from pytest_eventlet_debug.assignment import LENGTH_BYTES
from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.assignment import Launch
from pytest_eventlet_debug.assignment import decode
from pytest_eventlet_debug.children import answering
from pytest_eventlet_debug.children import benchmarks
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children.selection import Stepwise
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import starvation
from pytest_eventlet_debug.system import tty
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.high_descriptors import move_up

# Files of the user's that only the controller may write, for it knows all hubs' reports.
_CONTROLLERS_FILES = ("xmlpath", "htmlpath", "report_log", "pastebin", "json_report_file")
_CONTROLLERS_CACHE = ("cache/lastfailed", "cache/stepwise", "cache/nodeids")


def become(assignment: ChildAssignment, *, waits: bool = False) -> None:
    """Take up a controller's assignment, before any code of the user's runs.

    :param waits: whether the run begins when its turn has come.
    """
    descriptor = move_up(assignment.descriptor)

    def turn() -> ChildAssignment:
        told = await_turn(descriptor).assignment
        return msgspec.structs.replace(told, descriptor=descriptor)

    taken = msgspec.structs.replace(assignment, descriptor=descriptor)
    roles.take_up(taken, turn if waits else None)
    if not assignment.interactive:
        answering.answer()


def await_turn(line: int) -> Launch:
    """Return what the controller says once it is this child's turn.

    :raises SystemExit: nobody needs it.
    """
    try:
        size = int.from_bytes(unpatched.read_exactly(line, LENGTH_BYTES), "big")
        return decode(unpatched.read_exactly(line, size).decode("ascii"), Launch)
    except EOFError:
        sys.exit()


def flush_output() -> None:
    """Write out what the program that calls pytest has printed: the controller has said it.

    pytest has not redirected the streams yet.
    """
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def give_up_files(config: pytest.Config, assignment: ChildAssignment) -> None:
    """Leave to the controller what only one process may do: files, maxfail, the cache."""
    for option in _CONTROLLERS_FILES:
        if getattr(config.option, option, None):
            setattr(config.option, option, None)
    if assignment.randomly_seed is not None:
        config.option.randomly_seed = assignment.randomly_seed
    if hasattr(config.option, "environment_expression"):
        # pytest-testmon keeps what it knows for each environment, and forgets tests that it does
        # not find in one.
        told = config.option.environment_expression, assignment.hub
        config.option.environment_expression = " ".join(filter(None, told))
    config.option.cacheclear = False
    if getattr(config.option, "clean_alluredir", False):
        config.option.clean_alluredir = False  # the controller has done it, for all hubs
    config.option.maxfail = assignment.maxfail
    if getattr(config.option, "stepwise_skip", False):
        config.option.stepwise, config.option.stepwise_skip = True, assignment.stepwise_skip
    basetemp: str | None = config.getoption("basetemp", None)
    if basetemp:
        base = Path(basetemp)
        base.mkdir(parents=True, exist_ok=True)  # pytest makes the last part alone
        config.option.basetemp = str(base / str(assignment.hub))


class _MutedTerminal:
    """The terminal reporter without its hooks: there for ``--pdb`` and for conftests, silent."""

    def __init__(self, reporter: Any) -> None:
        self._reporter = reporter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)


class _Text(io.TextIOBase):
    """The file of a terminal that is the controller's."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    def write(self, text: str) -> int:
        self._reporter.send(messages.Text(text))
        return len(text)


class _Phases:
    """Says which phase a test is in, where its reports come when the last one is over."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter

    # Wrappers, for this is to come before the code of the phase begins.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        self._begins(item, "setup")
        return (yield)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        if call.when == "setup" and call.excinfo is None:
            # Not within the call, what is counted of which is to be the test's.
            self._begins(item, "call")

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        self._begins(item, "teardown")
        return (yield)

    def _begins(self, item: pytest.Item, phase: str) -> None:
        self._reporter.send(messages.PhaseBegins(item.nodeid, phase, unpatched.time_ns()))


class Reporter:
    """Sends every hook call that reports need to the controller, and obeys its stop."""

    def __init__(self, config: pytest.Config, assignment: ChildAssignment) -> None:
        self._config = config
        self._assignment = assignment
        self._pid = unpatched.getpid()
        self._line = _inode(assignment.descriptor)
        self._terminal: Any = None
        self._session: pytest.Session | None = None
        self._collected_by_workers = False
        self._has_begun = False
        self._stopped = False
        self._began, self._delay_ns = unpatched.monotonic(), 0
        self._loan = tty.Loan()

    def send(self, message: messages.Message) -> None:
        """Tell the controller."""
        # A test that forks and returns into pytest must not speak for this process.
        if unpatched.getpid() == self._pid:
            with Shield():
                if _inode(self._assignment.descriptor) != self._line:
                    self._end_unheard()
                unpatched.write_whole(self._assignment.descriptor, messages.encode(message))
                if self._assignment.interactive or isinstance(message, messages.AWAITED):
                    self._wait_until_shown()

    def _end_unheard(self) -> None:
        """End, for nothing that this process does from here on could be told."""
        words = (
            f"ended because it had closed or replaced descriptor {self._assignment.descriptor}, "
            "the connection to the controller\n"
        )
        with contextlib.suppress(OSError):
            files.append(self._assignment.lost, words.encode())
        posix._exit(1)

    def _wait_until_shown(self) -> None:
        """Wait for the controller, so that it and this process print in turn."""
        while (answer := posix.read(self._assignment.descriptor, 1)) == messages.STOP:
            self._stopped = True
        assert answer in (messages.SHOWN, b"")

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        manager = config.pluginmanager
        self._terminal = manager.getplugin("terminalreporter")
        if self._terminal is not None:
            manager.unregister(self._terminal)
            if not self._assignment.interactive:
                text: Any = _Text(self)
                pytest_internals.redirect_terminal(config, self._terminal, text)
            manager.register(_MutedTerminal(self._terminal), "terminalreporter")
        cache = getattr(config, "cache", None)
        if cache is not None:
            cache.set = _without(cache.set, _CONTROLLERS_CACHE)

        results = benchmarks.sender(config, lambda found: self.send(messages.Benchmarks(found)))
        if results is not None:
            manager.register(results)
        if manager.hasplugin("rerunfailures"):
            manager.register(_Phases(self))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        said = self._config.hook.pytest_report_collectionfinish(
            config=self._config,
            start_path=self._config.invocation_params.dir,
            items=session.items,
        )
        lines: list[str] = []
        for each in reversed(said):
            lines += [each] if isinstance(each, str) else each
        listing = None
        if self._config.option.collectonly and self._terminal is not None:
            listing = pytest_internals.list_items(self._config, self._terminal, session.items)
        self._send_collected([item.nodeid for item in session.items], lines, listing)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        if not self._collected_by_workers:  # each worker says the same
            self._collected_by_workers = True
            self._send_collected(list(ids), [], None)

    def _send_collected(self, nodeids: list[str], lines: list[str], listing: str | None) -> None:
        count = Stepwise(self._config).count
        self.send(messages.Collected(nodeids, count, lines, listing))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._has_begun = True
        on_demand.begin_test()
        self.send(messages.LogStart(nodeid, _location(location)))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Where the terminal asks for a status, pytest fails a test for its subtests.
        self._config.hook.pytest_report_teststatus(report=report, config=self._config)
        self.send(messages.LogReport(report.nodeid, self._serialize(report)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self.send(messages.CollectReport(self._serialize(report)))

    def _serialize(self, report: pytest.TestReport | pytest.CollectReport) -> dict[str, Any]:
        data: dict[str, Any] = self._config.hook.pytest_report_to_serializable(
            config=self._config, report=report
        )
        data.pop("node", None)  # xdist's handle on its worker
        return data

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self.send(messages.LogFinish(nodeid, _location(location)))
        if self._stopped or unpatched.wait_readable([self._assignment.descriptor], 0):
            self._stop("the controller has stopped the run")

    def _stop(self, reason: str) -> None:
        assert self._session is not None
        self._session.shouldstop = reason
        distributed: Any = self._config.pluginmanager.getplugin("dsession")
        if distributed is not None:
            distributed.shouldstop = reason

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        self._began, self._delay_ns = unpatched.monotonic(), self._run_delay()
        on_demand.ignore_present_threads()
        self.send(messages.SessionStart(pytest_internals.captured_files(self._config)))

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        # pytest-testmon's stand for tests in files that it did not even open.
        self.send(messages.Deselected([getattr(item, "nodeid", "") for item in items]))

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        # The controller has the warnings of its own configuration. Those of the session's end,
        # which pytest calls the same, are of what was done here.
        if when != "config" or self._has_begun:
            self.send(messages.warning_recorded(warning_message, when, nodeid, location))

    @pytest.hookimpl(tryfirst=True)
    def pytest_enter_pdb(self) -> None:
        with Shield():
            sys.stdout.flush()  # pytest's banner, which the controller prints first
        self.send(messages.Debugger(opens=True))
        if self._assignment.borrows_terminal:
            self._loan.take()

    @pytest.hookimpl(trylast=True)
    def pytest_leave_pdb(self, pdb: object) -> None:
        with Shield():
            _interrupt_on_ctrl_c(pdb)
        self._loan.give_back()
        self.send(messages.Debugger(opens=False))

    def pytest_internalerror(self, excrepr: object) -> None:
        self.send(messages.InternalError(str(excrepr)))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if isinstance(excinfo.value, pytest.exit.Exception):
            self.send(messages.Exit(str(excinfo.value.msg), excinfo.value.returncode))
        elif not isinstance(excinfo.value, pytest.Session.Interrupted):
            shown = excinfo.getrepr(style="short")
            crash = shown.reprcrash
            place = f"{crash.path}:{crash.lineno}" if crash else "?"
            self.send(messages.Interrupted(place, str(shown)))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        session = self._session
        shouldstop, shouldfail = ("", "")
        if session is not None:
            shouldstop, shouldfail = str(session.shouldstop or ""), str(session.shouldfail or "")
            exitstatus = int(session.exitstatus)  # plugins may have changed it
        lasted = unpatched.monotonic() - self._began
        lacked = (self._run_delay() - self._delay_ns) / 1e9
        self.send(messages.SessionFinish(int(exitstatus), shouldstop, shouldfail, lasted, lacked))

    def _run_delay(self) -> int:
        """Return for how long the main thread was ready to run and had no CPU, in ns."""
        try:
            return starvation.run_delay(self._pid, self._pid)
        except (OSError, ValueError, IndexError):
            return 0  # this kernel does not tell

    def pytest_unconfigure(self) -> None:
        roles.end_run()


def _interrupt_on_ctrl_c(debugger: object) -> None:
    """Have Ctrl-C interrupt tests again. Pdb has it open a debugger where ``continue`` was typed.

    Of that one pytest knows nothing: it would have no terminal.
    """
    if getattr(_signal.getsignal(_signal.SIGINT), "__self__", None) is debugger:
        before = getattr(debugger, "_previous_sigint_handler", None)
        _signal.signal(_signal.SIGINT, before or _signal.default_int_handler)


def _inode(descriptor: int) -> int:
    """Return the number of the file behind a descriptor, 0 if there is none."""
    try:
        return posix.fstat(descriptor).st_ino
    except OSError:
        return 0


def _without(save: Any, keys: tuple[str, ...]) -> Any:
    def guarded(key: str, value: object) -> None:
        if key not in keys:
            save(key, value)

    return guarded


def _location(location: tuple[str, Any, str]) -> messages.Location:
    """Return a test's place as messages have it; an item of a conftest's may give any line."""
    path, line, name = location
    return path, line if isinstance(line, int) else None, name
