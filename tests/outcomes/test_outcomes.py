"""How outcomes of several hubs are compared and shown."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.outcomes.comparison import Comparison
from pytest_eventlet_debug.outcomes.comparison import Difference
from pytest_eventlet_debug.outcomes.comparison import ModuleDifference
from pytest_eventlet_debug.outcomes.comparison import compare_outcomes
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.outcomes.outcomes import Outcomes

ALL: list[Outcome] = [
    "passed",
    "failed",
    "error",
    "skipped",
    "xfailed",
    "xpassed",
    "hung",
    "crashed",
]


def test_hubs_that_agree_have_no_differences() -> None:
    comparison = compare_outcomes(
        {"epolls": {"a.py::x": "passed"}, "asyncio": {"a.py::x": "passed"}}
    )
    assert not comparison
    assert comparison == Comparison(("epolls", "asyncio"), (), (), common=1)


@pytest.mark.parametrize("other", [outcome for outcome in ALL if outcome != "passed"])
def test_any_other_outcome_is_a_difference(other: Outcome) -> None:
    comparison = compare_outcomes({"epolls": {"a.py::x": "passed"}, "asyncio": {"a.py::x": other}})
    assert comparison
    assert comparison.differences == (
        Difference("a.py::x", (("epolls", "passed"), ("asyncio", other))),
    )
    assert comparison.modules == ()


def test_a_test_that_fails_alike_everywhere_is_no_difference() -> None:
    assert not compare_outcomes({hub: {"a.py::x": "failed"} for hub in ("epolls", "asyncio")})


def test_a_module_that_exists_on_one_hub_only_is_one_line() -> None:
    fourteen: dict[str, Outcome] = {f"tests/asyncio_test.py::test_{n}": "passed" for n in range(14)}
    comparison = compare_outcomes({"epolls": {}, "poll": {}, "asyncio": fourteen})
    assert comparison.differences == ()
    assert comparison.modules == (
        ModuleDifference("tests/asyncio_test.py", 14, ("asyncio",), ("epolls", "poll")),
    )


def test_tests_of_one_module_on_different_hubs_are_counted_apart() -> None:
    comparison = compare_outcomes(
        {"epolls": {"a.py::x": "passed"}, "asyncio": {"a.py::y": "passed", "a.py::z": "failed"}}
    )
    assert [(m.count, m.present, m.absent) for m in comparison.modules] == [
        (1, ("epolls",), ("asyncio",)),
        (2, ("asyncio",), ("epolls",)),
    ]


def test_a_test_asked_for_on_some_hubs_is_not_missed_on_the_others() -> None:
    outcomes: dict[str, dict[str, Outcome]] = {
        "epolls": {"a.py::x": "passed", "a.py::y": "passed"},
        "poll": {"a.py::x": "failed"},
        "asyncio": {},
    }
    comparison = compare_outcomes(
        outcomes, chosen={"a.py::x": {"epolls", "poll"}, "a.py::y": {"epolls", "poll"}}
    )
    assert [difference.test for difference in comparison.differences] == ["a.py::x"]
    assert comparison.modules == (ModuleDifference("a.py", 1, ("epolls",), ("poll",)),)
    assert comparison.common == 1


def test_a_test_that_differs_and_is_absent_somewhere_is_in_both_lists() -> None:
    comparison = compare_outcomes(
        {"epolls": {"a.py::x": "passed"}, "poll": {}, "asyncio": {"a.py::x": "hung"}}
    )
    assert comparison.differences == (
        Difference("a.py::x", (("epolls", "passed"), ("poll", "absent"), ("asyncio", "hung"))),
    )
    assert comparison.modules == (ModuleDifference("a.py", 1, ("epolls", "asyncio"), ("poll",)),)


def test_a_hub_that_did_not_finish_is_not_compared() -> None:
    comparison = compare_outcomes(
        {
            "epolls": {"a.py::x": "passed"},
            "poll": {"a.py::x": "failed"},
            "asyncio": {"a.py::x": "passed"},
        },
        excluded=["poll"],
    )
    assert not comparison
    assert comparison.hubs == ("epolls", "asyncio")


@pytest.mark.parametrize("excluded", [["epolls"], ["epolls", "asyncio"]])
def test_fewer_than_two_hubs_have_nothing_to_differ_in(excluded: list[str]) -> None:
    outcomes: dict[str, dict[str, Outcome]] = {
        "epolls": {"a.py::x": "passed"},
        "asyncio": {"a.py::y": "failed"},
    }
    assert not compare_outcomes(outcomes, excluded)


def test_tests_come_in_the_order_in_which_they_were_run() -> None:
    comparison = compare_outcomes(
        {
            "epolls": {"z.py::a": "passed", "a.py::z": "passed"},
            "asyncio": {"a.py::z": "failed", "z.py::a": "failed"},
        }
    )
    assert [difference.test for difference in comparison.differences] == ["z.py::a", "a.py::z"]


def test_parameters_with_colons_do_not_change_the_module() -> None:
    comparison = compare_outcomes({"epolls": {"a.py::x[b.py::y]": "passed"}, "asyncio": {}})
    assert [module.module for module in comparison.modules] == ["a.py"]


@pytest.mark.parametrize(
    ("categories", "outcome"),
    [
        (["", "passed", ""], "passed"),
        (["", "failed", ""], "failed"),
        (["error", ""], "error"),
        (["", "passed", "error"], "error"),
        (["", "failed", "error"], "failed"),
        (["skipped", ""], "skipped"),
        (["", "xfailed", ""], "xfailed"),
        (["", "subtests passed", "subtests failed", "passed", ""], "failed"),
    ],
)
def test_the_gravest_report_decides_how_a_test_ended(
    categories: list[str], outcome: Outcome
) -> None:
    outcomes = Outcomes()
    for category in categories:
        outcomes.note("a.py::x", category)
    assert outcomes.latest == {"a.py::x": outcome}
    assert outcomes.attempts == {}


def test_a_test_whose_process_ended_ended_so_whatever_else_was_reported() -> None:
    outcomes = Outcomes()
    outcomes.note("a.py::x", "passed")
    outcomes.note("a.py::x", "failed", "crashed")
    assert outcomes.latest == {"a.py::x": "crashed"}


def test_a_test_that_is_retried_begins_anew() -> None:
    outcomes = Outcomes()
    for category in ["", "rerun", "", "", "rerun", "", "", "passed", ""]:
        outcomes.note("a.py::x", category)
    assert outcomes.latest == {"a.py::x": "passed"}
    assert outcomes.attempts == {"a.py::x": ["failed", "failed"]}


def test_an_attempt_that_failed_in_setup_or_teardown_was_an_error() -> None:
    outcomes = Outcomes()
    for category, phase in [("rerun", "setup"), ("", "setup"), ("passed", "call")]:
        outcomes.note("a.py::x", category, phase=phase)
    for category, phase in [("rerun", "teardown"), ("rerun", "call"), ("error", "setup")]:
        outcomes.note("a.py::x", category, phase=phase)
    assert outcomes.latest == {"a.py::x": "error"}
    assert outcomes.attempts == {"a.py::x": ["error", "error", "failed"]}


def test_a_test_that_has_reported_nothing_but_its_setup_has_no_outcome() -> None:
    outcomes = Outcomes()
    outcomes.note("a.py::x", "")
    assert outcomes.latest == {}
