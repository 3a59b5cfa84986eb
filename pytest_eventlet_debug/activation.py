"""What is switched on in which process.

The process that the user started is the *root*. It runs the tests itself, or is the
controller of children, one for each hub. A process that runs tests may in turn have
pytest-xdist's workers run them. Whoever starts a process tells it what it needs to know
through one environment variable, which the process takes out before the user's code runs.

What a run does not ask for is not imported: each import within a function here costs
start-up time that only those who asked for it are to pay.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from contextlib import AbstractContextManager
import functools
import importlib
import os
from pathlib import Path
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from pytest_eventlet_debug import roles
from pytest_eventlet_debug import versions
from pytest_eventlet_debug.hubs import names as hubs
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import fake_files
from pytest_eventlet_debug.system.collector import made_to_stay

if TYPE_CHECKING:
    from pytest_eventlet_debug.assignment import ChildAssignment
    from pytest_eventlet_debug.children.child import Reporter
    from pytest_eventlet_debug.children.start import Spare
    from pytest_eventlet_debug.isolation import Isolation
    from pytest_eventlet_debug.recording import Recording
    from pytest_eventlet_debug.stalls.watch import StallWatch
    from pytest_eventlet_debug.system.scratch import ScratchDirectory
    from pytest_eventlet_debug.tracers.shared_helper import SharedHelper


class Activation:
    """The plugin in one process, from the command line to the end; a plugin object.

    :param config: before the first conftest is imported.
    :raises pytest.UsageError: a value that cannot be used.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        roles.begin_run()
        self._assignment = roles.own_assignment()
        self._child: ChildAssignment | None = roles.own_child_assignment()
        self._recording: Recording | None = None
        self._isolation: Isolation | None = None
        self._stalls: StallWatch | None = None
        self._reporter: Reporter | None = None
        self._scratch: ScratchDirectory | None = None
        self._spare: Spare | None = None
        self._distributes = False
        self.settings = self._read_settings()
        self._own_run = f"{time.time_ns():x}-{os.getpid():x}"
        if self._assignment is not None and self.settings.tracers:
            from pytest_eventlet_debug.artifacts import place_of

            self.settings.use_artifacts(place_of(self.settings.artifacts, self._run))

    def _read_settings(self) -> Settings:
        assignment = self._assignment
        if assignment is None:
            return Settings(self._config)
        return Settings(self._config, assignment.hub, assignment.tracing)

    @property
    def hub(self) -> hubs.Hub:
        """The hub that the tests of this process run under."""
        return self.settings.hubs[0] if self.settings.hubs else hubs.default()

    @property
    def _hub_names(self) -> tuple[str, ...]:
        return (
            self._assignment.hubs
            if self._assignment
            else tuple(hub.name for hub in self.settings.hubs)
        )

    @property
    def _run(self) -> str:
        """The name of the run, the same in all of its processes."""
        if self._assignment is not None:
            return self._assignment.run
        workerinput = getattr(self._config, "workerinput", None)
        return workerinput["testrunuid"] if workerinput is not None else self._own_run

    @property
    def _runs_tests(self) -> bool:
        return self._assignment is not None or not self.settings.needs_children

    @property
    def _is_worker(self) -> bool:
        """Whether this is a process of pytest-xdist's, started by one of ours."""
        return self._assignment is not None and self._child is None

    @property
    def _own_pids(self) -> bool:
        """Whether the children have process ids of their own."""
        return self._isolation is not None and self._isolation.own_pids

    @property
    def _tools(self) -> list[str]:
        return self._recording.tools if self._recording is not None else []

    @functools.cached_property
    def _helper(self) -> SharedHelper:
        """This process's helper, which is not started by this."""
        from pytest_eventlet_debug.tracers.shared_helper import SharedHelper

        return SharedHelper(
            self._config.add_cleanup,
            self.settings.redact.pattern,
            is_awaited=self._assignment is not None,
        )

    def _warm_up(self, *, trial: bool, records: bool = False) -> None:
        """Begin what takes its time in the helper, while pytest starts here.

        :param trial: whether the tracers will be checked in this process.
        :param records: whether tests will be recorded in it.
        """
        if self.settings.tracers:
            # After user code it would start just as well, but under its eyes.
            self._helper.warm_up()
        # What is asked of strace is waited for before collection, so it comes first.
        if records and "strace" not in self.settings.tracer_names:
            self._helper.prepare_finisher(self.settings.tracer_names)
        self._need_recording().warm_up(trial=trial)

    def _need_recording(self) -> Recording:
        """Return what records in this process, made now if it is the first need."""
        if self._recording is None:
            from pytest_eventlet_debug.recording import Recording

            self._recording = Recording(
                self._config,
                self.settings,
                self.hub.name,
                self._hub_names,
                lambda: self._run,
                self._helper,
            )
        return self._recording

    def prepare(self) -> None:
        """Set the stage before the user's code runs: the hub, the network, the tracers."""
        settings = self.settings
        with made_to_stay():
            if not self._runs_tests or settings.tracers or settings.dump_asyncio_tasks:
                _import_msgspec()
            self._prepare()

    def _prepare(self) -> None:
        options = self._config.known_args_namespace
        if self._assignment is not None and self._assignment.is_asked:
            from pytest_eventlet_debug.children import answering

            answering.answer(is_worker=True)
        if self._child is not None:
            from pytest_eventlet_debug.children import child
            from pytest_eventlet_debug.children import coverage

            child.flush_output()
            coverage.quiet(options)
        tries = self._assignment is None and bool(self.settings.tracers)
        if not self._runs_tests:
            if self.settings.isolate:
                recording = self._need_recording()
                recording.tools = self._need_isolation().try_apart(recording.check_apart)
            self._start_first_child()
            if tries and not self.settings.isolate:
                self._warm_up(trial=True)
            return
        if self.settings.hubs:
            _set_for_the_run(self._config, "EVENTLET_HUB", self.hub.name)
        if self._isolates_late:
            return
        distributes = roles.distributes(options, is_worker=self._is_worker)
        if self.settings.isolate:
            self._need_isolation().enter(for_workers=distributes)
        records = self.settings.records and not distributes
        if tries or records:
            self._warm_up(trial=tries, records=records)
        if records:
            self._need_recording().prepare()

    def _start_first_child(self) -> None:
        """Have it get ready while this process imports the user's code, and its own."""
        from pytest_eventlet_debug.children.start import start_ahead
        from pytest_eventlet_debug.system.scratch import ScratchDirectory

        self._scratch = ScratchDirectory()
        self._config.add_cleanup(self._scratch.remove)
        self._spare = start_ahead(
            self._config,
            self.settings,
            self._scratch.path,
            run=self._run,
            own_pids=self._own_pids,
        )
        self._config.add_cleanup(self._spare.close)

    def _need_isolation(self) -> Isolation:
        """Return what isolates this process or its children, made now if it is the first need."""
        if self._isolation is None:
            from pytest_eventlet_debug.isolation import Isolation

            self._isolation = Isolation(
                self._helper,
                is_worker=self._is_worker,
                is_born_isolated=self._child is not None and self._child.own_pids,
            )
        return self._isolation

    @property
    def _isolates_late(self) -> bool:
        """Whether a worker first connects to the one that started it, over ``lo``."""
        return (
            self.settings.isolate
            and self._is_worker
            and self._config.pluginmanager.hasplugin("rerunfailures")
        )

    def own_command_line(self) -> None:
        """Change the options that would make this process do another one's work.

        :raises pytest.UsageError: every child would refuse them.
        """
        option = self._config.option
        self._distributes = roles.distributes(option, is_worker=self._is_worker)
        if self._child is not None:
            from pytest_eventlet_debug.children import child

            child.give_up_files(self._config, self._child)
        elif not self._runs_tests and hasattr(option, "numprocesses"):
            if self._distributes and option.usepdb:  # pytest-xdist finds no more to refuse here
                raise pytest.UsageError(
                    "--pdb is incompatible with distributing tests; try using -n0 or -nauto."
                )
            option.numprocesses, option.dist, option.tx, option.distload = None, "no", [], False

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        with made_to_stay():
            self._configure(config)

    def _configure(self, config: pytest.Config) -> None:
        is_worker = hasattr(config, "workerinput")
        is_root = self._assignment is None and not is_worker
        is_controller = not self._runs_tests and not is_worker
        if is_root:
            self._configure_root()
        self._register_child()
        if is_controller:
            self._register_controller()
        if is_root:
            self._register_afterwards()
        if is_controller:
            return
        distributes = roles.distributes(config.option, is_worker=is_worker)
        if self._isolation is not None:
            self._isolation.settle(distributes=distributes)
        if distributes:
            self._tell_workers()
        else:
            self._configure_runner()

    def _configure_root(self) -> None:
        if self.settings.tracers:
            from pytest_eventlet_debug.artifacts import ArtifactsError

            if self._runs_tests or not self.settings.isolate:
                self._work_ahead()
                self._need_recording().check()
            try:
                self._need_recording().open_run()
            except ArtifactsError as error:
                raise pytest.UsageError(str(error)) from None
        self._register_end()

    def _work_ahead(self) -> None:
        """Do what must be done anyway while the helper tries the tracers."""
        self._need_recording().describe_run()
        names = ["reporting"]
        if self._runs_tests and self.settings.dump_asyncio_tasks:
            names.append("alive.dump")
        if self._runs_tests and self.settings.leaks is not None:
            names.append("alive.leaks")
        for name in names:
            importlib.import_module(f"{__package__}.{name}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self) -> None:
        fake_files.keep_out()
        if self._recording is not None and self._assignment is None:
            self._recording.confirm()
            if not self._runs_tests:
                self._recording.release_helper()

    def _register_end(self) -> None:
        from pytest_eventlet_debug.reporting import register_end

        register_end(
            self._config, self.settings, lambda: self._hub_names or (self.hub.name,), run=self._run
        )

    def _register_afterwards(self) -> None:
        from pytest_eventlet_debug.reporting import register_report

        if self.settings.needs_children or self._needs_gathering:
            from pytest_eventlet_debug import afterwards

            afterwards.register(self._config, self.settings, run=self._run, own_pids=self._own_pids)
        register_report(self._config, self.settings, run=self._run)

    def _report_block(self) -> None:
        """Have what a fixture records reported, in a run that asked for nothing else."""
        if self._assignment is None:
            from pytest_eventlet_debug.reporting import register_report

            self._register_end()
            register_report(self._config, self.settings, run=self._run)

    @property
    def _needs_gathering(self) -> bool:
        settings = self.settings
        asked = (settings.save, settings.compare, settings.culprit)
        return settings.retrace or any(each is not None for each in asked)

    def _register_child(self) -> None:
        """Register what a process has to do for the one that started it."""
        if self._child is not None:
            from pytest_eventlet_debug.children import child

            self._reporter = child.Reporter(self._config, self._child)
            self._config.pluginmanager.register(self._reporter)
        if self._assignment is not None:
            from pytest_eventlet_debug.children import selection

            selection.register(self._config, self._assignment)

    def _register_controller(self) -> None:
        from pytest_eventlet_debug.children.controller import Controller

        assert self._scratch is not None
        controller = Controller(
            self._config,
            self.settings,
            self._run,
            self._distributes,
            self._own_pids,
            self._scratch,
            self._spare,
        )
        self._config.pluginmanager.register(controller, Controller.NAME)
        controller.prepare()

    def _tell_workers(self) -> None:
        from pytest_eventlet_debug.assignment import Assignment
        from pytest_eventlet_debug.assignment import encode
        from pytest_eventlet_debug.children.dead_workers import DeadWorkers

        told = Assignment(
            hub=self.hub.name if self.settings.hubs else None,
            hubs=self._hub_names,
            run=self._run,
            remaining=self._assignment.remaining if self._assignment else None,
            tracing=self._assignment.tracing if self._assignment else "as asked",
            is_rerun=self._assignment is not None and self._assignment.is_rerun,
            is_asked=self._child is not None and not self._child.interactive,
        )
        _set_for_the_run(self._config, roles.WORKER_VARIABLE, encode(told))
        self._config.pluginmanager.register(DeadWorkers(self.settings, self._run))

    def _configure_runner(self) -> None:
        register = self._config.pluginmanager.register
        if self._assignment is not None and self._assignment.is_asked:
            from pytest_eventlet_debug.alive import on_demand

            on_demand.ignore_present_threads()  # execnet's
        if self._isolates_late:
            self._need_isolation().enter(for_workers=False)
        if self._assignment is not None or self._needs_gathering:
            self._register_teardown()
        if self.settings.hubs:
            from pytest_eventlet_debug.hubs.witness import HubWitness

            self._register_names()
            register(HubWitness(self.hub))
        if getattr(self._config.option, "allure_report_dir", None):
            from pytest_eventlet_debug.hubs import allure_results

            hub = self.hub.name if self.settings.hub_in_ids else None
            allure_results.register(self._config, hub)
        if self.settings.dump_asyncio_tasks:
            from pytest_eventlet_debug.alive.dump import AliveDump

            # Before the session, which closes the artifacts that this one adds to.
            recording = self._need_recording()
            register(AliveDump(self._config, recording.directory, self.settings.redact))
        if self.settings.records or self.settings.keeps_own_findings:
            self._need_recording().start_session()
        if self.settings.blocked is not None:
            self._register_stalls(self.settings.blocked)
        if self.settings.leaks is not None:
            from pytest_eventlet_debug.alive.leaks import LeakWatch

            # After the session, so that it looks when the test's recordings have ended.
            register(
                LeakWatch(self.settings.leaks, self._own_descriptors, self._list_descriptors())
            )

    def _register_teardown(self) -> None:
        """Have told what each test tears down: a rerun of it may tear down more."""
        from pytest_eventlet_debug.children.teardown import StagedTeardown
        from pytest_eventlet_debug.children.teardown import TeardownReach

        if self._assignment is not None and self._assignment.is_rerun:
            tell = self._reporter.send if self._reporter is not None else None
            self._config.pluginmanager.register(StagedTeardown(tell))
        else:
            self._config.pluginmanager.register(TeardownReach())

    def _register_stalls(self, seconds: float) -> None:
        from pytest_eventlet_debug.stalls.watch import StallWatch

        recording = self._need_recording()
        self._stalls = StallWatch(
            seconds,
            fails=self.settings.blocked_fail,
            hub=self.hub.name,
            directory=recording.directory,
            redact=self.settings.redact,
        )
        self._config.pluginmanager.register(self._stalls)

    def _register_names(self) -> None:
        """Have the tests named after the hub, and taken by these names."""
        if self.settings.hub_in_ids:
            from pytest_eventlet_debug.children.selection import ArgumentsOfHub
            from pytest_eventlet_debug.hubs.ids import HubItems

            manager = self._config.pluginmanager
            manager.register(ArgumentsOfHub(self.hub.name, self._hub_names))
            manager.register(HubItems(self.hub.name))
            if manager.hasplugin("randomly"):
                from pytest_eventlet_debug.hubs import randomly

                randomly.hash_without_hub(self._config, self.hub.name)

    def _own_descriptors(self) -> set[int]:
        """Return the descriptors that the plugin has open in this process."""
        helper = self._recording.helper.started if self._recording is not None else None
        own = {helper.fileno()} if helper is not None else set()
        own |= _held_locks()
        own |= self._stalls.descriptors if self._stalls is not None else set()
        return own | ({self._child.descriptor} if self._child is not None else set())

    def _list_descriptors(self) -> Callable[[], dict[int, str]] | None:
        """Return what lists this process's descriptors without many calls for strace to trace."""
        if self._recording is None or "strace" not in self.settings.tracer_names:
            return None
        from pytest_eventlet_debug.tracers.descriptors import DescriptorsByHelper

        return DescriptorsByHelper(self._recording.helper).look

    def directory(self, item: pytest.Item) -> Path:
        """Return the directory of the test that runs now, for ``eventlet_artifacts``."""
        self._report_block()
        return self._need_recording().directory(item)

    def trace(self, item: pytest.Item, names: Sequence[str]) -> AbstractContextManager[Path]:
        """Return a context manager that records a block of a test, for ``eventlet_trace``.

        :param names: the tracers; one that does not work here is warned of and left out.
        :raises ValueError: a name that is not a tracer's, or none at all.
        """
        __tracebackhide__ = True
        self._report_block()
        return self._need_recording().trace(item, names)

    def pytest_report_header(self) -> str | None:
        """One line: hubs, tools with their versions, where the artifacts go."""
        settings = self.settings
        if self._assignment is not None:
            return None
        names = ", ".join(self._hub_names) or f"{self.hub.name} (eventlet's default)"
        parts = [f"eventlet {versions.in_use('eventlet')}, hubs: {names}", *self._tools]
        if settings.isolate:
            parts.append("isolated network and pids" if self._own_pids else "isolated network")
        if settings.timeout is not None:
            parts.append(f"timeout: {settings.timeout:g} s")
        if settings.tracers:
            parts.append(f"artifacts: {settings.place}")
        return "; ".join(parts)


def _held_locks() -> set[int]:
    """Return the descriptors of locks on runs' directories."""
    run_lock = sys.modules.get("pytest_eventlet_debug.system.run_lock")
    return run_lock.descriptors() if run_lock is not None else set()


def _import_msgspec() -> None:
    """Import it whole: a Ctrl-C meanwhile waits, as its module in C may lose the exception."""
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        importlib.import_module("msgspec")
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, masked)


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
