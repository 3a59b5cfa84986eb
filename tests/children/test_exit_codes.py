"""How a run over several hubs ends."""

from __future__ import annotations

import pytest
from runs import BOTH
from runs import make_differing
from runs import ran
from runs import run


def test_an_error_during_collection_interrupts_the_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_broken="import nowhere_at_all", test_good="def test_x(): pass")
    result = run(pytester, BOTH)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(
        [
            "*ERROR collecting test_broken.py[[]epolls]*",
            "*nowhere_at_all*",
            "the run under epolls is incomplete (errors during collection) and not compared",
            "ERROR test_broken.py[[]epolls]*",
            "ERROR test_broken.py[[]asyncio]*",
            "*Interrupted: 2 errors during collection*",
        ]
    )
    result.assert_outcomes(errors=2)
    assert run(pytester, BOTH, "test_broken.py[asyncio]").parseoutcomes() == {"errors": 1}
    going_on = run(pytester, BOTH, "--continue-on-collection-errors")
    going_on.assert_outcomes(errors=2, passed=2)
    assert going_on.ret == pytest.ExitCode.TESTS_FAILED
    pytester.makepyfile(test_broken="def test_mended(): pass")
    run(pytester, BOTH, "--lf").assert_outcomes(passed=2)


def test_a_hook_of_the_conftest_that_raises_is_an_internal_error(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        def pytest_runtest_protocol(item):
            if "test_c[asyncio]" in item.nodeid:
                raise LookupError("in a hook")
        """
    )
    make_differing(pytester)
    result = run(pytester, BOTH)
    assert result.ret == pytest.ExitCode.INTERNAL_ERROR
    result.stdout.fnmatch_lines(["INTERNALERROR>*LookupError: in a hook"])


def test_what_cannot_be_found_is_a_usage_error(pytester: pytest.Pytester) -> None:
    make_differing(pytester)
    for wrong in ("nowhere.py", "test_x.py::test_nothing"):
        result = run(pytester, BOTH, wrong)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([f"ERROR: *not found:*{wrong}"])
        result.stdout.no_fnmatch_line("*incomplete*")
    result = run(pytester, BOTH, "--no-such-option")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unrecognized arguments: --no-such-option"])


@pytest.mark.parametrize("workers", ["-n2", "--dist=load --tx=2*popen"])
def test_a_debugger_in_workers_is_refused_as_pytest_xdist_does_it(
    pytester: pytest.Pytester, workers: str
) -> None:
    make_differing(pytester)
    by_hand = run(pytester, "--pdb", *workers.split())
    result = run(pytester, BOTH, "--pdb", *workers.split())
    assert "--pdb is incompatible" in result.stderr.str()
    assert (result.ret, result.errlines) == (by_hand.ret, by_hand.errlines)
    assert result.outlines == []


def test_no_tests_at_all_have_their_own_exit_code(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="")
    assert run(pytester, BOTH).ret == pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.mark.fault("exit-in-run")
def test_pytest_exit_in_a_test_ends_the_run_with_its_code(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        def test_a(): pass
        def test_b(): pytest.exit("enough", returncode=7)
        def test_c(): pass
        """
    )
    result = run(pytester, BOTH, "-v")
    assert result.ret == 7
    assert ran(result) == ["test_a[epolls]"]
    result.stdout.fnmatch_lines(["*Exit: enough*"])
    pytester.makeconftest(
        """
        import pytest

        def pytest_runtest_setup(item):
            if item.name == "test_a[asyncio]":
                item.session.shouldstop = "the conftest says so"
        """
    )
    pytester.makepyfile(test_x="def test_a(): pass\ndef test_b(): pass")
    result = run(pytester, BOTH, "-v")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert ran(result) == ["test_a[epolls]", "test_b[epolls]", "test_a[asyncio]"]
    result.stdout.fnmatch_lines(["*Interrupted: the conftest says so*"])


@pytest.mark.fault("exit-in-run")
def test_a_test_that_raises_keyboardinterrupt_interrupts_the_run_where_it_stands(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x="def test_a():\n    raise KeyboardInterrupt")
    result = run(pytester, BOTH)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    result.stdout.fnmatch_lines(["*! KeyboardInterrupt !*", "*test_x.py:2: KeyboardInterrupt"])
