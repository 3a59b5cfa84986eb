"""The child's side: a full pytest under one hub that tells its controller all it reports."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import dataclasses
import faulthandler
import functools
import io
import json
from pathlib import Path
import posix
import signal
import types
from typing import Any
import warnings

from _pytest.config import create_terminal_writer
import pytest

from pytest_eventlet_debug.alive import on_demand
from pytest_eventlet_debug.children import messages as wire
from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.system import tty
from pytest_eventlet_debug.system import unpatched

# Not a signal that tests use: real-time signals have no meaning of their own.
STACKS_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2) - 3
# What a Python handler answers, once the interpreter comes round to it.
ALIVE_SIGNAL = getattr(signal, "SIGRTMAX", signal.SIGUSR2) - 4

# Files of the user's that only the controller may write, for it knows all hubs' reports.
_CONTROLLERS_FILES = ("xmlpath", "htmlpath", "report_log", "pastebin", "json_report_file")
_CONTROLLERS_CACHE = ("cache/lastfailed", "cache/stepwise", "cache/nodeids")


@dataclasses.dataclass(frozen=True)
class Spec:
    """What a controller tells its child at birth.

    :param descriptor: the socket that leads to the controller.
    :param hub: the hub to run under, or ``None`` for whatever is set.
    :param hubs: the names of all hubs of the run.
    :param run: names the run, for its artifacts.
    :param rest: a JSON file with the node ids that are left to run, in order, or ``None``
        for all that are found.
    :param maxfail: how many more failures end the run, 0 for no end.
    :param stepwise_skip: whether ``--stepwise-skip`` still has its failure to ignore.
    :param interactive: whether the terminal is the child's.
    :param terminal: whether there is one to borrow while a debugger is open.
    :param own_pids: whether this process was born with process ids and a network of its own.
    """

    descriptor: int
    hub: str | None
    hubs: tuple[str, ...]
    run: str
    rest: str | None
    maxfail: int
    stepwise_skip: bool
    interactive: bool
    terminal: bool
    own_pids: bool


spec: Spec | None = None


def become(given: Spec) -> None:
    """Take up a controller's line, before any code of the user's runs."""
    global spec
    spec = dataclasses.replace(
        given, descriptor=unpatched.move_up(given.descriptor), hubs=tuple(given.hubs)
    )
    if not given.interactive:
        # pytest is about to capture descriptor 2.
        stderr = unpatched.move_up(posix.dup(2))
        faulthandler.register(STACKS_SIGNAL, stderr, all_threads=True, chain=False)
        signal.signal(ALIVE_SIGNAL, functools.partial(_tell_and_stay, stderr))


def _tell_and_stay(stderr: int, number: int, frame: types.FrameType | None) -> None:
    """Write what is alive, and wait to be killed.

    The signal has interrupted a system call: a test must not go on, and pass, for having been
    asked why it hangs.
    """
    on_demand.write_dump(stderr, frame)
    while True:
        unpatched.wait_readable([], None)


def give_up_files(config: pytest.Config, spec: Spec) -> None:
    """Leave to the controller what only one process may do: files, maxfail, the cache."""
    for option in _CONTROLLERS_FILES:
        if getattr(config.option, option, None):
            setattr(config.option, option, None)
    config.option.cacheclear = False
    config.option.maxfail = spec.maxfail
    if getattr(config.option, "stepwise_skip", False):
        config.option.stepwise, config.option.stepwise_skip = True, spec.stepwise_skip
    if config.option.basetemp:
        base = Path(config.option.basetemp)
        base.mkdir(parents=True, exist_ok=True)  # pytest makes the last part alone
        config.option.basetemp = str(base / str(spec.hub))


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
        self._reporter.send_text(text)
        return len(text)


class Reporter:
    """Sends every hook call that reports need to the controller, and obeys its stop."""

    def __init__(self, config: pytest.Config, spec: Spec) -> None:
        self._config = config
        self._spec = spec
        self._pid = unpatched.getpid()
        self._terminal: Any = None
        self._session: pytest.Session | None = None
        self._distributes = False
        self._stopped = False
        self._loan = tty.Loan()

    def _send(self, kind: str, content: object = None) -> None:
        # A test that forks and returns into pytest must not speak for this process.
        if unpatched.getpid() == self._pid:
            with contextlib.suppress(OSError):
                unpatched.write_all(self._spec.descriptor, wire.encode(kind, content))
                if self._spec.interactive or kind in wire.AWAITED:
                    self._wait_until_shown()

    def send_text(self, text: str) -> None:
        """Let the controller print what somebody writes to the terminal."""
        self._send("text", text)

    def _wait_until_shown(self) -> None:
        """Wait for the controller, so that it and this process print in turn."""
        while (answer := posix.read(self._spec.descriptor, 1)) == wire.STOP:
            self._stopped = True
        assert answer in (wire.SHOWN, b"")

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        manager = config.pluginmanager
        self._terminal = manager.getplugin("terminalreporter")
        if self._terminal is not None:
            manager.unregister(self._terminal)
            if not self._spec.interactive:
                text: Any = _Text(self)
                self._terminal._tw = create_terminal_writer(config, text)
            manager.register(_MutedTerminal(self._terminal), "terminalreporter")
        cache = getattr(config, "cache", None)
        if cache is not None:
            cache.set = _without(cache.set, _CONTROLLERS_CACHE)

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
        listing = self._listing(session.items) if self._config.option.collectonly else None
        self._send_collected([item.nodeid for item in session.items], lines, listing)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        if not self._distributes:
            self._distributes = True
            self._send_collected(list(ids), [], None)

    def _send_collected(self, ids: list[str], lines: list[str], listing: str | None) -> None:
        count = Stepwise(self._config).count
        self._send("collected", {"ids": ids, "count": count, "lines": lines, "listing": listing})

    def _listing(self, items: list[pytest.Item]) -> str | None:
        if self._terminal is None:
            return None
        text = io.StringIO()
        writer, self._terminal._tw = self._terminal._tw, create_terminal_writer(self._config, text)
        try:
            self._terminal._printcollecteditems(items)
        finally:
            self._terminal._tw = writer
        return text.getvalue()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._send("logstart", [nodeid, location])

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # Where the terminal asks for a status, pytest fails a test for its subtests.
        self._config.hook.pytest_report_teststatus(report=report, config=self._config)
        self._send("report", self._serialize(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._send("collectreport", self._serialize(report))

    def _serialize(self, report: pytest.TestReport | pytest.CollectReport) -> dict[str, Any]:
        data: dict[str, Any] = self._config.hook.pytest_report_to_serializable(
            config=self._config, report=report
        )
        data.pop("node", None)  # xdist's handle on its worker
        return data

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        self._send("logfinish", [nodeid, location])

        if self._stopped or unpatched.wait_readable([self._spec.descriptor], 0):
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
        on_demand.ignore_present_threads()
        self._send("start", _captured_files(self._config))

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        self._send("deselected", [item.nodeid for item in items])

    def pytest_warning_recorded(
        self,
        warning_message: warnings.WarningMessage,
        when: str,
        nodeid: str,
        location: tuple[str, int, str] | None,
    ) -> None:
        # The controller has the warnings of its own configuration.
        if when != "config":
            warning = wire.encode_warning(warning_message)
            self._send("warning", [warning, when, nodeid, location])

    @pytest.hookimpl(tryfirst=True)
    def pytest_enter_pdb(self) -> None:
        self._send("debugger", True)
        if self._spec.terminal:
            self._loan.take()

    @pytest.hookimpl(trylast=True)
    def pytest_leave_pdb(self) -> None:
        self._loan.give_back()
        self._send("debugger", False)

    def pytest_internalerror(self, excrepr: object) -> None:
        self._send("internalerror", str(excrepr))

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if isinstance(excinfo.value, pytest.exit.Exception):
            self._send("exit", [excinfo.value.msg, excinfo.value.returncode])
        elif not isinstance(excinfo.value, pytest.Session.Interrupted):
            shown = excinfo.getrepr(style="short")
            crash = shown.reprcrash
            place = f"{crash.path}:{crash.lineno}" if crash else "?"
            self._send("interrupted", [place, str(shown)])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        session = self._session
        stop = [str(session.shouldstop or ""), str(session.shouldfail or "")] if session else []
        self._send("finish", [int(exitstatus), *stop])


def _captured_files(config: pytest.Config) -> list[int] | None:
    """Return the descriptors of the files that pytest captures descriptors 1 and 2 into."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    streams = getattr(capture, "_global_capturing", None)
    files: list[Any] = [
        getattr(getattr(streams, stream, None), "tmpfile", None) for stream in ("out", "err")
    ]
    try:
        return [file.fileno() for file in files]
    except (AttributeError, OSError, ValueError):  # --capture=sys, no
        return None


