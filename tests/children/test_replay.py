"""What children report becomes the hook calls of one run, whatever order it comes in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fakes import ASYNCIO
from fakes import EPOLLS
from fakes import a_test
from fakes import location
from fakes import report
from fakes import session_of
import pytest

from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children.hub_run import HubRun
from pytest_eventlet_debug.children.replay import Replay


def replay_of(session: Any, runs: list[HubRun], *, whole_tests: bool = False) -> Replay:
    return Replay(session, runs, Path("nowhere"), whole_tests)


def test_every_report_says_the_hub_that_it_is_of(pytester: pytest.Pytester) -> None:
    runs = [HubRun(EPOLLS), HubRun(ASYNCIO)]
    skipped = pytest.CollectReport("a.py", "skipped", ("a.py", 3, "Skipped: not here"), [])
    data = {**skipped._to_json(), "$report_type": "CollectReport"}
    with session_of(pytester) as (session, calls):
        replay = replay_of(session, runs)
        for run in runs:
            replay.receive(run, report(f"b.py::t[{run.name}]"))
        replay.receive(runs[1], messages.CollectReport(data))
    hubs: list[Any] = [getattr(each, "eventlet_hub", None) for each in calls.reports]
    assert hubs == ["epolls", "asyncio"]
    assert [getattr(each, "eventlet_hub", None) for each in calls.collected] == ["asyncio"]


def test_tests_of_children_at_once_are_replayed_one_after_the_other(
    pytester: pytest.Pytester,
) -> None:
    runs = [HubRun(EPOLLS), HubRun(ASYNCIO)]
    with session_of(pytester) as (session, calls):
        replay = replay_of(session, runs, whole_tests=True)
        for one, other in zip(a_test("a.py::t[epolls]"), a_test("a.py::t[asyncio]"), strict=True):
            replay.receive(runs[0], one)
            replay.receive(runs[1], other)
    steps = ("start", "setup", "call", "teardown", "finish")
    assert calls.order == [
        f"{step} a.py::t[{hub}]" for hub in ("epolls", "asyncio") for step in steps
    ]


def test_a_test_is_at_hand_while_it_runs_and_done_after(pytester: pytest.Pytester) -> None:
    run = HubRun(EPOLLS, ids=["a.py::t", "a.py::u"])
    start, setup, *rest = a_test("a.py::t")
    with session_of(pytester) as (session, _):
        replay = replay_of(session, [run])
        replay.receive(run, start)
        replay.receive(run, setup)
        assert run.running["a.py::t"].phases.keys() == {"setup"}
        assert run.where == "a.py::t"
        for message in rest:
            replay.receive(run, message)
    assert run.running == {}
    assert run.remaining == ["a.py::u"]
    assert replay.outcomes["epolls"].latest == {"a.py::t": "passed"}


@pytest.mark.parametrize(("phases", "when"), [(["setup"], "call"), (["setup", "call"], "teardown")])
def test_a_test_that_its_child_ended_in_fails_in_the_phase_that_it_was_in(
    pytester: pytest.Pytester, phases: list[str], when: str
) -> None:
    run = HubRun(EPOLLS, ids=["a.py::t"])
    with session_of(pytester) as (session, calls):
        replay = replay_of(session, [run])
        replay.receive(run, messages.LogStart("a.py::t", location("a.py::t")))
        for phase in phases:
            replay.receive(run, report("a.py::t", phase))
        replay.report_end(run, "crashed", "killed by SIGSEGV", [("Its stderr", "last words")])
    end = calls.reports[-1]
    assert (end.when, end.outcome) == (when, "failed")
    assert "last words" in end.longreprtext
    assert calls.finished == ["a.py::t"]
    assert replay.outcomes["epolls"].latest == {"a.py::t": "crashed"}
    assert run.complete


def test_what_is_held_of_a_test_whose_child_ends_is_not_lost(pytester: pytest.Pytester) -> None:
    run = HubRun(EPOLLS, ids=["a.py::t"])
    with session_of(pytester) as (session, calls):
        replay = replay_of(session, [run], whole_tests=True)
        for message in a_test("a.py::t")[:2]:
            replay.receive(run, message)
        assert calls.order == []
        replay.report_end(run, "hung", "silent for 6 s, killed", [])
    assert calls.order == [
        "start a.py::t",
        "setup a.py::t",
        "call a.py::t",
        "finish a.py::t",
    ]


def test_hubs_that_have_not_collected_are_expected_to_have_as_many_tests(
    pytester: pytest.Pytester,
) -> None:
    runs = [HubRun(EPOLLS), HubRun(ASYNCIO), HubRun(None, wanted=False)]
    with session_of(pytester) as (session, _):
        replay = replay_of(session, runs)
        replay.receive(runs[0], messages.Collected(["a", "b", "c"]))
        assert session.testscollected == 6
        replay.receive(runs[1], messages.Collected(["a"]))
        assert session.testscollected == 4


def test_a_later_child_does_not_change_what_its_hub_has_collected(
    pytester: pytest.Pytester,
) -> None:
    run = HubRun(EPOLLS)
    with session_of(pytester) as (session, _):
        replay = replay_of(session, [run])
        replay.receive(run, messages.Collected(["a", "b"]))
        replay.receive(run, messages.Collected(["b"]))
    assert run.ids == ["a", "b"]
    assert session.testscollected == 2


def test_a_conftest_that_stops_its_session_stops_the_run(pytester: pytest.Pytester) -> None:
    run = HubRun(EPOLLS)
    with session_of(pytester) as (session, _):
        replay = replay_of(session, [run])
        replay.receive(run, messages.SessionFinish(2, shouldstop="the conftest says so"))
        assert replay.stopping
        assert session.shouldstop == "the conftest says so"
    assert run.exit_status == 2
