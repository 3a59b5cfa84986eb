"""Which children the controller starts, when, with what, and how the run then ends."""

from __future__ import annotations

import errno
import os
import signal

from fakes import ASYNCIO
from fakes import EPOLLS
from fakes import FakeChild
from fakes import a_test
from fakes import controlled
from fakes import session
from fakes import session_of
import pytest

from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children.controller import INTERRUPT_SECONDS
from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.system import unpatched


def test_hubs_run_one_after_the_other_in_their_order(pytester: pytest.Pytester) -> None:
    with session_of(pytester) as (root, calls):
        controller, born = controlled(
            root, [EPOLLS, ASYNCIO], lambda hub: FakeChild(*session(f"a.py::t[{hub}]"))
        )
        controller.pytest_runtestloop(root)
    assert [child.assignment and child.assignment.hub for child in born] == ["epolls", "asyncio"]
    assert calls.finished == ["a.py::t[epolls]", "a.py::t[asyncio]"]
    assert all(child.closed for child in born)
    assert all(run.complete for run in controller.runs)


def test_a_child_that_dies_is_followed_by_one_for_the_remaining_tests(
    pytester: pytest.Pytester,
) -> None:
    first = FakeChild(
        [messages.SessionStart(None), messages.Collected(["a.py::t1", "a.py::t2", "a.py::t3"])],
        a_test("a.py::t1"),
        a_test("a.py::t2")[:2],  # started and set up
        exit_status=None,
    )
    second = FakeChild(*session("a.py::t3"))
    children = [first, second]
    with session_of(pytester) as (root, calls):
        controller, born = controlled(root, [EPOLLS], lambda hub: children.pop(0))
        controller.pytest_runtestloop(root)
    assert [child.remaining for child in born] == [None, ["a.py::t3"]]
    assert calls.finished == ["a.py::t1", "a.py::t2", "a.py::t3"]
    crashed = [report for report in calls.reports if report.failed]
    assert [(each.nodeid, each.when) for each in crashed] == [("a.py::t2", "call")]
    assert "killed by SIGSEGV" in crashed[0].longreprtext


@pytest.mark.fault("no-room-for-child")
def test_a_run_ends_where_there_is_no_room_to_start_a_child(pytester: pytest.Pytester) -> None:
    ids = ["a.py::t1", "a.py::t2"]
    first = FakeChild(
        [messages.SessionStart(None), messages.Collected(ids)], a_test(ids[0]), exit_status=None
    )
    children = [first]

    def start(hub: str) -> FakeChild:
        if not children:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return children.pop()

    with session_of(pytester) as (root, calls):
        controller, _ = controlled(root, [EPOLLS, ASYNCIO], start)
        words = "the process for the eventlet hub epolls cannot be started: .*No space left"
        with pytest.raises(pytest.exit.Exception, match=words):
            controller.pytest_runtestloop(root)
    assert calls.finished == ids[:1]


def test_a_child_that_dies_again_without_ending_a_test_is_the_last(
    pytester: pytest.Pytester,
) -> None:
    def start(hub: str) -> FakeChild:
        return FakeChild(
            [messages.SessionStart(None), messages.Collected(["a.py::t1", "a.py::t2"])],
            exit_status=None,
        )

    with session_of(pytester) as (root, calls):
        controller, born = controlled(root, [EPOLLS], start)
        controller.pytest_runtestloop(root)
        assert root.testsfailed == 1
    assert len(born) == 1
    assert "killed by SIGSEGV outside of any test" in calls.collected[0].longreprtext


def test_enough_failures_ask_the_running_children_to_stop_and_start_no_other(
    pytester: pytest.Pytester,
) -> None:
    third = Hub("poll", "eventlet.hubs.poll")
    scripts = {
        "epolls": session("a.py::t[epolls]", failing="a.py::t[epolls]"),
        "asyncio": session(*(f"a.py::t{n}[asyncio]" for n in range(20))),
    }
    with session_of(pytester, "-x") as (root, _):
        controller, born = controlled(
            root, [EPOLLS, ASYNCIO, third], lambda hub: FakeChild(*scripts[hub]), jobs=2
        )
        with pytest.raises(root.Failed, match="stopping after 1 failures"):
            controller.pytest_runtestloop(root)
    assert len(born) == 2
    assert born[1].asked_to_stop