def _without(save: Any, keys: tuple[str, ...]) -> Any:
    def guarded(key: str, value: object) -> None:
        if key not in keys:
            save(key, value)

    return guarded


class Rest:
    """Run what an earlier process, which died, has left: the same tests in the same order.

    :param path: a JSON file with their node ids.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    # Outermost: --lf or --stepwise choose what they chose the first time, and then this.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        result = yield
        found: dict[str, list[pytest.Item]] = {}
        for item in reversed(items):
            found.setdefault(item.nodeid, []).append(item)
        left = json.loads(self._path.read_text())
        items[:] = [found[nodeid].pop() for nodeid in left if found.get(nodeid)]
        return result


class LastFailed:
    """Keep ``--lf`` and ``--stepwise`` right where the failures to repeat are another hub's."""

    def __init__(self, hub: str, hubs: Sequence[str]) -> None:
        self._hub = hub
        self._order = {each: place for place, each in enumerate(hubs)}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        stepwise = Stepwise(config)
        stepwise.recall(self._hub)
        result = yield
        if self._failures_are_elsewhere(config) or self._goes_on_later(stepwise.last_failed):
            config.hook.pytest_deselected(items=list(items))
            items[:] = []
        return result

    def _failures_are_elsewhere(self, config: pytest.Config) -> bool:
        cache = getattr(config, "cache", None)
        if cache is None or not config.option.lf:
            return False
        failed = {split_hub(each, self._order)[1] for each in cache.get("cache/lastfailed", {})}
        return bool(failed) and None not in failed and self._hub not in failed

    def _goes_on_later(self, last_failed: str | None) -> bool:
        hub = split_hub(last_failed, self._order)[1] if last_failed else None
        return hub is not None and self._order[hub] > self._order[self._hub]


class Stepwise:
    """What ``--stepwise`` remembers, for pytest has one number of tests and each hub its own.

    All of it is nothing as long as the option is not given.
    """

    KEY = "eventlet-debug/stepwise"

    def __init__(self, config: pytest.Config) -> None:
        self._cache: Any = getattr(config, "cache", None)
        plugin: Any = config.pluginmanager.getplugin("stepwiseplugin")
        self._info: Any = getattr(plugin, "cached_info", None)

    def recall(self, hub: str) -> None:
        """Set how many tests there were under a hub the last time."""
        if self._info is not None:
            self._info.last_test_count = self._cache.get(self.KEY, {}).get(hub)

    @property
    def last_failed(self) -> str | None:
        """The id of the test to go on from."""
        failed = getattr(self._info, "last_failed", None)
        return str(failed) if failed is not None else None

    @property
    def count(self) -> int | None:
        """How many tests there are now, once they are collected."""
        count: int | None = getattr(self._info, "last_test_count", None)
        return count

    def save(self, counts: Mapping[str, int]) -> None:
        """Remember how many tests there are under some hubs."""
        if self._info is not None and counts:
            self._cache.set(self.KEY, {**self._cache.get(self.KEY, {}), **counts})
