"""Which tests run: pytest's options for it, with several hubs."""

from __future__ import annotations

from collections import Counter
import re

import pytest
from runs import BOTH
from runs import make_differing
from runs import on_both
from runs import ran
from runs import run

from pytest_eventlet_debug.children.selection import select_arguments

HUBS = ("epolls", "poll", "asyncio")

#: Fails everywhere, three times.
FAILS = """
    def test_a(): assert 0

    def test_b(): assert 0

    def test_c(): assert 0
"""


def test_k_and_m_choose_by_hub_and_by_mark(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        def test_a(): pass

        @pytest.mark.skipif("True")
        def test_b(): pass
        """
    )
    result = run(pytester, BOTH, "-v", "-k", "asyncio")
    assert ran(result) == ["test_a[asyncio]", "test_b[asyncio]"]
    result.assert_outcomes(passed=1, skipped=1, deselected=2)
    result = run(pytester, BOTH, "-v", "-m", "not skipif", "-k", "not epolls")
    assert ran(result) == ["test_a[asyncio]"]
    result = run(pytester, BOTH, "-k", "selects")
    assert result.ret == pytest.ExitCode.NO_TESTS_COLLECTED
    result.assert_outcomes(deselected=4)


def test_deselect_takes_ids_with_a_hub_and_without(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.parametrize("n", [1, 2])
        def test_p(n): pass

        def test_a(): pass
        """
    )
    result = run(
        pytester,
        BOTH,
        "-v",
        "--deselect=test_x.py::test_a[asyncio]",
        "--deselect=test_x.py::test_p[1]",
    )
    assert ran(result) == ["test_p[2-epolls]", "test_a[epolls]", "test_p[2-asyncio]"]
    result.assert_outcomes(passed=3, deselected=3)
    result = run(pytester, BOTH, "-v", "--deselect=test_x.py::test_p")
    assert ran(result) == on_both("test_a")


def test_lf_repeats_what_failed_on_the_hub_where_it_failed(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    pytester.makepyfile(test_other="def test_o(): pass")
    run(pytester, BOTH).assert_outcomes(passed=7, failed=1)
    again = run(pytester, BOTH, "-v", "--lf")
    assert ran(again) == ["test_b[asyncio]"]
    again.stdout.no_fnmatch_line("*only, not on*")
    again.stdout.fnmatch_lines(["run-last-failure: rerun previous 1 failure*"])
    make_differing(pytester, mended=True)
    mended = run(pytester, BOTH, "-v", "--lf")
    assert ran(mended) == ["test_b[asyncio]"]
    assert mended.ret == pytest.ExitCode.OK
    assert len(ran(run(pytester, BOTH, "-v", "--lf"))) == 8
    none = run(pytester, BOTH, "--lf", "--lfnf=none")
    assert none.ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_lf_forgets_failures_whose_file_is_gone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="def test_a(): pass\ndef test_b(eventlet_hub): assert eventlet_hub != 'epolls'",
        test_gone="def test_g(eventlet_hub): assert eventlet_hub != 'asyncio'",
    )
    run(pytester, BOTH).assert_outcomes(passed=4, failed=2)
    each = run(pytester, BOTH, "-v", "--lf")
    assert ran(each) == ["test_b[epolls]", "test_g[asyncio]"]
    each.stdout.no_fnmatch_line("=* hub differences =*")  # no test ran on both hubs
    pytester.path.joinpath("test_gone.py").unlink()
    assert ran(run(pytester, BOTH, "-v", "--lf")) == ["test_b[epolls]"]


