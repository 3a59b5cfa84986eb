"""What one process records: its tracers, their helper, and the run's directory."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug import tracer_registry as registry
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.run_facts import describe_run
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import network
from pytest_eventlet_debug.tracers.completion import Completion
from pytest_eventlet_debug.tracers.maker import TracerMaker
from pytest_eventlet_debug.tracers.protocol import Tracer
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.session import CodeHooks
from pytest_eventlet_debug.tracers.session import TracerSession
from pytest_eventlet_debug.tracers.shared_helper import SharedHelper


class Recording:
    """Made where something is recorded, or may be.

    :param hub: the name of the hub that the tests of this process run under.
    :param hub_names: the names of all hubs of the run.
    :param run: returns the name of the run, which workers of pytest-xdist learn late.
    :param helper: this process's.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        hub: str,
        hub_names: Sequence[str],
        run: Callable[[], str],
        helper: SharedHelper,
    ) -> None:
        self._config = config
        self._settings = settings
        self._hub = hub
        self._hub_names = hub_names
        self._run = run
        self._session: TracerSession | None = None
        self._is_open = False
        self._record: RunRecord | None = None
        self.helper = helper
        self._maker = TracerMaker(settings, self.helper.start)
        #: Names and versions of the tracers that were tried.
        self.tools: list[str] = []

    def warm_up(self, *, trial: bool) -> None:
        """Begin what takes its time in the helper, while pytest starts here.

        :param trial: whether the tracers will be checked in this process.
        """
        self._maker.warm_up(trial=trial)

    def prepare(self) -> None:
        """Set the tracers' stage before the user's code runs."""
        self._maker.prepare()
        if self._settings.tracers:
            self.helper.prepare_finisher(self._settings.tracer_names)

    def check(self) -> None:
        """Try each tracer once, so that what is missing is known before the first test.

        :raises pytest.UsageError: one of them does not work here.
        """
        try:
            self.tools = self._maker.check_all()
        except TracerError as error:
            raise pytest.UsageError(str(error)) from None

    def confirm(self) -> None:
        """Wait for what could not be known yet when the tracers were tried.

        :raises pytest.UsageError: one of them does not work here.
        """
        try:
            self._maker.confirm_all()
        except TracerError as error:
            raise pytest.UsageError(str(error)) from None

    def release_helper(self) -> None:
        """Let the helper end, in a process that runs no tests itself."""
        if self.helper.started is not None:
            self.helper.started.begin_close()

    def check_apart(self) -> list[str]:
        """Try the tracers as the processes to come will use them; return their versions.

        :raises TracerError: one of them does not work there.
        """
        if not self._settings.tracers:
            return []
        helper = self.helper.start()
        network.drop()
        versions = self._maker.check_all()
        self._maker.confirm_all()
        helper.close()
        return versions

    def describe_run(self) -> None:
        """Find out what ``run.json`` is to say, before :meth:`open_run` needs it."""
        self._record = describe_run(
            self._config, self._run(), self._hub_names, self._settings.redact
        )

    def open_run(self) -> None:
        """Make the run's directory, or empty it of the run before.

        :raises artifacts.ArtifactsError: it cannot be used.
        """
        if self._record is None:
            self.describe_run()
        assert self._record is not None
        self._record.tools = list(self.tools)
        self._settings.use_artifacts(artifacts.open_run(self._settings.artifacts, self._record))
        self._is_open = True

    def start_session(self) -> None:
        """Have the tracers asked for record every test from now on.

        :raises pytest.UsageError: one of them cannot be made.
        """
        try:
            self._register_session(self._maker.make_all() if self._settings.records else [])
        except TracerError as error:
            raise pytest.UsageError(str(error)) from None

    def session(self) -> TracerSession:
        """Return what records the tests, made now where no option asked for it.

        :raises pytest.fail.Exception: the artifacts' directory cannot be used.
        """
        if not self._is_open:
            try:
                self.open_run()
            except artifacts.ArtifactsError as error:
                raise pytest.fail.Exception(str(error), pytrace=False) from None
        return self._session or self._register_session([])

    def _register_session(self, tracers: list[Tracer]) -> TracerSession:
        self.helper.know_lock(artifacts.lock_path(self._settings.artifacts))
        completion = Completion(lambda: self.helper.started, shared=not self._settings.isolate)
        self._session = TracerSession(tracers, self._settings, self._hub, completion)
        self._config.pluginmanager.register(self._session, "eventlet-debug-session")
        self._config.pluginmanager.register(CodeHooks(self._session), "eventlet-debug-code")
        return self._session

    def directory(self, item: pytest.Item) -> Path:
        """Return the directory of the test that runs now; it exists."""
        return self.session().directory(item)

    def trace(self, item: pytest.Item, names: Sequence[str]) -> AbstractContextManager[Path]:
        """Return a context manager that records a block of a test, for ``eventlet_trace``.

        :param names: the tracers; one that does not work here is warned of and left out.
        :raises ValueError: a name that is not a tracer's, or none at all.
        """
        __tracebackhide__ = True
        kinds, session = registry.named(names), self.session()
        tracers = []
        for kind in kinds:
            try:
                tracers.append(self._maker.make_checked(kind))
            except TracerError as error:
                session.leave_out(item, kind.name, error)
        return session.block(item, tracers)