def test_debuggers_that_open_at_the_same_time_have_the_terminal_in_turn(
    pytester: pytest.Pytester,
) -> None:
    heard: list[tuple[str, str]] = []

    class Debugged(FakeChild):
        def read(self) -> list[messages.Message] | None:
            batch = super().read()
            hub = self.assignment.hub if self.assignment else None
            heard.extend(
                (str(hub), "opens" if message.opens else "closes")
                for message in batch or ()
                if isinstance(message, messages.Debugger)
            )
            return batch

    def start(hub: str) -> FakeChild:
        begin, test, finish = session(f"a.py::t[{hub}]")
        opened, closed = [messages.Debugger(opens=True)], [messages.Debugger(opens=False)]
        return Debugged(begin, opened, closed, test, finish)

    with session_of(pytester) as (root, calls):
        controller, _ = controlled(root, [EPOLLS, ASYNCIO], start, jobs=2)
        controller.pytest_runtestloop(root)
    assert heard == [(hub, what) for hub in dict(heard) for what in ("opens", "closes")]
    assert sorted(calls.finished) == ["a.py::t[asyncio]", "a.py::t[epolls]"]


def test_a_child_that_dies_in_its_debugger_leaves_the_others_to_go_on(
    pytester: pytest.Pytester,
) -> None:
    def start(hub: str) -> FakeChild:
        script = session(f"a.py::t[{hub}]")
        if hub == "asyncio":
            return FakeChild(*script)
        return FakeChild(script[0], [messages.Debugger(opens=True)], exit_status=None)

    with session_of(pytester) as (root, calls):
        controller, _ = controlled(root, [EPOLLS, ASYNCIO], start, jobs=2)
        controller.pytest_runtestloop(root)
    assert calls.finished == ["a.py::t[asyncio]"]


@pytest.mark.fault("ctrl-c")
def test_ctrl_c_while_a_hub_starts_lets_the_tests_of_the_others_tear_down(
    pytester: pytest.Pytester,
) -> None:
    def start(hub: str) -> FakeChild:
        if hub == "asyncio":
            signal.raise_signal(signal.SIGINT)
        return FakeChild(*session(f"a.py::t[{hub}]"))

    with session_of(pytester) as (root, calls):
        controller, born = controlled(root, [EPOLLS, ASYNCIO], start, jobs=2)
        with pytest.raises(KeyboardInterrupt):
            controller.pytest_runtestloop(root)
    assert [child.interrupted for child in born] == [True, True]
    assert calls.finished == ["a.py::t[epolls]", "a.py::t[asyncio]"]


@pytest.mark.fault("ctrl-c")
def test_ctrl_c_is_not_lost_where_exceptions_are(pytester: pytest.Pytester) -> None:
    class Destroyed:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    class Child(FakeChild):
        objects = [Destroyed()]  # noqa: RUF012

        def ended(self) -> bool:
            self.objects.clear()
            return super().ended()

    with session_of(pytester) as (root, _):
        controller, born = controlled(root, [EPOLLS], lambda hub: Child(*session("a.py::t")))
        with pytest.raises(KeyboardInterrupt):
            controller.pytest_runtestloop(root)
    assert born[0].interrupted


class InterruptedInTest(FakeChild):
    """Gets a Ctrl-C at the terminal, as the controller does, while it is in a test."""

    def read(self) -> list[messages.Message] | None:
        batch = super().read()
        if batch and isinstance(batch[0], messages.LogStart):
            signal.raise_signal(signal.SIGINT)
        return batch


DEBUGGED = [
    [messages.LogStart("a.py::t1", ("a.py", 0, "t1"))],
    [messages.Debugger(opens=True)],
    [messages.Text("typed")],
    [messages.Text("typed")],
    [messages.Debugger(opens=False)],
    [messages.LogFinish("a.py::t1", ("a.py", 0, "t1"))],
]


def test_with_pdb_a_run_goes_on_after_the_debugger_that_ctrl_c_has_opened(
    pytester: pytest.Pytester,
) -> None:
    begin, _, after, finish = session("a.py::t1", "a.py::t2")
    with session_of(pytester, "--pdb") as (root, calls):
        controller, _ = controlled(
            root, [EPOLLS], lambda hub: InterruptedInTest(begin, *DEBUGGED, after[1:], finish)
        )
        try:
            controller.pytest_runtestloop(root)
        except KeyboardInterrupt:
            pytest.fail("the run is interrupted")
    assert calls.finished == ["a.py::t1", "a.py::t2"]


