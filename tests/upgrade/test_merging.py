"""Saved runs of one suite become one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
import subprocess
import sys

import pytest
from test_comparison import DNS_25
from test_comparison import DNS_26
from test_comparison import IMPORT_ERROR
from test_comparison import case
from test_comparison import run

from pytest_eventlet_debug.upgrade import saved_run
from pytest_eventlet_debug.upgrade.comparison import compare
from pytest_eventlet_debug.upgrade.merging import merge
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError
from pytest_eventlet_debug.upgrade.saved_run import Uncollected

A, B = Path("a.json"), Path("b.json")


def test_jobs_of_a_hub_each_become_a_run_of_all_hubs() -> None:
    epolls = run(case("test_x"), started_ns=5_000_000_000, seconds=2.0, deselected=("test_y",))
    asyncio = run(
        case("test_x", "failed", hub="asyncio", failure=IMPORT_ERROR),
        case("test_y", hub="asyncio"),
        started_ns=4_000_000_000,
        exit_status=1,
        incomplete="-x",
        uncollected=(Uncollected("test_z.py", "asyncio", "skipped", IMPORT_ERROR),),
    )
    whole = merge([(A, epolls), (B, asyncio)])
    assert whole.hubs == ("epolls", "asyncio")
    assert {each.key: each.outcome for each in whole.tests} == {
        ("test_x", "epolls"): "passed",
        ("test_x", "asyncio"): "failed",
        ("test_y", "asyncio"): "passed",
    }
    assert (whole.started_ns, whole.seconds, whole.exit_status) == (4_000_000_000, 3.0, 1)
    assert whole.incomplete == "b.json: -x"
    assert whole.deselected == ()  # of one job, and run by the other
    assert whole.uncollected == asyncio.uncollected


def test_a_test_of_several_runs_ends_as_in_the_last_and_keeps_all_attempts() -> None:
    late = run(case("test_x", "failed", 0.2, failure=IMPORT_ERROR), started_ns=2)
    early = run(case("test_x", "passed", 0.1, "failed", "passed"), started_ns=1)
    (test,) = merge([(A, late), (B, early)]).tests
    assert test == dataclasses.replace(late.tests[0], attempts=("failed", "passed", "failed"))
    # Which is what a comparison needs to call it flaky.
    verdict = compare(run(case("test_x")), merge([(A, late), (B, early)]))
    assert [change.kind for change in verdict.changes] == ["flaky"]


def test_a_module_that_a_later_run_has_tests_of_is_collected() -> None:
    nodes = ("tests", "tests/test_x.py", "tests/test_y.py")
    broken = tuple(Uncollected(node, "poll", "error", IMPORT_ERROR) for node in nodes)
    early = run(case("tests/test_z.py::test", hub="poll"), uncollected=broken, started_ns=1)
    late = run(case("tests/test_x.py::T::test[1]", hub="poll"), started_ns=2)

    assert merge([(A, late), (B, early)]).uncollected == broken[2:]
    # It may come to be broken as well.
    mended = dataclasses.replace(late, started_ns=0)
    assert merge([(A, mended), (B, early)]).uncollected == broken


def test_runs_that_do_not_fit_together_are_refused() -> None:
    one = run(case("test_x"), distributions=DNS_25)
    with pytest.raises(
        SavedRunError, match=r"different versions of dnspython: 2\.5\.0 and 2\.6\.0rc1"
    ):
        merge([(A, one), (B, run(case("test_x"), distributions=DNS_26))])
    with pytest.raises(SavedRunError, match="differ in suite: eventlet and other"):
        merge([(A, one), (B, run(case("test_x"), distributions=DNS_25, suite="other"))])
    with pytest.raises(SavedRunError, match="differ in python"):
        merge([(A, one), (B, run(case("test_x"), distributions=DNS_25, python="PyPy 7"))])


def test_the_command_saves_the_whole(tmp_path: Path) -> None:
    paths = [tmp_path / "epolls.json", tmp_path / "asyncio.json"]
    for path in paths:
        saved_run.write(path, run(case("test_x", hub=path.stem)))
    whole = tmp_path / "whole.json"
    command = [sys.executable, "-m", "pytest_eventlet_debug", "merge", *paths, "-o"]
    done = subprocess.run([*command, whole], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"2 tests on epolls, asyncio: {whole}\n")
    assert saved_run.read(whole).hubs == ("epolls", "asyncio")
    other = tmp_path / "other.txt"
    other.write_text("something else")
    refused = subprocess.run([*command, other], capture_output=True, text=True)
    assert (refused.returncode, other.read_text()) == (2, "something else")
    assert refused.stderr.count("\n") == 1
    assert "not a saved run" in refused.stderr
