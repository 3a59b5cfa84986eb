"""Children that are scripts: what they say, and how they end, without a process."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
from pathlib import Path
import types
from typing import Any

import pytest

from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children.controller import Controller
from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.system.scratch import ScratchDirectory

EPOLLS = Hub("epolls", "eventlet.hubs.epolls")
ASYNCIO = Hub("asyncio", "eventlet.hubs.asyncio")


class FakeChild:
    """Says one batch of messages each time it is read, and then is gone.

    :param exit_status: what it ends with, or ``None`` for a signal.
    """

    def __init__(
        self, *batches: Sequence[messages.Message], exit_status: int | None = 0, output: str = ""
    ) -> None:
        self._batches = list(batches)
        self.exit_status = exit_status
        self.output = self.usage_error = output
        self.died = exit_status is None
        self.end = "killed by SIGSEGV" if self.died else f"ended with exit status {exit_status}"
        self.last_words: list[tuple[str, str]] = []
        self.ended_by_interrupt = False
        self.asked_to_stop = False
        self.interrupted = False
        self.closed = self.is_stopped = False
        self.captured_files: list[int] = []
        self.assignment: ChildAssignment | None = None
        self.remaining: list[str] | None = None
        # Readable for as long as there is something to say: its other end is closed.
        self.descriptor, far = os.pipe()
        os.close(far)

    def read(self) -> list[messages.Message] | None:
        return list(self._batches.pop(0)) if self._batches else None

    def ended(self) -> bool:
        return not self._batches

    def begin_session(self, captured: list[int]) -> None:
        self.captured_files = captured

    def stop_after_test(self) -> None:
        self.asked_to_stop = True

    def interrupt(self) -> None:
        self.interrupted = True

    def go_on(self) -> None: ...

    def take_stdout(self) -> str:
        return ""

    def kill(self) -> None:
        self._batches.clear()

    def close(self) -> None:
        self.closed = True
        os.close(self.descriptor)


def location(nodeid: str) -> messages.Location:
    path, _, name = nodeid.partition("::")
    return path, 0, name


def report(nodeid: str, when: str = "call", outcome: str = "passed") -> messages.LogReport:
    """Return a child's message of a report, as pytest serializes it."""
    data = pytest.TestReport(
        nodeid=nodeid,
        location=location(nodeid),
        keywords={},
        outcome=outcome,  # type: ignore[arg-type]
        longrepr="assert 0" if outcome == "failed" else None,
        when=when,  # type: ignore[arg-type]
    )._to_json()
    return messages.LogReport(nodeid, {**data, "$report_type": "TestReport"})


def a_test(nodeid: str, outcome: str = "passed") -> list[messages.Message]:
    """Return all that a child says of a test."""
    return [
        messages.LogStart(nodeid, location(nodeid)),
        report(nodeid, "setup"),
        report(nodeid, "call", outcome),
        report(nodeid, "teardown"),
        messages.LogFinish(nodeid, location(nodeid)),
    ]


def session(*nodeids: str, failing: str = "", exit_status: int = 0) -> list[list[messages.Message]]:
    """Return what a child says of a whole session, a batch a test."""
    tests = [a_test(each, "failed" if each == failing else "passed") for each in nodeids]
    return [
        [messages.SessionStart(None), messages.Collected(list(nodeids))],
        *tests,
        [messages.SessionFinish(exit_status)],
    ]


class Calls:
    """A plugin that notes the hook calls that reporters get."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.reports: list[pytest.TestReport] = []
        self.finished: list[str] = []
        self.collected: list[pytest.CollectReport] = []
        self.order: list[str] = []

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.started.append(nodeid)
        self.order.append(f"start {nodeid}")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.reports.append(report)
        self.order.append(f"{report.when} {report.nodeid}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.finished.append(nodeid)
        self.order.append(f"finish {nodeid}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self.collected.append(report)


@contextlib.contextmanager
def session_of(pytester: pytest.Pytester, *arguments: str) -> Iterator[tuple[Any, Calls]]:
    """Yield a session of pytest's that runs nothing, and the hook calls that it gets."""
    config = pytester.parseconfigure("-p", "no:eventlet-debug", "-p", "no:terminal", *arguments)
    calls = Calls()
    config.pluginmanager.register(calls)
    yield pytest.Session.from_config(config), calls


def controlled(
    session: pytest.Session,
    hubs: Sequence[Hub],
    start: Callable[[str], FakeChild],
    *,
    jobs: int = 1,
    artifacts: Path = Path("nowhere"),
) -> tuple[Controller, list[FakeChild]]:
    """Return a controller whose children are made by *start*, and the list that they come to.

    :param start: gets the name of the hub.
    """
    settings: Any = types.SimpleNamespace(
        hubs=tuple(hubs), jobs=jobs, artifacts=artifacts, timeout=None, hub_in_ids=True
    )
    born: list[FakeChild] = []

    def start_fake(
        config: pytest.Config,
        assignment: ChildAssignment,
        directory: Path,
        label: str,
        remaining: list[str] | None,
        spare: object,
    ) -> Any:
        child = start(str(assignment.hub))
        child.assignment, child.remaining = assignment, remaining
        born.append(child)
        return child

    scratch = ScratchDirectory()
    controller = Controller(
        session.config, settings, "run", False, False, scratch, start=start_fake
    )
    controller.pytest_sessionstart(session)
    return controller, born
