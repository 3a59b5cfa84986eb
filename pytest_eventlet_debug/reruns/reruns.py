"""Run some tests again, in fresh processes and out of the report's sight."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
from typing import Any

import pytest

from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.assignment import Tracing
from pytest_eventlet_debug.hubs.ids import without_hub
from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.reruns.series import Series
from pytest_eventlet_debug.reruns.series import StartError
from pytest_eventlet_debug.reruns.series import starting
from pytest_eventlet_debug.reruns.stress import stress
from pytest_eventlet_debug.settings import Settings


class Reruns:
    """Runs tests again with the command line of this run; the one mechanism for all who need it.

    :param gathering: knows which hub a test ran under, and is given the further attempts.
    :param run: names the run, for its artifacts.
    :param own_pids: whether the processes have process ids of their own.
    """

    def __init__(
        self,
        config: pytest.Config,
        settings: Settings,
        gathering: Gathering,
        run: str,
        own_pids: bool,
    ) -> None:
        self._config = config
        self._settings = settings
        self._gathering = gathering
        self._run = run
        self._own_pids = own_pids
        #: What has ended all reruns, in words: Ctrl-C, or that there is no room for one.
        self.ended_by = ""

    @property
    def possible(self) -> bool:
        """Whether tests can be run while nobody looks: not those that open a debugger."""
        names = ("usepdb", "trace", "collectonly")
        return not (self.ended_by or any(self._config.getoption(each, False) for each in names))

    def repeat(self, nodeids: Iterable[str], times: int, tracing: Tracing = "off") -> None:
        """Run tests some more times, each time in fresh processes, and note their attempts."""
        by_hub: dict[str | None, list[str]] = {}
        for nodeid in nodeids:
            by_hub.setdefault(self._hub_of(nodeid), []).append(nodeid)
        if not by_hub or not times:
            return
        of_all = {
            without_hub(nodeid, hub) if hub else nodeid
            for hub, of_hub in by_hub.items()
            for nodeid in of_hub
        }
        where = f" under {len(by_hub)} hubs" if len(by_hub) > 1 else ""
        how = {"off": "", "on": " with the tracers", "as asked": ""}[tracing]
        often = f", {times} times each" if times > 1 else ""
        self.say(f"rerunning {tests(len(of_all))}{where}{how}{often}")
        with contextlib.ExitStack() as stack:
            if self._settings.stress:
                with self._ends_seen_to(), starting():
                    stack.enter_context(stress())
            for attempts in self.run_each([*by_hub.values()] * times, tracing):
                for nodeid, attempt in attempts.items():
                    self._gathering.again.setdefault(nodeid, []).append(attempt)
        if tracing != "off":
            artifacts.await_completion(self._settings.artifacts, self._run)

    def _hub_of(self, nodeid: str) -> str | None:
        """Return the hub to run a test under, ``None`` for whatever is set."""
        return self._gathering.key(nodeid)[1] if self._settings.hubs else None

    def run(self, nodeids: Sequence[str], tracing: Tracing = "off") -> dict[str, Attempt]:
        """Run tests of one hub once more, in this order; return how each ended.

        One that ends its process is followed by the others in a fresh one. After Ctrl-C none runs.
        """
        (attempts,) = self.run_each([nodeids], tracing)
        return attempts

    def run_each(
        self, parts: Sequence[Sequence[str]], tracing: Tracing = "off"
    ) -> Iterator[dict[str, Attempt]]:
        """Do as :meth:`run` does with each part in turn, in processes of its own."""
        assignments = [self._assignment(self._hub_of(part[0]), tracing) for part in parts]
        series: Series | None = None
        with contextlib.ExitStack() as stack:
            for number, part in enumerate(parts):
                attempts: dict[str, Attempt] = {}
                if not self.ended_by:
                    with self._ends_seen_to():
                        series = series or stack.enter_context(
                            Series(self._config, self._settings, self._gathering, assignments)
                        )
                        for found in series.run(number, part):
                            attempts.update(found)
                yield attempts

    def _assignment(self, hub: str | None, tracing: Tracing) -> ChildAssignment:
        return ChildAssignment(
            hub=hub,
            hubs=tuple(each.name for each in self._settings.hubs),
            run=self._run,
            own_pids=self._own_pids,
            tracing=tracing,
            is_rerun=True,
        )

    @contextlib.contextmanager
    def _ends_seen_to(self) -> Iterator[None]:
        """Let the run end with what is known; what is said of its tests is not to be lost."""
        try:
            yield
        except KeyboardInterrupt:
            self.ended_by = "Ctrl-C"
            session: Any = self._config.pluginmanager.getplugin("session")
            session.exitstatus = pytest.ExitCode.INTERRUPTED
        except StartError as error:
            self.ended_by = str(error)
        else:
            return
        self.say(f"{self.ended_by}: no more tests are rerun")

    def say(self, line: str) -> None:
        """Print a line of ours after the tests'."""
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if terminal is not None:
            pytest_internals.end_line(self._config)
            terminal.write_line(line)
