"""What is switched on in which process.

The process that the user started is the *root*. It runs the tests itself, or is the
controller of children, one for each hub. A process that runs tests may in turn have
pytest-xdist's workers run them. Whoever starts a process tells it what it needs to know
through one environment variable, which the process takes out before the user's code runs.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
from contextlib import AbstractContextManager
import dataclasses
import functools
from importlib.metadata import version
import json
import os
from pathlib import Path
import platform
import posix
import time

import pytest

from pytest_eventlet_debug import __version__
from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug.children import child
from pytest_eventlet_debug.children import coverage
from pytest_eventlet_debug.children.controller import Controller
from pytest_eventlet_debug.hubs import names as hubs
from pytest_eventlet_debug.hubs.ids import HubItems
from pytest_eventlet_debug.hubs.witness import HubWitness
from pytest_eventlet_debug.report.writing import ReportWriter
from pytest_eventlet_debug.settings import read_settings
from pytest_eventlet_debug.summary import Summary
from pytest_eventlet_debug.system import network as isolation
from pytest_eventlet_debug.system import pids
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracers import ports
from pytest_eventlet_debug.tracers import tls_keys
from pytest_eventlet_debug.tracers.completion import Completion
from pytest_eventlet_debug.tracers.cprofile import CProfile
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.pcap import Pcap
from pytest_eventlet_debug.tracers.protocol import Tracer
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.session import TracerSession
from pytest_eventlet_debug.tracers.strace import Strace
from pytest_eventlet_debug.upgrade.check import UpgradeCheck
from pytest_eventlet_debug.upgrade.recorder import Recorder
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError

#: Carries a :class:`Told` to pytest-xdist's workers.
WORKER_VARIABLE = "PYTEST_EVENTLET_DEBUG_WORKER"

TRACERS = ("cprofile", "pcap", "strace")

_SESSION = "eventlet-debug-session"
_SUMMARY = "eventlet-debug-summary"


@dataclasses.dataclass(frozen=True)
class Told:
    """What a process that runs tests was told by the one that started it.

    :param hub: the hub to run under, or ``None`` for whatever is set.
    :param hubs: the names of all hubs of the run.
    :param run: names the run, so that its artifacts are not taken for an older one's.
    :param rest: a file with the node ids that are left to run, or ``None`` for all.
    """

    hub: str | None
    hubs: tuple[str, ...]
    run: str
    rest: str | None


class Activation:
    """The plugin in one process, from the command line to the end; a plugin object.

    :param config: before the first conftest is imported.
    :raises pytest.UsageError: a value that cannot be used.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._told = _told()
        self._helper: Helper | None = None
        self._tools: list[str] = []
        self._checked: dict[str, TracerError | None] = {}
        self._distributes = False
        self._own_pids = False
        self._is_open = False
        hub = self._told.hub if self._told else None
        self.settings = read_settings(config, hub)
        self._run = self._told.run if self._told else f"{time.time_ns():x}-{os.getpid():x}"

    @property
    def hub(self) -> hubs.Hub:
        """The hub that the tests of this process run under."""
        return self.settings.hubs[0] if self.settings.hubs else hubs.default()

    @property
    def _runs_tests(self) -> bool:
        return self._told is not None or not self.settings.needs_children

    @property
    def _is_worker(self) -> bool:
        """Whether this is a process of pytest-xdist's, started by one of ours."""
        return self._told is not None and child.spec is None

    def prepare(self) -> None:
        """Set the stage before the user's code runs: the hub, the helper, coverage."""
        options = self._config.known_args_namespace
        if child.spec is not None:
            coverage.quiet(options)
        if not self._runs_tests:
            if self.settings.isolate:
                self._try_isolated()
            return
        if self.settings.hubs:
            _set_for_the_run(self._config, "EVENTLET_HUB", self.hub.name)
        # A worker has the number of its kind among its options, too.
        distributes = bool(getattr(options, "numprocesses", None)) and not self._is_worker
        if self.settings.isolate and not self._isolates_late:
            self._isolate(distributes)
        needs_helper = self.settings.strace or self.settings.pcap
        if needs_helper and not distributes and not self._isolates_late:
            # After user code it would start just as well, but under its eyes.
            with contextlib.suppress(TracerError):
                self._start_helper()
            if self.settings.pcap:
                tls_keys.install()
            if self.settings.pcap and not (self.settings.strace or self.settings.isolate):
                ports.install()

    def _try_isolated(self) -> None:
        """Try, as long as this process has one thread, what its children will do."""
        with_pids = functools.partial(pids.enter, posix.getpid())
        try:
            try:
                tools = isolation.run_apart(self._check_tracers_apart, with_pids)
                self._own_pids = True
            except isolation.IsolationError:
                # Many containers forbid it. A network alone is worth having, too.
                tools = isolation.run_apart(self._check_tracers_apart)
        except (isolation.IsolationError, RuntimeError) as error:
            raise pytest.UsageError(str(error)) from None
        assert isinstance(tools, list)
        self._tools = tools

    @property
    def _isolates_late(self) -> bool:
        """Whether a worker first connects to the one that started it, over ``lo``."""
        return (
            self.settings.isolate
            and self._is_worker
            and self._config.pluginmanager.hasplugin("rerunfailures")
        )

    def _isolate(self, distributes: bool) -> None:
        """Give this process a network of its own before the user's code runs."""
        try:
            if self._is_worker:
                isolation.enter_again()
            elif child.spec is not None and child.spec.own_pids:
                isolation.keep_rights(for_workers=distributes)
            else:
                isolation.enter(for_workers=distributes)
        except isolation.IsolationError as error:
            raise pytest.UsageError(str(error)) from None
        except OSError as error:
            raise pytest.UsageError(isolation.explain(error)) from None
        if not distributes:
            # The helper keeps the right to capture, which this process gives up.
            with contextlib.suppress(TracerError):
                self._start_helper()
            isolation.drop()

    def own_command_line(self) -> None:
        """Change the options that would make this process do another one's work."""
        option = self._config.option
        if child.spec is not None:
            child.give_up_files(self._config, child.spec)
        elif not self._runs_tests and hasattr(option, "numprocesses"):
            self._distributes = bool(option.numprocesses or option.tx or option.distload)
            option.numprocesses, option.dist, option.tx, option.distload = None, "no", [], False

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        worker = hasattr(config, "workerinput")
        if self._told is None and not worker:
            self._configure_root()
        register = config.pluginmanager.register
        if child.spec is not None:
            register(child.Reporter(config, child.spec))
        if self._told is not None:
            if self._told.hub is not None:
                register(child.LastFailed(self._told.hub, self._hub_names))
            if self._told.rest is not None:
                register(child.Rest(self._told.rest))
        if not self._runs_tests and not worker:
            controller = Controller(
                config, self.settings, self._run, self._distributes, self._own_pids
            )
            register(controller, Controller.NAME)
        elif getattr(config.option, "dist", "no") != "no" and not worker:
            hub = self.hub.name if self.settings.hubs else None
            rest = self._told.rest if self._told else None
            told = Told(hub, self._hub_names, self._run, rest)
            _set_for_the_run(config, WORKER_VARIABLE, json.dumps(dataclasses.asdict(told)))
        else:
            self._configure_runner()

    @property
    def _hub_names(self) -> tuple[str, ...]:
        return self._told.hubs if self._told else tuple(hub.name for hub in self.settings.hubs)

    def _configure_root(self) -> None:
        try:
            if self._runs_tests or not self.settings.isolate:
                self._check_tracers()
            if self.settings.tracers:
                self._open_run()
        except (TracerError, artifacts.ArtifactsError) as error:
            raise pytest.UsageError(str(error)) from None
        self._register_ends()
        if self.settings.save is not None or self.settings.compare is not None:
            self._register_upgrade_check()

    def _register_upgrade_check(self) -> None:
        hub_names = self._hub_names or (self.hub.name,)
        recorder = Recorder(self._config, self.settings, hub_names)
        try:
            check = UpgradeCheck(self._config, self.settings, recorder, self._run, self._own_pids)
        except SavedRunError as error:
            raise pytest.UsageError(str(error)) from None
        self._config.pluginmanager.register(recorder)
        self._config.pluginmanager.register(check)

    def _register_ends(self) -> None:
        """Have the run's end told: in the terminal, and in ``run.json`` if there is one."""
        register = self._config.pluginmanager.register
        register(Summary(self._config, self.settings), _SUMMARY)
        register(RunEnd(self.settings.artifacts, self._run))
        register(ReportWriter(self._config, self.settings, self._report_hubs, self._run))
        html = self._config.getoption("htmlpath", None)
        if html:
            from pytest_eventlet_debug.report.html_links import HtmlLinks  # Jinja2 takes time

            register(HtmlLinks(html, self.settings.artifacts))

    def _report_hubs(self) -> tuple[str, ...]:
        # Asked for at the end: to find out the default hub imports eventlet.
        return self._hub_names or (self.hub.name,)

    def _check_tracers(self) -> None:
        """Try each tracer once, so that what is missing is known before the first test."""
        for name in self.settings.tracers:
            tracer = self._make_tracer(name)
            tracer.check()
            self._tools.append(f"{name} {tracer.version}")

    def _check_tracers_apart(self) -> list[str]:
        """Try the tracers as the processes to come will use them; return their versions."""
        if self.settings.tracers:
            helper = self._start_helper()
            isolation.drop()
            self._check_tracers()
            helper.close()
        return self._tools

    def _configure_runner(self) -> None:
        register = self._config.pluginmanager.register
        if self._isolates_late:
            self._isolate(distributes=False)
        if self.settings.hubs:
            items = HubItems(self.hub, self._hub_names, self.settings.hub_in_ids)
            register(items)
            register(HubWitness(self.hub))
        if self.settings.leaks is not None:
            from pytest_eventlet_debug.alive.leaks import LeakWatch  # psutil costs start-up time

            register(LeakWatch(self.settings.leaks, self._own_descriptors))
        if self.settings.dump_asyncio_tasks:
            from pytest_eventlet_debug.alive.dump import AliveDump  # only where it is used

            # Before the session, which closes the artifacts that this one adds to.
            register(AliveDump(self._config, self._test_directory))
        if self.settings.tracers:
            try:
                tracers = [self._make_tracer(name) for name in self.settings.tracers]
            except TracerError as error:
                raise pytest.UsageError(str(error)) from None
            self._register_session(tracers)
        elif self.settings.dump_asyncio_tasks:
            self._register_session([])

    def _register_session(self, tracers: list[Tracer]) -> TracerSession:
        completion = Completion(lambda: self._helper, shared=not self.settings.isolate)
        session = TracerSession(tracers, self.settings, self.hub.name, completion)
        self._config.pluginmanager.register(session, _SESSION)
        return session

    def session(self) -> TracerSession:
        """Return what records the tests, made now where no option asked for it.

        :raises artifacts.ArtifactsError: the artifacts' directory cannot be used.
        """
        manager = self._config.pluginmanager
        session: TracerSession | None = manager.getplugin(_SESSION)
        if not self._is_open:
            self._open_run()
        if session is None:
            session = self._register_session([])
            if self._told is None and not manager.hasplugin(_SUMMARY):
                self._register_ends()
        return session

    def _own_descriptors(self) -> set[int]:
        """Return the descriptors that the plugin has open in this process."""
        own = {self._helper.fileno()} if self._helper is not None else set()
        return own | ({child.spec.descriptor} if child.spec is not None else set())

    def _test_directory(self, item: pytest.Item) -> Path:
        return self.session().directory(item)

    def trace(self, item: pytest.Item, names: Sequence[str]) -> AbstractContextManager[Path]:
        """Return a context manager that records a block of a test, for ``eventlet_trace``.

        :param names: the tracers; one that does not work here is warned of and left out.
        :raises ValueError: a name that is not a tracer's, or none at all.
        """
        unknown = [name for name in names if name not in TRACERS]
        if unknown or not names:
            given = f"{unknown[0]!r} is not a tracer" if unknown else "no tracer is named"
            raise ValueError(f"eventlet_trace: {given}. There are: {', '.join(TRACERS)}.")
        session = self.session()
        tracers = []
        for name in dict.fromkeys(names):
            try:
                self._check_once(name)
                tracers.append(self._make_tracer(name))
            except TracerError as error:
                session.leave_out(item, name, error)
        return session.block(item, tracers)

    def _check_once(self, name: str) -> None:
        """Try a tracer that no option asked for, before its first use.

        :raises TracerError: it does not work here; the same for every later use.
        """
        if name in self.settings.tracers:
            return
        if name not in self._checked:
            self._checked[name] = None
            try:
                self._make_tracer(name).check()
            except TracerError as error:
                self._checked[name] = error
        known = self._checked[name]
        if known is not None:
            raise known

    def _make_tracer(self, name: str) -> Tracer:
        if name == "strace":
            return Strace(self._start_helper(), self.settings.strace_args)
        if name == "pcap":
            return Pcap(
                self._start_helper(), self.settings.pcap_interface, self.settings.pcap_filter
            )
        if name == "cprofile":
            return CProfile(self.settings.cprofile_clock, self.settings.cprofile_engine)
        raise AssertionError(name)

    def _start_helper(self) -> Helper:
        if self._helper is None:
            self._helper = Helper.start()
            self._config.add_cleanup(self._helper.close)
        return self._helper

    def _open_run(self) -> None:
        workerinput = getattr(self._config, "workerinput", None)
        if self._told is None and workerinput is not None:
            self._run = workerinput["testrunuid"]
        artifacts.open_run(self.settings.artifacts, self._record())
        self._is_open = True

    def _record(self) -> artifacts.RunRecord:
        return artifacts.RunRecord(
            format=artifacts.FORMAT,
            run=self._run,
            command=[str(argument) for argument in self._config.invocation_params.args],
            rootdir=str(self._config.rootpath),
            hubs=list(self._hub_names),
            started_ns=time.time_ns(),
            python=platform.python_version(),
            platform=unpatched.platform_name(),
            versions={
                "pytest-eventlet-debug": __version__,
                **{name: version(name) for name in ("pytest", "eventlet", "greenlet")},
            },
            tools=self._tools,
        )

    def pytest_report_header(self) -> str | None:
        """One line: hubs, tools with their versions, where the artifacts go."""
        settings = self.settings
        if self._told is not None:
            return None
        names = ", ".join(self._hub_names) or "as set"
        parts = [f"eventlet {version('eventlet')}, hubs: {names}", *self._tools]
        if settings.isolate:
            parts.append("isolated network and pids" if self._own_pids else "isolated network")
        if settings.timeout is not None:
            parts.append(f"timeout: {settings.timeout:g} s")
        if settings.tracers:
            parts.append(f"artifacts: {settings.artifacts}")
        return "; ".join(parts)


class RunEnd:
    """Complete ``run.json`` when all tests are over; a plugin object.

    :param directory: the run's directory, if it was opened under the name *run*.
    """

    def __init__(self, directory: Path, run: str) -> None:
        self._directory = directory
        self._run = run

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        with contextlib.suppress(OSError):
            artifacts.close_run(
                self._directory, self._run, ended_ns=time.time_ns(), exit_status=int(exitstatus)
            )


def _told() -> Told | None:
    if child.spec is not None:
        return Told(child.spec.hub, child.spec.hubs, child.spec.run, child.spec.rest)
    text = os.environ.pop(WORKER_VARIABLE, None)
    if text is None:
        return None
    fields = json.loads(text)
    return Told(fields["hub"], tuple(fields["hubs"]), fields["run"], fields["rest"])


def _set_for_the_run(config: pytest.Config, name: str, value: str) -> None:
    """Set an environment variable until the run is over."""
    before = os.environ.get(name)
    os.environ[name] = value

    def restore() -> None:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before

    config.add_cleanup(restore)
