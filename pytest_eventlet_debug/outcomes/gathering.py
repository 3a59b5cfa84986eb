"""How every test of a run ends, noted from the reports as they come by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple
from warnings import WarningMessage

import pytest

from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.node_ids import shown_id
from pytest_eventlet_debug.outcomes.categories import category_of
from pytest_eventlet_debug.outcomes.cause import Cause
from pytest_eventlet_debug.outcomes.cause import cause_of
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.outcomes import Outcomes
from pytest_eventlet_debug.outcomes.texts import Texts
from pytest_eventlet_debug.outcomes.tracebacks import first_printed
from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY
from pytest_eventlet_debug.shield import Shield

Key = tuple[str, str]


class Attempt(NamedTuple):
    """How a test ended when it ran once.

    :param nodeid: with the hub.
    :param cause: of a test that did not pass.
    :param seconds: setup, call and teardown.
    :param directory: where its recordings are, or ``""``.
    """

    nodeid: str
    outcome: Outcome
    cause: Cause | None = None
    seconds: float = 0.0
    directory: str = ""


class Uncollected(NamedTuple):
    """Why a module gave no tests: it was skipped, or could not be imported."""

    outcome: Outcome
    cause: Cause
    texts: Texts


class Gathering:
    """Notes the attempt that counts of each test, and those that came before and after it.

    A plugin object, for the process that the user started: where hubs have children, or
    pytest-xdist has workers, their reports come by there too. It also serves one child alone.

    :param hubs: returns the names of the hubs that the tests run under, at least one. It is
        called when they are first asked for: to find out the default hub imports eventlet.
    :param hub_in_ids: whether node ids end in the hub's name.
    """

    NAME = "eventlet-debug-gathering"

    def __init__(
        self, config: pytest.Config, hubs: Callable[[], Sequence[str]], hub_in_ids: bool
    ) -> None:
        self._config = config
        self._find_hubs = hubs
        self._hub_in_ids = hub_in_ids
        self._outcomes = Outcomes()
        self._kept: dict[str, int] = {}
        self._reported_hubs: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._causes: dict[str, Cause] = {}
        self._texts: dict[str, Texts] = {}
        self._directories: dict[str, str] = {}
        self._uncollected: dict[tuple[str, str | None], Uncollected] = {}
        #: Directories of what was recorded once more, after an unwatched run.
        self.traced: dict[str, str] = {}
        #: Attempts after the run, in processes of their own.
        self.again: dict[str, list[Attempt]] = {}

    @cached_property
    def hubs(self) -> tuple[str, ...]:
        """The names of the hubs that the tests run under."""
        return tuple(self._find_hubs())

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        nodeid = report.nodeid
        hub = getattr(report, "eventlet_hub", None)
        if hub is not None:
            self._reported_hubs[nodeid] = hub
        kept = getattr(report, "eventlet_kept", None)
        if kept is not None:
            self._kept[nodeid] = kept
        category = category_of(self._config, report)
        if report.when == "setup":
            self._seconds.pop(nodeid, None)  # of an attempt before
        end = getattr(report, "eventlet_end", None)
        self._outcomes.note(nodeid, category, end, report.when)
        if not hasattr(report, "context"):  # a subtest's time is in its test's call
            self._seconds[nodeid] = self._seconds.get(nodeid, 0.0) + report.duration
        if category == "rerun":
            self._causes.pop(nodeid, None)
            self._texts.pop(nodeid, None)
        elif not report.passed:
            self._take_failure(nodeid, report)
        self._directories.update(
            (nodeid, str(value))
            for name, value in report.user_properties
            if name == DIRECTORY_PROPERTY
        )

    def _take_failure(self, nodeid: str, report: pytest.TestReport) -> None:
        # Its fixtures are still there, and may have patched what reading a text takes.
        with Shield():
            self._texts.setdefault(nodeid, Texts()).take(report)
            self._causes.setdefault(nodeid, cause_of(report))

    def pytest_warning_recorded(self, warning_message: WarningMessage, nodeid: str) -> None:
        """Take what pytest gives out as a warning: the traceback of a thread for printed.

        And what Python ignores, as in ``__del__()``, if it is eventlet's.
        """
        cause = self._causes.get(nodeid)
        if cause is None:
            return
        kind, text = warning_message.category, str(warning_message.message)
        if issubclass(kind, pytest.PytestUnhandledThreadExceptionWarning):
            if cause.printed is None:
                self._causes[nodeid] = cause._replace(printed=first_printed([text]))
        elif issubclass(kind, pytest.PytestUnraisableExceptionWarning):
            self._causes[nodeid] = cause.with_ignored(text)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a module without tests."""
        if report.passed:
            return
        texts = Texts()
        texts.take(report)
        outcome: Outcome = "error" if report.failed else "skipped"
        found = Uncollected(outcome, cause_of(report), texts)
        self._uncollected[report.nodeid, getattr(report, "eventlet_hub", None)] = found

    @property
    def any(self) -> bool:
        """Whether any test has ended, or a module could not be collected."""
        return bool(self._outcomes.latest or self._uncollected)

    @property
    def uncollected(self) -> dict[Key, Uncollected]:
        """What gave no tests, by module and hub."""
        return {
            (module, hub or self.hubs[0]): found
            for (module, hub), found in self._uncollected.items()
        }

    @property
    def nodeids(self) -> list[str]:
        """The node ids of the tests that ran, in the order in which they began."""
        return list(self._outcomes.latest)

    def outcome(self, nodeid: str) -> Outcome | None:
        """Return how the test ended, or ``None`` if no report has said so."""
        return self._outcomes.latest.get(nodeid)

    def unlike_first(self, by_test: Mapping[str, Iterable[str]]) -> list[str]:
        """Order tests so that those come first that fail as none before them does.

        :param by_test: the node ids of each.
        """
        seen: Counter[tuple[str, ...]] = Counter()
        ranks = {}
        for test, nodeids in by_test.items():
            causes = map(self._causes.get, nodeids)
            errors = tuple(cause.message if cause is not None else "" for cause in causes)
            ranks[test] = seen[errors]
            seen[errors] += 1
        return sorted(by_test, key=ranks.__getitem__)

    def kept(self, nodeid: str) -> int | None:
        """Return how many of a test's collectors its teardown left set up, if that is known."""
        return self._kept.get(nodeid)

    def seconds(self, nodeid: str) -> float:
        """Return how long the attempt that counts took."""
        return self._seconds.get(nodeid, 0.0)

    def texts(self, nodeid: str) -> Texts:
        """Return what pytest said of a test that did not pass, and what it printed."""
        return self._texts.get(nodeid) or Texts()

    def attempt(self, nodeid: str) -> Attempt:
        """Return the attempt of the run that counts."""
        return Attempt(
            nodeid,
            self._outcomes.latest[nodeid],
            self._causes.get(nodeid),
            self.seconds(nodeid),
            self._directories.get(nodeid, ""),
        )

    def recording(self, nodeid: str) -> str:
        """Return the directory of what was recorded of a test, at whichever attempt, or ``""``.

        Of an unwatched attempt it has dumps and leaks at most.
        """
        found = (each.directory for each in self.attempts(nodeid))
        return self.traced.get(nodeid) or next(filter(None, found), "")

    def earlier(self, nodeid: str) -> Sequence[Outcome]:
        """Return how attempts ended that a plugin has repeated."""
        return self._outcomes.attempts.get(nodeid, ())

    def attempts(self, nodeid: str) -> list[Attempt]:
        """Return the attempt that counts and those after the run."""
        return [self.attempt(nodeid), *self.again.get(nodeid, ())]

    def shown(self, nodeid: str) -> str:
        """Return a node id as pytest's own summary prints it."""
        return shown_id(nodeid, self._config)

    def key(self, nodeid: str) -> Key:
        """Return the test that a node id stands for, and its hub.

        A test that did not run, and an argument of the user's, have no hub but in their names.
        """
        reported = self._reported_hubs.get(nodeid)
        if not self._hub_in_ids:
            return nodeid, reported or self.hubs[0]
        test, hub = split_hub(nodeid, self.hubs if reported is None else [reported])
        return test, reported or hub or self.hubs[0]
