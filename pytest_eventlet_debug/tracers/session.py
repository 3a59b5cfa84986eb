"""Record around each test: when tracers start and stop, and what is kept of it."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
from pathlib import Path
import warnings

import msgspec
import pytest

from pytest_eventlet_debug import tracer_registry as registry
from pytest_eventlet_debug.artifacts import TestArtifacts
from pytest_eventlet_debug.artifacts import directory_name
from pytest_eventlet_debug.artifacts import open_test
from pytest_eventlet_debug.report_properties import CUT_PROPERTY
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY
from pytest_eventlet_debug.report_properties import ERROR_PROPERTY
from pytest_eventlet_debug.report_properties import LEFT_DESCRIPTORS
from pytest_eventlet_debug.report_properties import Cut
from pytest_eventlet_debug.report_properties import no_room
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import files
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.tracers.completion import Completion
from pytest_eventlet_debug.tracers.helper_client import HelperGoneError
from pytest_eventlet_debug.tracers.protocol import PHASES
from pytest_eventlet_debug.tracers.protocol import Phase
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import RecordingCut
from pytest_eventlet_debug.tracers.protocol import Tracer
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.warning_types import EventletDebugWarning

#: How long a reading of the CPU time serves. To ask the kernel is a system call, which is traced,
#: and nothing that is said of a phase is finer.
_FRESH_NS = 10_000_000

#: Their messages are written for the user.
_TOLD = (TracerError, OSError)

#: Problems with completing recordings that are told one by one.
_MOST_PROBLEMS = 10

# Taken here, before a test can patch them.
_round = round
_warn = warnings.warn
_warn_explicit = warnings.warn_explicit


def _together(problems: Sequence[str]) -> list[str]:
    """Say once, not for each test, that there was no room to complete recordings."""
    full = [problem for problem in problems if no_room(problem)]
    others = [problem for problem in problems if not no_room(problem)]
    told = others[:_MOST_PROBLEMS]
    if others[_MOST_PROBLEMS:]:
        told.append(f"{len(others) - len(told)} more recordings could not be completed")
    if full:
        more = f", and {len(full) - 1} more" if len(full) > 1 else ""
        told.append(f"not completed: {full[0]}{more}")
    return told


class _Running(msgspec.Struct):
    """A tracer during one test, or during one block of it.

    :param block: the block's directory; ``None`` where the whole test is recorded.
    :param failed: nothing more is asked of it then, but to stop.
    """

    tracer: Tracer
    phases: frozenset[Phase]
    block: Path | None = None
    started: bool = False
    paused: bool = False
    failed: bool = False

    @property
    def is_recording(self) -> bool:
        return self.started and not self.paused and not self.failed


class TracerSession:
    """Start and stop the tracers around the phases of each test; a plugin object.

    :param tracers: in the order in which they start; they stop in reverse.
    :param settings: the phases to record and what to keep.
    :param hub: the hub's name, for ``test.json``.
    :param completion: has the recordings that are kept completed.
    """

    def __init__(
        self,
        tracers: Sequence[Tracer],
        settings: Settings,
        hub: str | None,
        completion: Completion,
    ) -> None:
        self._tracers = tracers
        self._settings = settings
        self._hub = hub
        self._completion = completion
        self._item: pytest.Item | None = None
        self._test: TestArtifacts | None = None
        self._refused: OSError | None = None
        self._errors: list[str] = []
        self._phase: Phase | None = None
        self._running: list[_Running] = []
        self._in_debugger: list[_Running] = []
        self._is_fork = False
        self._is_in_phase = False
        self._is_in_code = True  # one that is made for a block, until the next phase
        self._has_described = False
        self._pid = unpatched.getpid()
        self._cpu = (0, 0.0)
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Record nothing in a fork that goes on running tests: all this is its parent's."""
        self._tracers, self._running, self._in_debugger = (), [], []
        self._item, self._test = None, None
        self._completion = Completion(lambda: None)
        self._is_fork = True

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        self._finish()
        self._enter(item)
        self._running = [
            _Running(tracer, self._settings.phases or tracer.default_phases)
            for tracer in self._tracers
        ]
        if self._is_fork:
            self._note("a fork of the test process is not recorded")
        return (yield from self._around("setup"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        return (yield from self._around("call"))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        return (yield from self._around("teardown"))

    def _enter(self, item: pytest.Item) -> None:
        """Know which test runs; the first to say so may be a fixture of it."""
        if item is not self._item:
            self._finish()
            self._item = item

    def _around(self, phase: Phase) -> Generator[None, object, object]:
        self._phase = phase
        self._is_in_code = False
        self._begin(phase)
        started = unpatched.time_ns()
        used = self._cpu_time(started)
        self._is_in_phase = True
        try:
            return (yield)
        finally:
            self._is_in_phase = False
            if self._test is not None:
                ended = unpatched.time_ns()
                took = (ended - started) / 1e9
                is_short = 0 <= ended - started < _FRESH_NS
                spent = took if is_short else self._cpu_time(ended) - used
                self._test.cpu[phase] = _round(spent, 6)
                self._test.phases[phase] = (started, ended)
            self._end(phase)

    def _cpu_time(self, now_ns: int) -> float:
        """Return the CPU time of this thread, in seconds."""
        known_ns, _ = self._cpu
        if not 0 <= now_ns - known_ns < _FRESH_NS:
            self._cpu = now_ns, unpatched.thread_time()
        return self._cpu[1]

    def around_code(self) -> Generator[None, object, object]:
        """Tell the tracers that the code of a phase begins, and that it has ended."""
        self._is_in_code = True
        for running in self._running:
            if running.is_recording:
                with self._noting(running):
                    running.tracer.enter()
        try:
            return (yield)
        finally:
            for running in reversed(self._running):
                if running.is_recording:
                    with self._noting(running):
                        running.tracer.leave()
            self._is_in_code = False

    def _begin(self, phase: Phase) -> None:
        with self._completion.together():
            self._record(phase)

    def _record(self, phase: Phase) -> None:
        for running in self._running:
            if phase not in running.phases:
                self._pause(running)
                continue
            self._start(running)
            self._resume(running)
            with self._noting(running):
                if running.started and not running.failed:
                    running.tracer.mark(phase)

    def _end(self, phase: Phase) -> None:
        later = PHASES[PHASES.index(phase) + 1 :]
        if not later:
            self._stop(self._running)
            return
        for running in reversed(self._running):
            if not running.phases.intersection(later):
                # What stopping costs is left until nothing else records it.
                self._pause(running)

    def _start(self, running: _Running) -> None:
        if running.started or running.failed:
            return
        with self._noting(running):
            test = self._artifacts()
            is_block = running.block is not None
            directory = running.block or test.directory
            running.tracer.start(Recording(test.nodeid, directory, is_block))
            running.started = True
            if self._is_in_code:
                running.tracer.enter()

    def _pause(self, running: _Running) -> None:
        if running.is_recording:
            with self._noting(running):
                if self._is_in_code:
                    running.tracer.leave()
                running.tracer.pause()
                running.paused = True

    def _resume(self, running: _Running) -> None:
        if running.started and not running.failed and running.paused:
            with self._noting(running):
                running.tracer.resume()
                running.paused = False
                if self._is_in_code:
                    running.tracer.enter()

    def _stop(self, ending: Sequence[_Running]) -> None:
        """Stop tracers, the last one first, and tell the helper of all of them at once."""
        started = [running for running in reversed(ending) if running.started]
        with self._completion.together():
            for running in started:
                running.started = False
                with self._noting(running):
                    running.tracer.begin_stop()
        for running in started:
            with self._noting(running):
                running.tracer.stop()

    def _noting(self, running: _Running) -> Shield:
        """Keep a tracer's failure, and the disk's, out of the test; that tracer has had it."""

        def note(line: str) -> None:
            running.failed = True
            # One line for all tracers that need the helper.
            gone = isinstance(shield.error, HelperGoneError)
            self._note(str(shield.error) if gone else line, shield.error)

        shield = Shield(note, running.tracer.name, _TOLD)
        return shield

    def _note(self, line: str, error: BaseException | None = None) -> None:
        if self._item is None or line in self._errors:  # at the end there is no test to tell it of
            return
        self._errors.append(line)
        why = "no room" if isinstance(error, RecordingCut) else no_room(line)
        if why is None:
            self._item.user_properties.append((ERROR_PROPERTY, line))
        else:
            since = error.since_ns if isinstance(error, RecordingCut) else unpatched.time_ns()
            cut = Cut(since, line.partition(":")[0], why)
            self._item.user_properties.append((CUT_PROPERTY, str(cut)))

    def _artifacts(self) -> TestArtifacts:
        """Return this attempt's directory, made now if nothing was recorded before.

        :raises OSError: it cannot be made; not tried again for this attempt.
        """
        if self._refused is not None:
            raise self._refused
        if self._test is None:
            assert self._item is not None
            try:
                run = self._settings.artifacts
                test = open_test(run, self._item.nodeid, self._hub, self._pid)
                self._completion.announce(test)
            except OSError as error:
                # The summary has one line for all tests that say the same.
                self._refused = OSError(error.errno, error.strerror, str(run))
                raise self._refused from error
            self._test = test
        return self._test

    def directory(self, item: pytest.Item) -> Path:
        """Return the directory of the test that runs now.

        :raises OSError: it cannot be made.
        """
        self._enter(item)
        return self._artifacts().directory

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        if item is self._item and call.excinfo is not None:
            self._let_go(call.excinfo.value)
        report = yield
        if item is not self._item:
            return report
        if self._test is not None and self._test.outcomes.get(call.when) != "failed":
            self._test.outcomes[call.when] = report.outcome  # the worst one of subtests
        if report.failed and (self._test is not None or self._errors):
            report.sections.append(("eventlet-debug", self._section()))
        if call.when == "teardown":
            self._finish()
            known = list(report.user_properties)  # other plugins may have added to them
            report.user_properties += [each for each in item.user_properties if each not in known]
        return report

    def _let_go(self, error: BaseException) -> None:
        """Leave out how pytest describes the first failure, until the next phase.

        For that it looks at the file of every module there is: some 7,000 system calls.
        """
        # A subtest that fails is followed by the rest of its test.
        if self._is_in_phase or self._has_described or isinstance(error, pytest.skip.Exception):
            return
        self._has_described = True
        for running in self._running:
            if running.is_recording:
                with self._noting(running):
                    running.paused = running.tracer.let_go()

    def _section(self) -> str:
        where = [f"artifacts: {self._test.directory}"] if self._test is not None else []
        return "\n".join([*where, *self._errors])

    def _finish(self) -> None:
        """Judge what is recorded of the test that ran: keep it or not."""
        item, test = self._item, self._test
        if item is not None and test is not None:
            skipped = test.outcomes.get("setup") == "skipped"  # nothing of it ran
            only_if_failed = self._settings.keep == "failed" or skipped
            if only_if_failed and not test.failed:
                with Shield(self._note, told=_TOLD):
                    self._completion.discard(test)
            else:
                item.user_properties.append((DIRECTORY_PROPERTY, str(test.directory)))
                test.errors = list(self._errors)
                test.left = item.stash.get(LEFT_DESCRIPTORS, [])
                with Shield(self._note, told=_TOLD):
                    self._completion.begin(test)
        self._item, self._test, self._errors, self._phase = None, None, [], None
        self._refused = None

    def pytest_enter_pdb(self) -> None:
        for running in self._running:
            if running.started and not running.paused:
                self._in_debugger.append(running)
                self._pause(running)

    def pytest_leave_pdb(self) -> None:
        for running in self._in_debugger:
            self._resume(running)
        self._in_debugger.clear()

    # What other plugins do at the end of the run takes several times as long under strace.
    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self) -> Generator[None, object, object]:
        try:
            return (yield)
        finally:
            self._end_all()

    def _end_all(self) -> None:
        """End what Ctrl-C or ``pytest.exit`` in a test left open, and release the tracers."""
        self._stop(self._running)
        if self._test is not None and self._phase is not None:
            self._test.outcomes.setdefault(self._phase, "interrupted")
        self._finish()
        self._close()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        self._end_all()  # of a session that was made for a block, within the loop
        with Shield():  # with -W error a warning is an exception
            for problem in _together(self._completion.wait()):
                # It is no line of code that this is about.
                where = str(self._settings.artifacts)
                _warn_explicit(EventletDebugWarning(problem), None, where, 0)
        self._completion.close()

    def pytest_unconfigure(self) -> None:
        self._close()

    def _close(self) -> None:
        for tracer in self._tracers:
            with Shield():
                tracer.close()

    @contextlib.contextmanager
    def block(self, item: pytest.Item, tracers: Sequence[Tracer]) -> Iterator[Path]:
        """Record one block of a test into a directory of its own, ``block-1`` and so on.

        :param tracers: not those of the whole test, though of the same kind.
        """
        self._enter(item)
        directory = self._block_directory(item)
        names = {tracer.name for tracer in tracers}
        paused = self._make_way({name for name in names if not registry.nests(name)})
        block = [_Running(tracer, frozenset(PHASES), directory) for tracer in tracers]
        self._running += block
        try:
            for running in block:
                self._start(running)
                with self._noting(running):
                    if running.started:
                        running.tracer.mark(directory.name)
            yield directory
        finally:
            self._stop(block)
            self._running = [each for each in self._running if each not in block]
            for running in paused:
                self._resume(running)

    def _block_directory(self, item: pytest.Item) -> Path:
        """Make a block's directory. Where that fails, starting its tracers will, too."""
        directory = self._settings.artifacts / directory_name(item.nodeid) / "block-1"
        with Shield(self._note, "eventlet_trace", _TOLD):
            parent = self._artifacts().directory
            directory = parent / f"block-{1 + sum(1 for _ in parent.glob('block-*'))}"
            files.make_directory(directory)
        return directory

    def _make_way(self, names: set[str]) -> list[_Running]:
        """Pause the tracers that cannot run twice at a time, and return them."""
        paused = [
            running
            for running in self._running
            if running.started and not running.paused and running.tracer.name in names
        ]
        for running in paused:
            self._pause(running)
        return paused

    def leave_out(self, item: pytest.Item, name: str, error: TracerError) -> None:
        """Say that a block goes unrecorded, in a warning and in the summary.

        :param name: the tracer's.
        """
        self._enter(item)
        self._note(f"{name}: {error}")
        with Shield():  # -W error, but what does not work here is no fault of the test's
            # The fifth caller from here is the test.
            _warn(EventletDebugWarning(f"eventlet_trace: {name}: {error}"), stacklevel=5)


class CodeHooks:
    """Tell a session where the code of each phase begins and ends; a plugin object.

    It is registered last, so that its wrappers are within those of all other plugins.
    """

    def __init__(self, session: TracerSession) -> None:
        self._session = session

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        return (yield from self._session.around_code())

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        return (yield from self._session.around_code())

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self) -> Generator[None, object, object]:
        return (yield from self._session.around_code())
