"""The state of one hub's run: what is left, whether to go on, what it is at."""

from __future__ import annotations

from typing import Any

from fakes import EPOLLS
from fakes import FakeChild
import pytest

from pytest_eventlet_debug.children.hub_run import HubRun
from pytest_eventlet_debug.children.hub_run import RunningTest
from pytest_eventlet_debug.children.silence import Silence


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


class Clock:
    """Stands still until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 1000.0
        monkeypatch.setattr(
            "pytest_eventlet_debug.system.unpatched.monotonic", lambda: self.seconds
        )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_run_whose_user_is_in_a_debugger_is_not_silent(clock: Clock) -> None:
    run = HubRun(EPOLLS)
    clock.seconds += 100
    assert run.silent == 100
    run.debugging = True
    assert run.silent == 0.0


def test_what_a_child_lacked_is_what_its_hungriest_thread_did_not_get(clock: Clock) -> None:
    silence = Silence()
    clock.seconds += 10
    assert not silence.exceeds(20, lambda: {1: 5_000_000_000})
    assert silence.lacked({}) == 0.0
    assert silence.lacked({1: 7_000_000_000, 2: 1_000_000_000}) == 2.0
    assert silence.lacked({1: 7_000_000_000, 2: 3_000_000_000}) == 3.0
    assert silence.lacked({2: 60_000_000_000}) == 10


def test_a_silence_is_too_long_but_for_the_time_without_a_cpu(clock: Clock) -> None:
    silence = Silence()
    without_cpu = {1: 0}
    clock.seconds += 2
    assert not silence.exceeds(10, lambda: dict(without_cpu))
    clock.seconds += 9
    without_cpu[1] = 3_000_000_000
    assert not silence.exceeds(10, lambda: dict(without_cpu))
    clock.seconds += 2
    assert silence.exceeds(10, lambda: dict(without_cpu))


def test_a_silence_of_several_timeouts_is_too_long_though_there_was_no_cpu(clock: Clock) -> None:
    silence = Silence()
    began = clock.seconds
    for _ in range(49):
        clock.seconds += 1
        assert not silence.exceeds(10, lambda: {1: int((clock.seconds - began) * 1e9)})
    clock.seconds += 1
    assert silence.exceeds(10, lambda: {1: int((clock.seconds - began) * 1e9)})


def test_a_silence_to_which_nobody_listened_is_not_too_long(clock: Clock) -> None:
    silence = Silence()
    clock.seconds += 100
    assert not silence.exceeds(10, dict)
    clock.seconds += 8
    assert not silence.exceeds(10, dict)
    clock.seconds += 1
    assert silence.exceeds(10, dict)
