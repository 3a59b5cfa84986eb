"""The state of one hub's run: what is left, whether to go on, what it is at."""

from __future__ import annotations

from typing import Any

from fakes import EPOLLS
from fakes import FakeChild
import pytest

from pytest_eventlet_debug.children.hub_run import HubRun
from pytest_eventlet_debug.children.hub_run import RunningTest
from pytest_eventlet_debug.system import unpatched


@pytest.mark.parametrize(
    ("ids", "done", "remaining"),
    [
        (None, [], []),
        (["a", "b", "c"], ["b"], ["a", "c"]),
        (["a", "b", "a"], ["a"], ["b", "a"]),
        (["a"], ["a"], []),
        (["a"], ["gone"], ["a"]),
    ],
)
def test_what_remains_are_the_tests_that_are_not_over_each_as_often_as_it_was_collected(
    ids: list[str] | None, done: list[str], remaining: list[str]
) -> None:
    run = HubRun(EPOLLS, ids=ids, done=done)
    assert run.remaining == remaining
    assert run.complete == (ids is not None and not remaining)


def test_a_fresh_child_is_worth_it_only_after_one_that_ended_a_test() -> None:
    child: Any = FakeChild()
    run = HubRun(EPOLLS, ids=["a", "b", "c"])
    run.begin(child)
    assert not run.may_go_on
    run.done.append("a")
    assert run.may_go_on
    run.begin(child)
    assert not run.may_go_on
    run.done += ["b", "c"]
    assert not run.may_go_on
    child.close()


def test_a_run_says_where_it_is() -> None:
    run = HubRun(EPOLLS)
    assert run.where == "its collection"
    run.ids = ["a.py::t"]
    assert run.where == "what follows its last test"
    run.running["a.py::t"] = RunningTest(("a.py", 0, "t"))
    assert run.where == "a.py::t"


def test_a_run_whose_user_is_in_a_debugger_is_not_silent() -> None:
    run = HubRun(EPOLLS, heard=-100.0)
    assert run.silent > 90
    run.debugging = True
    assert run.silent == 0.0


def test_what_a_run_lacked_is_what_its_hungriest_thread_did_not_get() -> None:
    run = HubRun(EPOLLS, heard=unpatched.monotonic() - 10, run_delays={1: 5_000_000_000})
    assert run.lacked({}) == 0.0
    assert run.lacked({1: 7_000_000_000, 2: 1_000_000_000}) == 2.0
    assert run.lacked({1: 7_000_000_000, 2: 3_000_000_000}) == 3.0
    assert run.lacked({2: 60_000_000_000}) == pytest.approx(10, abs=1)
    run.hear()
    assert run.run_delays is None
