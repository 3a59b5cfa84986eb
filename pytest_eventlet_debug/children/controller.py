"""The controller: runs a child pytest for each hub and replays what they report.

It takes the place of collecting and running in the process that the user started. To
every other plugin here the replayed reports look like those of a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
from pathlib import Path

import pytest

from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.children import coverage
from pytest_eventlet_debug.children import evidence
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children import signals
from pytest_eventlet_debug.children.ctrl_c import CtrlC
from pytest_eventlet_debug.children.hub_run import HubRun
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.children.program import UnknownProgramError
from pytest_eventlet_debug.children.program import own_program
from pytest_eventlet_debug.children.replay import Replay
from pytest_eventlet_debug.children.representations import Interruption
from pytest_eventlet_debug.children.selection import Stepwise
from pytest_eventlet_debug.children.selection import absent_everywhere
from pytest_eventlet_debug.children.selection import select_arguments
from pytest_eventlet_debug.children.silence import Silence
from pytest_eventlet_debug.children.start import Spare
from pytest_eventlet_debug.children.start import start_child
from pytest_eventlet_debug.children.start import wants_terminal
from pytest_eventlet_debug.children.terminal import Terminal
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import tty
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.scratch import ScratchDirectory

#: How long children have to tear down after Ctrl-C; a second Ctrl-C cuts it short.
INTERRUPT_SECONDS = 10.0

_TICK_SECONDS = 0.2

#: How long messages may gather. To wake another process takes longer than to write to its socket.
_GATHER_SECONDS = 0.005

# Of pytest-testmon: what a test executes is known in the process that runs it.
_CHILDRENS_PLUGINS = ("TestmonCollect", "TestmonSelect")


class Controller:
    """Run the hubs, some at a time; a plugin object.

    :param settings: what the user asked for.
    :param run: names the run, for its artifacts.
    :param has_workers: whether pytest-xdist runs the tests of each child.
    :param own_pids: whether each child has process ids of its own.
    :param scratch: for what the children print, and to be removed at the end.
    :param spare: where the next child may wait.
    :param start: starts a child; another one for tests of this class alone.
    """

    NAME = "eventlet-debug-controller"

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        run: str,
        has_workers: bool,
        own_pids: bool,
        scratch: ScratchDirectory,
        spare: Spare | None = None,
        start: Callable[..., ChildProcess] = start_child,
    ) -> None:
        self._config = config
        self._run = run
        self._settings = settings
        self._interactive = wants_terminal(config, config.option)
        self.runs = [HubRun(hub, has_workers=has_workers) for hub in settings.hubs or (None,)]
        self._own_pids = own_pids
        # Two children cannot have the terminal at the same time.
        self._jobs = 1 if self._interactive else min(settings.jobs, len(self.runs))
        # Tests that run side by side, of workers or hubs, would mix their lines.
        self._whole_tests = self._jobs > 1 or has_workers
        self._scratch = scratch
        self._directory = scratch.path
        self._spare = spare
        self._start_child = start
        self.usage_error: str | None = None
        self._printed: dict[str, str] = {}
        self._ctrl_c = CtrlC()
        self._is_interrupted = False
        self._terminal = Terminal(config, interactive=self._interactive)
        self._has_terminal = False
        self.replay: Replay
        for name in _CHILDRENS_PLUGINS:
            config.pluginmanager.unregister(name=name)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        if self._config.getoption("basetemp", None):
            # The children's are within it, and do not make it.
            pytest_internals.make_basetemp(self._config)
        self._has_terminal = self._terminal.is_there()
        self.replay = Replay(session, self.runs, self._find_artifacts, self._whole_tests)

    def pytest_report_header(self) -> str | None:
        """Say where the children are not started as this process was."""
        try:
            own_program()
        except UnknownProgramError as error:
            return (
                "the children run plain pytest, as the start of this one cannot be repeated: "
                f"{error}; load what runs before pytest as a plugin (-p)"
            )
        return None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> bool:
        return True  # the children collect

    @pytest.hookimpl
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if self._whole_tests:
            pytest_internals.name_no_files(self._config)
        with self._terminal.lent(), self._signals_minded():
            try:
                self._run_all()
            finally:
                self._kill_all()
                coverage.gather(self._config, self._directory)
                self._scratch.remove()
        self._ctrl_c.look()
        self._raise_verdict(session)
        return True

    def _raise_verdict(self, session: pytest.Session) -> None:
        """End as a run of one process would: by the exception that pytest expects."""
        replay = self.replay
        self.usage_error = self.usage_error or self._nothing_found()
        if self.usage_error is not None:
            raise pytest.UsageError(self.usage_error)
        if replay.exit is not None:
            pytest.exit(*replay.exit)
        if replay.interrupted is not None:
            raise KeyboardInterrupt
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        if replay.collect_errors and not self._config.option.continue_on_collection_errors:
            errors = "error" if replay.collect_errors == 1 else "errors"
            raise session.Interrupted(f"{replay.collect_errors} {errors} during collection")

    def _nothing_found(self) -> str | None:
        """Say which node ids of the command line no hub has, as pytest says it of one run."""
        runs = [run for run in self.runs if run.wanted and run.ids is not None]
        if self.replay.stopping or self.replay.collect_errors:
            return None  # what would be found elsewhere is not known, or not the reason
        missing = absent_everywhere({run.name: run.absent for run in runs}, self._config)
        return "\n".join(f"not found: {nodeid}" for nodeid in missing) or None

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._settings.tracers:
            artifacts.await_completion(self._settings.artifacts, self._run)
        counts = {run.name: run.stepwise_count for run in self.runs}
        Stepwise(self._config).save({hub: n for hub, n in counts.items() if n is not None})
        if self.replay.internal_error:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
        elif session.exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and all(
            run.exit_status == pytest.ExitCode.OK for run in self.runs if run.wanted
        ):
            # A plugin of the children's knows that this is as it should be: pytest-testmon does.
            session.exitstatus = pytest.ExitCode.OK

    @pytest.hookimpl(trylast=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Say where a test was interrupted, not where this process waited for it."""
        begun = hasattr(self, "replay")  # else it came as pytest configured itself
        if excinfo.type is KeyboardInterrupt and begun:
            unknown = Interruption("the tests' processes were ended")
            place = self.replay.interrupted or unknown
            pytest_internals.set_interruption(self._config, place)

    def pytest_unconfigure(self) -> None:
        self._clean_up()

    def pytest_report_teststatus(
        self, report: pytest.TestReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        end = getattr(report, "eventlet_end", None)
        return ("failed", "F", (end.upper(), {"red": True})) if end else None

    def _find_artifacts(self) -> Path | None:
        """Return the directory that this run records into, if any of its processes has opened it.

        What another run has recorded of the same tests tells nothing of this one.
        """
        return artifacts.opened_by(self._settings.artifacts, self._run)

    @property
    def _stopping(self) -> bool:
        return self._is_interrupted or self.usage_error is not None or self.replay.stopping

    def _run_all(self) -> None:
        try:
            self._run_hubs()
            self._ctrl_c.look()
        except KeyboardInterrupt:
            self._is_interrupted = True
            self._let_tear_down()
            raise

    def _run_hubs(self) -> None:
        waiting = [run for run in self.runs if self._has_tests(run)]
        active: list[HubRun] = []
        is_ending = False
        while waiting or active:
            while waiting and len(active) < self._jobs and not self._stopping:
                run = waiting.pop(0)
                if self._start(run):
                    active.append(run)
            if waiting and not self._stopping:
                self._prepare(waiting[0])
            if not active:
                return
            if self._stopping and not is_ending:
                is_ending = True
                for run in active:
                    if run.process is not None:
                        run.process.stop_after_test()
            self._listen(active)
            active = [run for run in active if run.process is not None]

    def _has_tests(self, run: HubRun) -> bool:
        """Say whether any test named on the command line is one of this hub's."""
        if not self._settings.hub_in_ids:
            return True
        names = [each.name for each in self.runs]
        run.wanted = select_arguments(self._config.args, run.name, names) is not None
        return run.wanted

    def _assignment(self, run: HubRun, *, failures: int) -> ChildAssignment:
        maxfail = self._config.option.maxfail
        return ChildAssignment(
            hub=run.hub.name if run.hub else None,
            hubs=tuple(each.name for each in self.runs if each.hub),
            run=self._run,
            # The failures of all hubs count; of a child that runs there is at least one to come.
            maxfail=max(maxfail - failures, 1) if maxfail else 0,
            stepwise_skip=pytest_internals.stepwise_skips(self._config),
            interactive=self._interactive,
            borrows_terminal=self._has_terminal and not self._interactive,
            own_pids=self._own_pids,
        )

    def prepare(self) -> None:
        """Have the first child start while the rest of this process does."""
        first = next(filter(self._has_tests, self.runs), None)
        if first is not None and self._spare is not None:
            self._spare.renew(self._assignment(first, failures=0), first.label)

    def _prepare(self, run: HubRun) -> None:
        if self._spare is not None:
            self._spare.prepare(self._assignment(run, failures=0), run.label)

    def _start(self, run: HubRun) -> bool:
        """Start a hub's next child; where there is no room for one, have the run end."""
        assignment = self._assignment(run, failures=self.replay.failures)
        remaining = run.remaining if run.done else None
        try:
            child = self._start_child(
                self._config, assignment, self._directory, run.label, remaining, self._spare
            )
        except OSError as error:
            words = f"the process for the eventlet hub {run.name} cannot be started: {error}"
            self.replay.exit = (words, None)
            return False
        run.begin(child)
        return True

    def _listen(self, active: list[HubRun]) -> None:
        """Wait a moment for what the children say, and see to those that ended or hang.

        :raises KeyboardInterrupt: Ctrl-C has come.
        """
        if not self._opens_debugger_on_ctrl_c:
            self._ctrl_c.look()
        # While a debugger has the terminal, the others wait, theirs included.
        if any(run.debugging for run in active):
            for run in active:
                run.silence = Silence()
            active = [run for run in active if not self._must_wait(run)]
            self._terminal.mind_ctrl_z(run.process for run in active if run.process)
        by_descriptor = {run.process.descriptor: run for run in active if run.process}
        readable = unpatched.wait_readable(by_descriptor, _TICK_SECONDS)
        for descriptor in readable:
            run = by_descriptor[descriptor]
            if not self._must_wait(run):
                self._hear(run)
        for run in active:
            assert run.process is not None
            if self._must_wait(run):
                continue
            if run.process.ended():
                while self._hear(run):  # its last words are still in the socket
                    pass
                self._ended(run, run.process)
            else:
                self._mind_silence(run, run.process)
        if readable and not self._interactive:
            unpatched.wait_readable([], _GATHER_SECONDS)

    @property
    def _opens_debugger_on_ctrl_c(self) -> bool:
        """Whether a child is in a test: ``--pdb`` debugs that one, and the run goes on."""
        in_tests = any(run.running for run in self.runs if run.process is not None)
        return in_tests and bool(self._config.getoption("usepdb", False))

    def _must_wait(self, run: HubRun) -> bool:
        """Say whether a debugger is open in another child: only one can have the terminal."""
        return any(other.debugging for other in self.runs if other is not run)

    def _hear(self, run: HubRun) -> bool:
        """Replay what has come from a child; say whether there may be more."""
        assert run.process is not None
        if not unpatched.wait_readable([run.process.descriptor], 0):
            return False
        heard = run.process.read()
        if heard is not None:
            self._take_in(run, run.process, heard)
            return True
        # The line ends just before the process does; do not spin until then.
        unpatched.wait_readable([], 0 if run.process.ended() else 0.005)
        return False

    def _take_in(
        self, run: HubRun, process: ChildProcess, heard: Sequence[messages.Message]
    ) -> None:
        run.hear()
        for message in heard:
            if isinstance(message, messages.Debugger):
                self._mind_debugger(opens=message.opens)
            self.replay.receive(run, message)
            if run.debugging and (banner := process.take_stdout().strip()):
                self.replay.interrupt_line(banner)
            # Such a child waits, for its tests print to the same terminal as the replay.
            if self._interactive or isinstance(message, messages.AWAITED):
                self.replay.flush()
                process.go_on()

    def _mind_debugger(self, *, opens: bool) -> None:
        if not opens:
            self._terminal.debugger_closes()
            return
        if self._config.getoption("usepdb", False):
            self._ctrl_c.forget()  # it is what has opened it, if it has come
        self._terminal.debugger_opens()

    def _ended(self, run: HubRun, process: ChildProcess) -> None:
        """See to a child that has ended.

        :raises KeyboardInterrupt: Ctrl-C has come, which may have ended it; it is seen to later.
        """
        self._ctrl_c.look()
        last_words = process.last_words
        if run.debugging:
            tty.reclaim()
            run.debugging = False
        run.process = None  # first: a signal's handler would close it again
        process.close()
        # The status alone is no proof: a test may have ended the process with it.
        usage_error = pytest.ExitCode.USAGE_ERROR
        refused = process.output.strip() if not run.begun else run.exit_status == usage_error
        if process.exit_status == usage_error and refused:
            self.usage_error = process.usage_error
        elif run.exit_status is None or process.died:
            if self._ended_by_ctrl_c(run, process):
                return
            self.replay.note_end(run, "crashed")
            self.replay.report_end(run, "crashed", process.end, last_words)
            self._go_on(run)
        elif process.output and not self._interactive:
            self._say_printed(run.name, process.output)

    def _ended_by_ctrl_c(self, run: HubRun, process: ChildProcess) -> bool:
        """Say whether it was Ctrl-C that ended a child, in no test that could be blamed.

        Pytest does not catch it where a session begins, nor a second one, nor what a teardown
        raises after the first: as one does that waits under the asyncio hub, in Python 3.11.
        """
        if process.ended_by_interrupt:
            return run.stopped or (process.was_interrupted and not run.running)
        if not run.interrupted or process.died:
            return False
        reason = "".join(process.stderr_tail.splitlines()[-1:]).strip()
        why = f": {reason}" if reason else ""
        self.replay.say(f"{run.name}: {process.end} while it tore down after Ctrl-C{why}")
        return True

    def _say_printed(self, hub: str, output: str) -> None:
        """Show what a child printed outside of its tests; what others printed as well, once."""
        first = self._printed.setdefault(output, hub)
        if first == hub:
            self.replay.say(f"{hub} printed outside of its tests:\n{output}")
        else:
            self.replay.say(f"{hub} printed the same outside of its tests as {first}")

    def _go_on(self, run: HubRun) -> None:
        if run.may_go_on and not self._stopping:
            self._start(run)

    def _mind_silence(self, run: HubRun, process: ChildProcess) -> None:
        timeout = self._settings.timeout
        # Looked at once more before it is blamed.
        if self._hear(run):
            return  # it was this process that did not listen, for it looked at another child
        if timeout is not None and run.silence.exceeds(timeout, process.run_delays):
            self._end_hung(run, process)
        elif run.silent >= run.notice_after:
            self._say_silent(run, process)

    def _say_silent(self, run: HubRun, process: ChildProcess) -> None:
        run.notice_after *= 2
        silent, doing = run.silent, evidence.activity(process)
        if doing is not None:
            self.replay.say(f"{run.name}: silent for {silent:.0f} s in {run.where}; {doing}")

    def _end_hung(self, run: HubRun, process: ChildProcess) -> None:
        """Kill a child that has been silent for too long, unless it speaks when looked at."""
        silent, lacked = run.silent, run.silence.lacked(process.run_delays())
        sections = evidence.gather(
            process,
            self._directory / "sample.strace",
            self._find_artifacts(),
            run.running,
            self._settings.redact,
            has_workers=run.has_workers,
        )
        if sections is None:
            said = f"{run.name}: {run.where} went on after {run.silent:.1f} s"
            if self._hear(run):  # and has not just died
                self.replay.say(said)
            return
        self.replay.note_end(run, "hung")  # while the helper still waits to complete it
        process.kill()
        sections += process.captured
        run.process = None
        process.close()
        if lacked >= 1:
            words = f"{lacked:.0f} s of {silent:.0f} s of silence; they do not count"
            sections.insert(0, ("Without a CPU", words))
        verdict = f"silent for {silent - lacked:.0f} s, killed"
        self.replay.report_end(run, "hung", verdict, sections)
        self._go_on(run)

    def _let_tear_down(self) -> None:
        """Pass Ctrl-C on, and wait for the children to end their tests."""
        self.replay.say(
            f"\nCtrl-C: tests have {INTERRUPT_SECONDS:.0f} s to tear down; "
            f"press it again to end them at once"
        )
        left = [run for run in self.runs if run.process is not None]
        for run in left:
            if run.process is not None:
                run.process.interrupt()
        deadline = unpatched.monotonic() + INTERRUPT_SECONDS
        while left and unpatched.monotonic() < deadline:
            self._listen(left)
            left = [run for run in left if run.process is not None]
            if any(run.debugging for run in left):  # nobody is hurried who types
                deadline = unpatched.monotonic() + INTERRUPT_SECONDS

    def _kill_all(self) -> None:
        if self._spare is not None:
            self._spare.close()
        for run in self.runs:
            if (process := run.process) is not None:
                process.kill()
                if run.debugging:
                    tty.reclaim()
                run.process = None
                process.close()

    def _clean_up(self) -> None:
        self._kill_all()
        self._scratch.remove()

    def _signals_minded(self) -> contextlib.AbstractContextManager[None]:
        """Leave no child behind on SIGTERM and SIGHUP, and Ctrl-C to an open debugger."""

        def interrupt() -> None:
            if not any(run.debugging for run in self.runs):
                self._ctrl_c.come()

        return signals.minded(self._clean_up, interrupt)