def test_ff_and_nf_sort_the_tests_within_each_hub(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    run(pytester, BOTH)
    first = run(pytester, BOTH, "-v", "--ff")
    assert ran(first) == [
        *("test_a[epolls]", "test_b[epolls]", "test_c[epolls]"),
        *("test_b[asyncio]", "test_a[asyncio]", "test_c[asyncio]"),
    ]
    pytester.makepyfile(test_z="def test_new(): pass")
    new = run(pytester, BOTH, "-v", "--nf")
    assert ran(new) == on_both("test_new", "test_a", "test_b", "test_c")


def test_stepwise_goes_on_from_the_test_and_hub_where_it_stopped(
    pytester: pytest.Pytester,
) -> None:
    make_differing(pytester)
    stopped = run(pytester, BOTH, "-v", "--sw")
    assert ran(stopped) == [*on_both("test_a", "test_b", "test_c")[:5]]
    assert stopped.ret == pytest.ExitCode.INTERRUPTED
    stopped.stdout.fnmatch_lines(["*Interrupted: Test failed, continuing from this test*"])
    again = run(pytester, BOTH, "-v", "--sw")
    assert ran(again) == ["test_b[asyncio]"]
    again.stdout.fnmatch_lines(
        [
            "stepwise: skipping 3 already passed items, the failure is on asyncio.",
            "stepwise: skipping 1 already passed items (*",
        ]
    )
    skipping = run(pytester, BOTH, "-v", "--sw-skip")
    assert ran(skipping) == ["test_b[asyncio]", "test_c[asyncio]"]


def test_stepwise_begins_anew_when_there_are_more_tests_than_before(
    pytester: pytest.Pytester,
) -> None:
    make_differing(pytester)
    run(pytester, BOTH, "--sw")
    pytester.makepyfile(test_a="def test_new(): pass")
    anew = run(pytester, BOTH, "-v", "--sw")
    assert ran(anew) == [
        *("test_new[epolls]", "test_a[epolls]", "test_b[epolls]", "test_c[epolls]"),
        *("test_new[asyncio]", "test_a[asyncio]", "test_b[asyncio]"),
    ]
    anew.stdout.fnmatch_lines(["stepwise: test count changed, not skipping (now 4 tests*"])


def test_stepwise_skip_ignores_one_failure_of_all_hubs(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_a(): assert 0\ndef test_b(): pass")
    result = run(pytester, BOTH, "-v", "--sw-skip")
    assert ran(result) == ["test_a[epolls]", "test_b[epolls]", "test_a[asyncio]"]


@pytest.mark.parametrize(
    ("option", "tests"),
    [
        ("-x", ["test_a[epolls]"]),
        ("--maxfail=2", ["test_a[epolls]", "test_b[epolls]"]),
        ("--maxfail=4", [*on_both("test_a", "test_b", "test_c")[:4]]),
    ],
)
def test_failures_of_all_hubs_count_for_maxfail(
    pytester: pytest.Pytester, option: str, tests: list[str]
) -> None:
    pytester.makepyfile(test_x=FAILS)
    result = run(pytester, BOTH, "-v", option)
    assert ran(result) == tests
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines([f"*stopping after {len(tests)} failures*"])
    result.stdout.fnmatch_lines(["the run under asyncio is incomplete*not compared"])
    result.stdout.no_fnmatch_line("*differ between*")


def test_a_command_line_may_be_as_long_as_the_kernel_takes_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_a(): pass\ndef test_b(): pass")
    long = "x" * 100_000  # of 131,071
    run(pytester, BOTH, "-k", f"test_a or {long}").assert_outcomes(passed=2, deselected=2)


def test_maxfail_with_hubs_at_once_ends_all_of_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import time
        import pytest

        @pytest.mark.parametrize("n", range(100))
        def test_p(n, eventlet_hub):
            assert eventlet_hub == "asyncio"
            time.sleep(0.1)
        """
    )
    result = run(pytester, BOTH, "-v", "--maxfail=2", "--eventlet-jobs=2")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.re_match_lines([".*stopping after 2 failures"])
    by_hub = Counter(re.findall(r"epolls|asyncio", " ".join(ran(result))))
    assert by_hub["epolls"] == 2
    assert by_hub["asyncio"] < 100


@pytest.mark.parametrize(
    ("arguments", "selected"),
    [
        ([], []),
        (["tests"], ["tests"]),
        (["test_x.py::test_x"], ["test_x.py::test_x"]),
        (["test_x.py::test_x[poll]"], ["test_x.py::test_x[poll]"]),
        (["test_x.py::test_x[1]"], ["test_x.py::test_x[1-poll]"]),
        (["test_x.py::test_x[asyncio]"], None),
        (
            ["test_x.py::test_x[asyncio]", "test_y.py::test_y[1-poll]"],
            ["test_y.py::test_y[1-poll]"],
        ),
        (["test_x.py::test_x[asyncio]", "tests"], ["tests"]),
        (["test_x.py[poll]"], ["test_x.py"]),
        (["test_x.py[asyncio]"], None),
    ],
)
def test_arguments_become_what_the_tests_are_called_under_one_hub(
    arguments: list[str], selected: list[str] | None
) -> None:
    assert select_arguments(arguments, "poll", HUBS) == selected