@pytest.mark.fault("ctrl-c")
def test_a_debugger_that_opens_after_ctrl_c_is_left_open(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(unpatched, "monotonic", lambda: now[0])

    class Child(InterruptedInTest):
        def read(self) -> list[messages.Message] | None:
            batch = super().read()
            if batch and isinstance(batch[0], messages.Text):
                now[0] += INTERRUPT_SECONDS * 0.9
            return batch

    with session_of(pytester) as (root, calls):
        controller, _ = controlled(root, [EPOLLS], lambda hub: Child(*DEBUGGED))
        with pytest.raises(KeyboardInterrupt):
            controller.pytest_runtestloop(root)
    assert calls.finished == ["a.py::t1"]


@pytest.mark.fault("run-told-to-end")
def test_a_run_that_is_told_to_end_while_it_lets_a_child_go_lets_it_go_once(
    pytester: pytest.Pytester,
) -> None:
    class Child(FakeChild):
        def close(self) -> None:
            super().close()
            controller.pytest_unconfigure()  # as a signal's handler does

    with session_of(pytester) as (root, calls):
        controller, _ = controlled(root, [EPOLLS], lambda hub: Child(*session("a.py::t[epolls]")))
        controller.pytest_runtestloop(root)
    assert calls.finished == ["a.py::t[epolls]"]


def test_failures_of_one_hub_count_towards_the_maxfail_of_the_next(
    pytester: pytest.Pytester,
) -> None:
    with session_of(pytester, "--maxfail=3") as (root, _):
        controller, born = controlled(
            root,
            [EPOLLS, ASYNCIO],
            lambda hub: FakeChild(*session(f"a.py::t[{hub}]", failing=f"a.py::t[{hub}]")),
        )
        controller.pytest_runtestloop(root)
    assert [child.assignment and child.assignment.maxfail for child in born] == [3, 2]


def test_a_command_line_that_a_child_refuses_ends_the_run(pytester: pytest.Pytester) -> None:
    with session_of(pytester) as (root, _):
        controller, born = controlled(
            root, [EPOLLS, ASYNCIO], lambda hub: FakeChild(exit_status=4, output="no such option")
        )
        with pytest.raises(pytest.UsageError, match="no such option"):
            controller.pytest_runtestloop(root)
    assert len(born) == 1


@pytest.mark.parametrize(
    ("arguments", "absent_on", "missing"),
    [
        (["a.py::t"], ["epolls"], False),
        (["a.py::t"], ["epolls", "asyncio"], True),
        # Nobody has asked for it on asyncio.
        (["a.py::t[epolls]", "b.py"], ["epolls"], True),
        (["a.py::t[epolls]", "a.py::t[asyncio]"], ["epolls"], False),
    ],
)
def test_an_id_that_is_absent_is_an_error_only_if_no_hub_that_is_asked_for_it_has_it(
    pytester: pytest.Pytester, arguments: list[str], absent_on: list[str], missing: bool
) -> None:
    path = str(pytester.path / "a.py")

    def start(hub: str) -> FakeChild:
        start, *rest = session("b.py::t")
        absent = pytest.CollectReport(
            f"{path}::t", "skipped", (path, 0, "Skipped: it is absent"), [], eventlet_absent="why"
        )
        data = {**absent._to_json(), "$report_type": "CollectReport"}
        said = [messages.CollectReport(data)] if hub in absent_on else []
        return FakeChild([start[0], *said, *start[1:]], *rest)

    with session_of(pytester) as (root, calls):
        root.config.args[:] = arguments
        controller, _ = controlled(root, [EPOLLS, ASYNCIO], start)
        if missing:
            with pytest.raises(pytest.UsageError, match=r"not found: .*/a\.py::t$"):
                controller.pytest_runtestloop(root)
        else:
            controller.pytest_runtestloop(root)
    assert calls.collected == []
    assert [run.absent for run in controller.runs if run.name in absent_on] == (
        [{f"{path}::t": "why"}] * len(absent_on)
    )
