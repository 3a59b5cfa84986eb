"""Node ids of the command line that exist on some of the hubs only."""

from __future__ import annotations

import pytest
from runs import BOTH
from runs import ran
from runs import run


@pytest.fixture
def on_asyncio_only(pytester: pytest.Pytester) -> None:
    """Make a module that skips itself on epolls, as eventlet's own tests do."""
    pytester.makepyfile(
        test_x="""
        import os
        import pytest

        if os.environ["EVENTLET_HUB"] != "asyncio":
            pytest.skip("only works on asyncio", allow_module_level=True)

        def test_a(): pass
        """,
        test_y="def test_b(): pass",
    )


@pytest.mark.usefixtures("on_asyncio_only")
@pytest.mark.parametrize("workers", [[], ["-n1"]])
def test_an_id_that_one_hub_does_not_have_runs_on_the_others_and_is_said_to_be_absent(
    pytester: pytest.Pytester, workers: list[str]
) -> None:
    result = run(pytester, BOTH, "-v", "test_x.py::test_a", "test_y.py::test_b", *workers)
    assert result.ret == pytest.ExitCode.OK
    assert sorted(ran(result)) == ["test_a[asyncio]", "test_b[asyncio]", "test_b[epolls]"]
    result.stdout.fnmatch_lines(
        [
            "no tests differ between epolls, asyncio; 1 exists on only some of them",
            "  test_x.py   1 test on asyncio only, not on epolls: *",
            "test_x.py::test_a does not exist on epolls: only works on asyncio",
        ]
    )


@pytest.mark.usefixtures("on_asyncio_only")
def test_an_id_that_no_hub_has_is_a_usage_error(pytester: pytest.Pytester) -> None:
    result = run(pytester, BOTH, "test_x.py::test_nothing")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: not found: *test_x.py::test_nothing"])
    result.stdout.no_fnmatch_line("*does not exist on*")


@pytest.mark.usefixtures("on_asyncio_only")
def test_an_absent_id_is_named_as_it_was_asked_for(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    monkeypatch.chdir(pytester.mkdir("below"))
    result = run(pytester, BOTH, "../test_x.py::test_a", "../test_y.py::test_b")
    result.stdout.fnmatch_lines(["../test_x.py::test_a does not exist on epolls: only works *"])


@pytest.mark.usefixtures("on_asyncio_only")
def test_an_id_with_a_hub_that_this_hub_does_not_have_is_a_usage_error(
    pytester: pytest.Pytester,
) -> None:
    result = run(pytester, BOTH, "test_x.py::test_a[epolls]", "test_y.py::test_b")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: not found: *test_x.py::test_a"])
