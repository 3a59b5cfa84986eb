"""How two saved runs are compared, and the verdict in words."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest

from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.outcomes.outcomes import OUTCOMES
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.phrasing import SHOWN
from pytest_eventlet_debug.upgrade.comparison import GOOD
from pytest_eventlet_debug.upgrade.comparison import Kind
from pytest_eventlet_debug.upgrade.comparison import Verdict
from pytest_eventlet_debug.upgrade.comparison import check_common_tests
from pytest_eventlet_debug.upgrade.comparison import check_same_suite
from pytest_eventlet_debug.upgrade.comparison import compare
from pytest_eventlet_debug.upgrade.saved_run import Distribution
from pytest_eventlet_debug.upgrade.saved_run import Failure
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError
from pytest_eventlet_debug.upgrade.saved_run import SavedTest
from pytest_eventlet_debug.upgrade.saved_run import Uncollected
from pytest_eventlet_debug.upgrade.verdict import as_json
from pytest_eventlet_debug.upgrade.verdict import format_verdict
from pytest_eventlet_debug.upgrade.verdict import headline

DNS_25 = {
    "dnspython": Distribution("2.5.0", ("dns",)),
    "eventlet": Distribution("1", ("eventlet",)),
}
DNS_26 = {**DNS_25, "dnspython": Distribution("2.6.0rc1", ("dns",))}
IMPORT_ERROR = Failure("ImportError: cannot import name 'x' from 'dns'", ("eventlet",), ("dns",))


def case(
    name: str,
    outcome: Outcome = "passed",
    seconds: float = 0.01,
    *attempts: Outcome,
    hub: str = "epolls",
    failure: Failure | None = None,
) -> SavedTest:
    return SavedTest(name, hub, outcome, seconds, attempts or (outcome,), failure)


def run(*tests: SavedTest, **fields: Any) -> SavedRun:
    hubs = tuple(dict.fromkeys(each.hub for each in tests)) or ("epolls",)
    whole = SavedRun(
        suite="eventlet",
        command=(),
        started_ns=0,
        seconds=1.0,
        exit_status=0,
        incomplete=None,
        hubs=hubs,
        python="CPython 3.12.1",
        platform="Linux",
        distributions={},
        selection=(".",),
        deselected=(),
        tests=tests,
        uncollected=(),
    )
    return dataclasses.replace(whole, **fields)


def kinds(verdict: Verdict) -> list[tuple[str, Kind]]:
    return [(change.test, change.kind) for change in verdict.changes]


def expected_kind(before: Outcome, now: Outcome) -> Kind | None:
    if now in BAD:
        return "regression" if before in GOOD else "still failing" if before in BAD else "fails"
    if now == "skipped":
        return None if before == "skipped" else "skipped"
    return "fixed" if before in BAD else None


@pytest.mark.parametrize("now", OUTCOMES)
@pytest.mark.parametrize("before", OUTCOMES)
def test_every_pair_of_outcomes_is_of_one_kind(before: Outcome, now: Outcome) -> None:
    verdict = compare(run(case("a.py::x", before)), run(case("a.py::x", now)))
    kind = expected_kind(before, now)
    assert kinds(verdict) == ([("a.py::x", kind)] if kind else [])
    assert verdict.worse == (kind == "regression")
    assert verdict.compared == 1
    assert verdict.same == (kind is None)


# In each run: the outcome that counts, then all attempts. A plugin that retries counts the
# last one, what runs again for the comparison leaves the first to count.
@pytest.mark.parametrize(
    ("before", "now", "kind"),
    [
        (("passed", "passed"), ("passed", "failed", "passed"), "flaky"),
        (("passed", "passed"), ("failed", "failed", "passed", "passed"), "flaky"),
        (("passed", "passed"), ("failed", "failed", "failed", "error"), "regression"),
        (("passed", "passed"), ("failed", "failed", "skipped"), "regression"),
        (("passed", "failed", "passed"), ("failed", "failed"), "flaky"),
        (("passed", "failed", "passed"), ("passed", "passed"), None),
        (("passed", "failed", "passed"), ("passed", "failed", "passed"), None),
        (("failed", "failed"), ("passed", "passed", "failed"), "flaky"),
        (("failed", "failed"), ("passed", "passed", "passed"), "fixed"),
        (("skipped", "skipped"), ("failed", "failed", "passed"), "flaky"),
    ],
)
def test_a_test_whose_attempts_mix_is_flaky(
    before: tuple[Outcome, ...], now: tuple[Outcome, ...], kind: Kind | None
) -> None:
    old = case("a.py::x", before[0], 0.01, *before[1:])
    verdict = compare(run(old), run(case("a.py::x", now[0], 0.01, *now[1:])))
    assert kinds(verdict) == ([("a.py::x", kind)] if kind else [])
    assert verdict.worse == (kind == "regression")


@pytest.mark.parametrize(("before", "now"), [("passed", "failed"), ("failed", "passed")])
def test_a_test_that_ends_otherwise_though_nothing_changed_flips(
    before: Outcome, now: Outcome
) -> None:
    old = run(case("a.py::x", before), case("a.py::y"), distributions=DNS_25)
    new = run(case("a.py::x", now), case("a.py::y"), distributions=DNS_25)
    verdict = compare(old, new)
    assert kinds(verdict) == [("a.py::x", "flips")]
    assert verdict.worse == (now == "failed")
    lines = format_verdict(verdict, old, "before.json")
    assert lines[0] == (
        "got worse: 1 test fails now, though nothing changed"
        if now == "failed"
        else "nothing got worse in these tests"
    )
    assert lines[1].endswith(": 2 tests compared, 1 as before, 1 flipped")
    assert lines[2:4] == [
        "flip, though nothing changed:",
        f"  a.py::x (epolls)   {before} -> {now}",
    ]
    other = dataclasses.replace(new, python="CPython 3.13.0")
    assert kinds(compare(old, other)) != [("a.py::x", "flips")]


def test_a_test_that_is_only_in_one_run_is_new_or_gone() -> None:
    verdict = compare(run(case("a.py::x"), case("a.py::y")), run(case("a.py::x"), case("b.py::z")))
    assert kinds(verdict) == [("b.py::z", "new"), ("a.py::y", "gone")]
    assert not verdict.worse


def test_a_test_that_the_new_run_did_not_come_to_is_not_gone() -> None:
    verdict = compare(run(case("a.py::x"), case("a.py::y")), run(case("a.py::x"), incomplete="^C"))
    assert kinds(verdict) == []
    assert verdict.unreached == 1
    assert verdict.notes == ("this run is incomplete (^C)",)


def test_a_test_that_an_incomplete_run_lacks_is_not_new() -> None:
    verdict = compare(run(case("a.py::x"), incomplete="^C"), run(case("a.py::x"), case("a.py::y")))
    assert kinds(verdict) == []
    assert verdict.notes == ("the run before is incomplete (^C)",)


@pytest.mark.parametrize(
    ("selection", "gone"),
    [
        ((".",), ["a.py::y", "b/c.py::K::z"]),
        (("a.py",), ["a.py::y"]),
        (("b",), ["b/c.py::K::z"]),
        (("b/c.py::K",), ["b/c.py::K::z"]),
        (("b/c.p", "a"), []),
        ((), []),
    ],
)
def test_only_what_a_run_was_asked_for_can_be_gone(
    selection: tuple[str, ...], gone: list[str]
) -> None:
    old = run(case("a.py::x"), case("a.py::y"), case("b/c.py::K::z"))
    verdict = compare(old, run(case("a.py::x"), selection=selection))
    assert [change.test for change in verdict.of("gone")] == gone
    assert verdict.unreached == 2 - len(gone)


def test_a_test_that_was_deselected_is_neither_gone_nor_new() -> None:
    whole, part = run(case("a.py::x"), case("a.py::y")), run(case("a.py::x"))
    part = dataclasses.replace(part, deselected=("a.py::y",))
    assert kinds(compare(whole, part)) == []


def test_a_module_that_does_not_import_any_more_takes_its_tests_along() -> None:
    old = run(case("a.py::x"), case("b.py::y"), case("b.py::z", "failed"), distributions=DNS_25)
    new = run(
        case("a.py::x"),
        uncollected=(Uncollected("b.py", "epolls", "error", IMPORT_ERROR),),
        distributions=DNS_26,
    )
    verdict = compare(old, new)
    (vanished,) = verdict.vanished
    assert (vanished.count, vanished.passed, vanished.origin) == (2, 1, "dnspython")
    assert kinds(verdict) == []
    assert verdict.worse
    assert headline(verdict) == (
        "got worse: 1 module can no longer be imported (1 test that passed)"
    )
    assert format_verdict(verdict, old, "old.json")[2:] == [
        "b.py (epolls) can no longer be imported: 2 tests gone, 1 passed before",
        "  ImportError: cannot import name 'x' from 'dns'   (from dnspython)",
        "changed distributions, most likely cause first:",
        "  dnspython  2.5.0 -> 2.6.0rc1   appears in 1 failure",
    ]


def test_tests_vanish_with_their_module_though_the_run_was_broken_off_by_it() -> None:
    error = Uncollected("b.py", "epolls", "error", IMPORT_ERROR)
    old = run(case("a.py::x"), case("b.py::y"))
    new = run(uncollected=(error,), incomplete="1 error during collection")
    verdict = compare(old, new)
    assert [(each.uncollected, each.count) for each in verdict.vanished] == [(error, 1)]
    assert (verdict.unreached, verdict.worse) == (1, True)


def test_a_suite_of_which_nothing_imports_any_more_is_compared_quickly() -> None:
    modules = [f"tests/unit_{number}.py" for number in range(200)]
    old = run(*(case(f"{module}::test[{n}]") for module in modules for n in range(25)))
    errors = [Uncollected(module, "epolls", "error", IMPORT_ERROR) for module in modules]

    began = time.process_time()
    verdict = compare(old, run(uncollected=tuple(errors)))

    assert time.process_time() - began < 1.0  # where each test is compared with each, three
    assert [each.count for each in verdict.vanished] == [25] * len(modules)
    assert verdict.unreached == 0


def test_a_test_has_vanished_with_the_first_of_the_collectors_above_it_that_failed() -> None:
    errors = [Uncollected(node, "epolls", "error", IMPORT_ERROR) for node in ("a", "a/b.py")]
    old = run(case("a/b.py::T::x[1]"), case("ab/b.py::x"), case("a/b.py::x", hub="poll"))
    new = run(case("c.py::x"), case("c.py::x", hub="poll"), uncollected=tuple(errors))

    verdict = compare(old, new)

    assert [(each.uncollected.node, each.count) for each in verdict.vanished] == [
        ("a", 1),
        ("a/b.py", 0),
    ]
    assert [change.test for change in verdict.of("gone")] == ["ab/b.py::x", "a/b.py::x"]


@pytest.mark.parametrize("passed", [True, False])
def test_a_module_that_never_imported_did_not_get_worse(passed: bool) -> None:
    error = Uncollected("b.py", "epolls", "error", IMPORT_ERROR)
    old = run(case("a.py::x"), uncollected=(error,) if passed else ())
    verdict = compare(old, run(case("a.py::x"), uncollected=(error,)))
    assert not verdict.worse
    assert len(verdict.vanished) == (0 if passed else 1)


def test_a_module_that_is_skipped_now_is_named_and_is_no_regression() -> None:
    skipped = Uncollected("b.py", "epolls", "skipped", Failure("Skipped: no dns"))
    verdict = compare(
        run(case("a.py::x"), case("b.py::y")), run(case("a.py::x"), uncollected=(skipped,))
    )
    assert not verdict.worse
    assert headline(verdict) == "no regression, but 1 gone with their modules"
    lines = format_verdict(verdict, run(), "old.json")
    assert "b.py (epolls) is skipped as a whole: 1 test gone, 1 passed before" in lines


def test_the_module_of_a_removed_distribution_is_blamed_on_it() -> None:
    failure = Failure("ModuleNotFoundError: No module named 'dns'", (), ("dns",))
    gone = {"eventlet": DNS_25["eventlet"]}
    verdict = compare(
        run(case("a.py::x"), distributions=DNS_25),
        run(uncollected=(Uncollected("a.py", "epolls", "error", failure),), distributions=gone),
    )
    assert verdict.vanished[0].origin == "dnspython"
    (upgrade,) = verdict.upgrades
    assert (upgrade.name, upgrade.before, upgrade.now) == ("dnspython", "2.5.0", None)


def test_the_changed_distribution_nearest_to_the_errors_comes_first() -> None:
    versions = {name: Distribution("1") for name in ("aa", "bb", "cc", "dd", "same")}
    later = {
        **{name: Distribution("2") for name in ("aa", "bb", "cc")},
        "same": Distribution("1"),
        "ee": Distribution("1"),
    }
    broken = [
        case("x::1", "failed", failure=Failure("", ("same", "cc", "bb"))),
        case("x::2", "failed", failure=Failure("", ("cc",))),
        case("x::3", "failed", failure=Failure("", ("bb", "cc"))),
        case("x::4", "failed", failure=Failure("")),
        case("x::known", "failed", failure=Failure("", ("aa",))),
    ]
    was = [case(each.test) for each in broken[:4]] + [case("x::known", "failed")]
    verdict = compare(run(*was, distributions=versions), run(*broken, distributions=later))
    found = [(each.name, each.nearest, each.involved) for each in verdict.upgrades]
    assert found == [("cc", 2, 3), ("bb", 1, 2), ("aa", 0, 0), ("dd", 0, 0), ("ee", 0, 0)]
    assert format_verdict(verdict, run(), "old.json")[-5:] == [
        "  cc  1 -> 2   appears in 3 failures",
        "  bb  1 -> 2   appears in 2 failures",
        "  aa  1 -> 2",
        "  dd  1 removed",
        "  ee  1 added",
    ]


def test_tests_are_paired_hub_by_hub_and_shown_together() -> None:
    failure = Failure("OSError")
    old = run(case("a.py::x", hub="epolls"), case("a.py::x", hub="asyncio"))
    new = run(
        case("a.py::x", "failed", hub="epolls", failure=failure),
        case("a.py::x", "failed", hub="asyncio", failure=failure),
    )
    verdict = compare(old, new)
    assert len(verdict.of("regression")) == 2
    lines = format_verdict(verdict, old, "old.json")
    assert "  a.py::x (epolls, asyncio)   passed -> failed" in lines
    assert lines.count("    OSError") == 1


def test_a_hub_that_one_run_lacks_is_not_compared_and_said_so() -> None:
    old = run(case("a.py::x", hub="epolls"), case("a.py::x", hub="poll"))
    new = run(case("a.py::x", hub="epolls"), case("a.py::x", "failed", hub="asyncio"))
    verdict = compare(old, new)
    assert verdict.changes == ()
    assert verdict.notes == (
        "ran before only, and not compared: poll",
        "ran now only, and not compared: asyncio",
    )


def slower(before: list[float], now: list[float]) -> list[int]:
    old = run(*(case(f"a.py::{n}", "passed", each) for n, each in enumerate(before)))
    new = run(*(case(f"a.py::{n}", "passed", each) for n, each in enumerate(now)))
    return [int(each.test.removeprefix("a.py::")) for each in compare(old, new).slower]


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ([1.0], [2.0], [0]),
        ([1.0], [1.99], []),  # not twice as long
        ([0.01], [0.5], []),  # not half a second more
        ([0.01], [0.52], [0]),
        ([10.0], [12.0], []),
        ([1.0] * 20, [3.0] * 20, []),  # the whole machine is slower
        ([1.0] * 20, [3.0] * 19 + [6.01], [19]),
        ([1.0] * 20, [0.5] * 19 + [1.5], []),  # a faster machine sets no stricter limit
        ([1.0] * 20, [0.5] * 19 + [2.0], [19]),
        # Where tests vary by a factor of two anyway, twice as long is nothing.
        ([1.0] * 20, [0.5, 1.0, 2.0, 1.0] * 4 + [0.6, 1.7, 1.0, 2.5], []),
        ([1.0] * 20, [0.5, 1.0, 2.0, 1.0] * 4 + [0.6, 1.7, 1.0, 99.0], [19]),
        ([1.0, 1.0], [3.0, 5.0], [1, 0]),  # the worst first
        ([1.0], [0.0], []),
        ([0.0], [0.0], []),
    ],
)
def test_slower_is_what_exceeds_the_pace_and_the_noise(
    before: list[float], now: list[float], found: list[int]
) -> None:
    assert slower(before, now) == found


def test_a_test_that_fails_is_not_called_slower() -> None:
    verdict = compare(run(case("a.py::x", "failed", 0.1)), run(case("a.py::x", "failed", 60.0)))
    assert verdict.slower == ()


def test_a_run_that_is_slower_as_a_whole_is_said_to_be() -> None:
    old = run(*(case(f"a.py::{n}", "passed", 1.0) for n in range(20)))
    new = run(*(case(f"a.py::{n}", "passed", 2.0) for n in range(20)))
    lines = format_verdict(compare(old, new), old, "old.json")
    assert "all tests take 2.0 times as long as before (median)" in lines


def test_nothing_worse_is_said_plainly() -> None:
    old = run(case("a.py::x"), case("a.py::y", "failed"), distributions=DNS_25)
    new = dataclasses.replace(old, distributions=DNS_26)
    lines = format_verdict(compare(old, new), old, "old.json")
    assert lines[0] == "nothing got worse in these tests"
    assert lines[1].endswith(": 2 tests compared, 1 as before, 1 still failing")
    assert lines[2:] == [
        "still failing:",
        "  a.py::y (epolls)   failed",
        "changed distributions:",
        "  dnspython  2.5.0 -> 2.6.0rc1",
    ]


def test_runs_without_a_common_test_have_no_verdict() -> None:
    verdict = compare(run(case("a.py::x")), run(selection=(), incomplete="^C"))
    assert headline(verdict) == "nothing to compare: no test ran both times"


def test_what_a_verdict_limits_stands_in_its_first_line() -> None:
    old = run(case("a.py::x"), case("a.py::y", "skipped"), case("a.py::z"), case("a.py::w"))
    new = run(
        case("a.py::x", "skipped"),
        case("a.py::y", "failed"),
        case("a.py::z", "failed", 0.01, "failed", "passed"),
        incomplete="^C",
    )
    assert headline(compare(old, new)) == (
        "no regression, but 1 failing that were skipped, 1 skipped that ran, 1 not run"
    )


def test_a_flaky_test_is_not_what_got_worse() -> None:
    old = run(case("a.py::x"), case("a.py::y"))
    new = run(case("a.py::x", "failed", 0.01, "failed", "passed"), case("a.py::y"))
    assert headline(compare(old, new)) == "nothing got worse in these tests (1 flaky)"


def test_a_long_list_is_cut_and_counted() -> None:
    count = SHOWN + 3
    old = run(*(case(f"a.py::{n}") for n in range(count)))
    new = run(*(case(f"a.py::{n}", "failed") for n in range(count)))
    lines = format_verdict(compare(old, new), old, "old.json")
    assert "  and 3 more" in lines
    assert sum(line.endswith("passed -> failed") for line in lines) == SHOWN


def test_another_python_or_platform_is_noted() -> None:
    verdict = compare(run(case("a::x")), run(case("a::x"), python="PyPy 7", platform="Darwin"))
    assert verdict.notes == (
        "Python changed: CPython 3.12.1 -> PyPy 7",
        "the platform changed: Linux -> Darwin",
    )


def test_a_verdict_is_plain_json() -> None:
    old = run(case("a.py::x"), distributions=DNS_25)
    new = run(case("a.py::x", "failed", failure=IMPORT_ERROR), distributions=DNS_26)
    data = json.loads(json.dumps(as_json(compare(old, new))))
    assert data["worse"] is True
    assert data["headline"] == "got worse: 1 regression"
    assert data["changes"][0]["failure"]["modules"] == ["dns"]
    assert data["upgrades"][0]["name"] == "dnspython"


def test_runs_need_a_hub_in_common() -> None:
    old = run(case("a.py::x"))
    check_same_suite(old, "old.json", ["asyncio", "epolls"])
    with pytest.raises(SavedRunError, match=r"old\.json .*epolls .*asyncio"):
        check_same_suite(old, "old.json", ["asyncio"])


def test_runs_need_a_test_in_common() -> None:
    old = run(case("a.py::x"), deselected=("a.py::y",))
    check_common_tests(old, "old.json", {"a.py::x", "b.py::z"})
    check_common_tests(old, "old.json", {"a.py::y"})
    check_common_tests(old, "old.json", set())
    with pytest.raises(
        SavedRunError, match=r"old\.json .*a different suite \(eventlet\).*b\.py::z"
    ):
        check_common_tests(old, "old.json", {"b.py::z"})


def test_what_only_installs_comes_last_of_what_changed() -> None:
    before = {name: Distribution("1") for name in ("pip", "setuptools", "zope")}
    now = {name: Distribution("2") for name in before}
    verdict = compare(run(case("a"), distributions=before), run(case("a"), distributions=now))
    assert [each.name for each in verdict.upgrades] == ["zope", "pip", "setuptools"]
