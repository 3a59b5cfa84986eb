"""The lines about a profile in the summary."""

from __future__ import annotations

import marshal
from pathlib import Path

import pytest

from pytest_eventlet_debug.profiling.heaviest import AWAY
from pytest_eventlet_debug.profiling.heaviest import IDLE
from pytest_eventlet_debug.profiling.heaviest import describe
from pytest_eventlet_debug.profiling.heaviest import lines
from pytest_eventlet_debug.profiling.view import open_only

STATS = {
    ("/a/b/c.py", 3, "slow"): (1, 1200, 3.0, 3.0, {}),
    ("/a/b/c.py", 9, "quick"): (1, 1, 0.5, 5.0, {}),
    ("~", 0, "<built-in method len>"): (1, 1, 1.5, 1.5, {}),
    ("/a/b/c.py", 20, "least"): (1, 1, 0.0, 5.0, {}),
    ("~", 0, IDLE[0]): (9, 9, 5.0, 5.0, {}),
}


def test_three_functions_are_named_and_the_idle_share() -> None:
    assert list(lines(STATS)) == [
        " 30%   3.000 s  slow (b/c.py:3), 1,200 calls",
        " 15%   1.500 s  built-in method len, 1 call",
        "  5%   0.500 s  quick (b/c.py:9), 1 call",
        " 50%   5.000 s  idle",
    ]


def test_waiting_for_other_greenlets_is_no_heavy_function() -> None:
    assert not any("switch" in line for line in lines({("~", 0, AWAY[0]): (1, 1, 9.0, 9.0, {})}))


def test_a_profile_of_no_time_is_no_error() -> None:
    assert list(lines({})) == ["  0%   0.000 s  idle"]


def test_a_file_cut_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "profile.cprof"
    path.write_bytes(marshal.dumps(STATS)[:20])
    (line,) = describe(path)
    assert line.startswith("profile.cprof cannot be read: ")


LONG = """
    import time

    def heavy():
        until = time.perf_counter() + 1.1
        while time.perf_counter() < until:
            pass

    def test_long():
        heavy()

    def test_short():
        pass
"""


def test_the_summary_names_the_functions_of_long_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=LONG)
    result = pytester.runpytest("--cprofile")
    result.stdout.fnmatch_lines(
        ["most time was spent in:", "  test_it.py::test_long", "* s  heavy (*test_it.py:3), 1 call"]
    )
    assert "test_short" not in result.stdout.str()


def test_with_v_it_names_those_of_every_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_short(): sum(range(9))")
    assert "most time" not in pytester.runpytest("--cprofile").stdout.str()
    result = pytester.runpytest("--cprofile", "-v")
    result.stdout.fnmatch_lines(["most time was spent in:", "  test_it.py::test_short"])


@pytest.fixture
def kcachegrind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that notes its argument."""
    folder, noted = tmp_path / "bin", tmp_path / "noted"
    folder.mkdir()
    program = folder / "kcachegrind"
    program.write_text(f"#!/bin/sh\necho $1 >> {noted}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return noted


def test_view_opens_kcachegrind_on_the_one_test_that_was_run(
    pytester: pytest.Pytester, kcachegrind: Path
) -> None:
    pytester.makepyfile(test_it="def test_it(): sum(range(9))")
    result = pytester.runpytest("--cprofile-view")
    assert result.ret == 0
    shown = Path(kcachegrind.read_text().strip())
    assert shown.name == "profile.callgrind"
    result.stdout.fnmatch_lines([f"--cprofile-view: kcachegrind has shown {shown}"])


def test_view_does_not_choose_between_tests(pytester: pytest.Pytester, kcachegrind: Path) -> None:
    pytester.makepyfile("def test_a(): sum(range(9))\ndef test_b(): sum(range(9))")
    result = pytester.runpytest("--cprofile-view")
    result.stdout.fnmatch_lines(["--cprofile-view: one profile can be shown, and there are 2; *"])
    assert not kcachegrind.exists()


def test_view_says_when_there_is_no_kcachegrind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profile.callgrind").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert open_only([tmp_path]).startswith("there is no kcachegrind or qcachegrind on PATH")
