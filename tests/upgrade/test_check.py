"""Saving a run and comparing one with it, in whole runs of pytest."""

from __future__ import annotations

import json
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import Any

import pytest

from pytest_eventlet_debug.cli import main
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedTest
from pytest_eventlet_debug.upgrade.saved_run import read

BOTH = "--eventlet-hub=epolls,asyncio"
ALL_KINDS = """
    import pytest, time, unittest

    def test_passes(): time.sleep(0.05)
    def test_fails(): assert 0, "no"
    @pytest.mark.skip(reason="not today")
    def test_skipped(): pass
    @pytest.mark.xfail(strict=True)
    def test_xfailed(): assert 0
    @pytest.mark.xfail(strict=False)
    def test_xpassed(): pass
    @pytest.fixture
    def broken(): raise OSError("setup")
    def test_errors(broken): pass
    class TestUnit(unittest.TestCase):
        def test_subtests(self):
            for n in range(2):
                with self.subTest(n=n):
                    self.assertEqual(n, 0)
"""
OUTCOMES = {
    "test_passes": "passed",
    "test_fails": "failed",
    "test_skipped": "skipped",
    "test_xfailed": "xfailed",
    "test_xpassed": "xpassed",
    "test_errors": "error",
    "TestUnit::test_subtests": "failed",
}


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTLET_HUB", raising=False)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # modules change within a second
    # Loading every plugin there is takes most of the time of a run.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    plugins = "pytest_eventlet_debug.plugin,xdist.plugin"
    monkeypatch.setenv("PYTEST_PLUGINS", plugins)


def save(pytester: pytest.Pytester, *arguments: str, name: str = "run.json") -> SavedRun:
    pytester.runpytest(f"--eventlet-save={name}", *arguments)
    return read(pytester.path / name)


def outcomes(run: SavedRun) -> dict[tuple[str, str], str]:
    return {(each.test.partition("::")[2], each.hub): each.outcome for each in run.tests}


def verdict(result: pytest.RunResult) -> list[str]:
    """Return the lines of the section with the verdict."""
    lines = result.outlines
    (start,) = [n for n, line in enumerate(lines) if " eventlet upgrade " in line]
    rest = lines[start + 1 :]
    end = next(n for n, line in enumerate(rest) if line.startswith("="))
    return rest[:end]


def usage_error(result: pytest.RunResult) -> str:
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "passed" not in result.stdout.str()
    (line,) = [line for line in result.errlines if line.strip()]
    return line


@pytest.fixture
def package(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A distribution, ``frob`` 1.0, installed where the tests find it."""
    site = pytester.path / "site-packages"
    (site / "frob").mkdir(parents=True)
    (site / "frob" / "__init__.py").write_text("def frob(n): return n\n")
    info = site / "Frob-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Frob\nVersion: 1.0\n")
    (info / "RECORD").write_text("frob/__init__.py,,\n")
    pytester.makeini("[pytest]\naddopts = -p no:cacheprovider\n")
    monkeypatch.setenv("PYTHONPATH", str(site))
    return site


def upgrade(site: Path, code: str) -> None:
    (site / "frob" / "__init__.py").write_text(code)
    metadata = site / "Frob-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.0", "2.0rc1"))


def test_a_saved_run_has_every_outcome_and_what_it_ran_on(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_kinds=ALL_KINDS)
    run = save(pytester, "-q")
    assert outcomes(run) == {(name, "epolls"): each for name, each in OUTCOMES.items()}
    assert run.incomplete is None
    assert run.exit_status == 1
    assert {"--eventlet-save=run.json", "-q"} <= set(run.command)
    assert run.hubs == ("epolls",)
    assert run.python.endswith(".".join(map(str, sys.version_info[:3])))
    assert run.distributions["pytest"].version == pytest.__version__
    assert run.distributions["dnspython"].packages == ("dns",)
    by_name = {each.test.rpartition("::")[2]: each for each in run.tests}
    assert 0.05 <= by_name["test_passes"].seconds < run.seconds
    assert {name for name, each in by_name.items() if each.failure} == {
        "test_fails",
        "test_skipped",
        "test_errors",
        "test_subtests",
    }
    fails = by_name["test_fails"].failure
    assert fails is not None
    assert fails.message.startswith("AssertionError: no")


@pytest.mark.parametrize("arguments", [["--eventlet-jobs=2"], ["-n1"]])
def test_several_hubs_are_one_saved_run(pytester: pytest.Pytester, arguments: list[str]) -> None:
    pytester.makepyfile(test_kinds=ALL_KINDS)
    run = save(pytester, BOTH, *arguments)
    assert run.hubs == ("epolls", "asyncio")
    assert outcomes(run) == {
        (name, hub): each for name, each in OUTCOMES.items() for hub in run.hubs
    }
    assert run.incomplete is None


def test_a_module_that_is_skipped_on_one_hub_is_saved_as_skipped_there(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import os
        import pytest

        if os.environ["EVENTLET_HUB"] == "asyncio":
            pytest.skip("not on asyncio", allow_module_level=True)

        def test_a(): pass
        """
    )
    run = save(pytester, "--eventlet-hub=epolls,asyncio")
    assert [(each.hub, each.outcome) for each in run.uncollected] == [("asyncio", "skipped")]


def test_workers_of_xdist_are_one_saved_run(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_kinds=ALL_KINDS)
    run = save(pytester, "-n2")
    assert outcomes(run) == {(name, "epolls"): each for name, each in OUTCOMES.items()}
    assert run.incomplete is None


@pytest.mark.parametrize("style", ["long", "native", "no"])
def test_the_distributions_in_a_traceback_are_saved_in_any_style(
    pytester: pytest.Pytester, package: Path, style: str
) -> None:
    (package / "frob" / "__init__.py").write_text("def frob(n): raise OSError(n)\n")
    pytester.makepyfile(test_x="import frob\ndef test_x(): frob.frob(3)\n")
    (test,) = save(pytester, f"--tb={style}").tests
    assert test.failure is not None
    assert test.failure.message == "OSError: 3"
    assert test.failure.distributions == ("frob",)


def test_retries_are_kept_as_attempts(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        tries = []
        def test_third():
            tries.append(1)
            assert len(tries) == 3
        """
    )
    (test,) = save(pytester, "-p", "rerunfailures", "--reruns=3").tests
    assert test.outcome == "passed"
    assert test.attempts == ("failed", "failed", "passed")
    assert test.failure is None


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["-x"], "stopping after 1 failures"),
        (["-x", BOTH], "stopping after 1 failures"),
        (["-x", "-n1"], "stopping after 1 failures"),
        (["--lf"], "--last-failed"),
    ],
)
def test_a_run_that_was_cut_short_says_why(
    pytester: pytest.Pytester, arguments: list[str], reason: str
) -> None:
    pytester.makepyfile(test_x="def test_a(): assert 0\n" + "def test_b(): pass\n" * 3)
    assert save(pytester, *arguments).incomplete == reason


@pytest.mark.parametrize("arguments", [[], [BOTH]])
def test_a_run_that_is_interrupted_is_saved_and_says_so(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    pytester.makepyfile(
        """
        import os, signal, time
        # Where the tests run in the background of a shell, SIGINT is ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def test_first(): pass
        def test_second():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
        def test_third(): pass
        """
    )
    run = save(pytester, *arguments)
    assert run.exit_status == pytest.ExitCode.INTERRUPTED
    assert run.incomplete
    assert "KeyboardInterrupt" in run.incomplete
    assert outcomes(run) == {("test_first", "epolls"): "passed"}


@pytest.mark.fault("save-interrupted")
def test_ctrl_c_from_outside_leaves_a_whole_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pathlib, signal, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        def test_first(): pass
        def test_second():
            pathlib.Path("there").touch()
            time.sleep(30)
        """
    )
    command = [sys.executable, "-m", "pytest", "--eventlet-save=run.json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    while not (pytester.path / "there").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert read(pytester.path / "run.json").incomplete == "KeyboardInterrupt"


def test_a_test_that_crashes_is_saved_as_crashed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("import os\ndef test_a(): os._exit(3)\ndef test_b(): pass")
    run = save(pytester, BOTH)
    assert {outcome for (name, _), outcome in outcomes(run).items() if name == "test_a"} == {
        "crashed"
    }
    assert run.incomplete is None


def test_the_verdict_names_the_upgrade_that_broke_a_test(
    pytester: pytest.Pytester, package: Path
) -> None:
    pytester.makepyfile(
        test_x="""
        import frob
        def test_frob(): assert frob.frob(3) == 3
        def test_known(): assert 0
        def test_fine(): pass
        """
    )
    save(pytester)
    upgrade(package, "def frob(n): raise OSError(n)\n")
    result = pytester.runpytest("--eventlet-compare=run.json", "--cprofile")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    lines = verdict(result)
    results = json.loads(Path("eventlet-debug/results.json").read_bytes())
    assert results["upgrade"] == lines
    assert lines[0] == "got worse: 1 regression"
    assert lines[1].endswith("3 tests compared, 1 as before, 1 regression, 1 still failing")
    assert lines[2:] == [
        "regressions, passed before:",
        "  test_x.py::test_frob (epolls)   passed -> failed",
        "    OSError: 3",
        "still failing:",
        "  test_x.py::test_known (epolls)   failed",
        "changed distributions, most likely cause first:",
        "  frob  1.0 -> 2.0rc1   appears in 1 failure",
    ]


def test_the_verdict_names_what_changed_as_the_command_line_takes_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    below = pytester.mkdir("below")
    (below / "test_x.py").write_text("import time\ndef test_fails(): pass\ndef test_slow(): pass\n")
    (below / "test_y.py").write_text("def test_gone(): pass\n")
    monkeypatch.chdir(below)
    pytester.runpytest("--eventlet-save=run.json")
    (below / "test_x.py").write_text(
        "import time\ndef test_fails(): assert 0\ndef test_slow(): time.sleep(0.6)\n"
    )
    (below / "test_y.py").write_text("1 / 0\n")
    result = pytester.runpytest("--eventlet-compare=run.json", "--continue-on-collection-errors")
    told = [line.split()[0] for line in verdict(result) if "(epolls)" in line]
    assert told == ["test_y.py", "test_x.py::test_slow", "test_x.py::test_fails"]


@pytest.mark.parametrize("arguments", [[BOTH], ["--continue-on-collection-errors"]])
def test_a_module_that_does_not_import_any_more_is_named_with_the_culprit(
    pytester: pytest.Pytester, package: Path, arguments: list[str]
) -> None:
    pytester.makepyfile(
        test_a="def test_a(): pass",
        test_b="from frob import frob\ndef test_b(): pass\ndef test_c(): assert 0",
    )
    save(pytester, *arguments)
    upgrade(package, "")
    lines = verdict(pytester.runpytest("--eventlet-compare=run.json", *arguments))
    hubs = "epolls, asyncio" if BOTH in arguments else "epolls"
    gone, passed = ("4 tests", 2) if BOTH in arguments else ("2 tests", 1)
    where = f"test_b.py ({hubs}) can no longer be imported: {gone} gone, {passed} passed before"
    assert where in lines
    error = lines[lines.index(where) + 1]
    assert error.startswith("  ImportError: cannot import name 'frob' from 'frob'")
    assert error.endswith("   (from frob)")
    assert lines[0].startswith("got worse: 1 module can no longer be imported")


@pytest.mark.parametrize("arguments", [["-n1"], [BOTH]])
def test_a_test_that_fails_now_and_then_is_flaky_where_it_is_run_again(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    pytester.makepyfile(
        test_x="""
        import os, pathlib
        def test_moody():
            flag = pathlib.Path("flag")
            if "WORSE" in os.environ and not flag.exists():
                flag.touch()
                assert 0
        def test_worse():
            with open("log", "a") as log: print("ran", file=log)
            assert "WORSE" not in os.environ
        def test_fine():
            with open("fine", "a") as log: print("ran", file=log)
        """
    )
    save(pytester, *arguments)
    monkeypatch.setenv("WORSE", "1")
    for log in ("log", "fine"):
        (pytester.path / log).unlink()
    result = pytester.runpytest(
        "--eventlet-compare=run.json",
        "--eventlet-compare-reruns=2",
        "--eventlet-save=new.json",
        *arguments,
    )
    lines = verdict(result)
    hubs = 2 if BOTH in arguments else 1
    fail = "1 test fails" if hubs == 1 else f"{hubs} tests fail"
    assert lines[0] == f"got worse: {fail} now, though nothing changed"
    flaky = lines.index("flaky, their attempts end differently:")
    assert lines[flaky + 1] == "  test_x.py::test_moody (epolls)   passed -> failed"
    assert (pytester.path / "log").read_text().count("ran") == 3 * hubs
    assert (pytester.path / "fine").read_text().count("ran") == hubs
    attempts = {
        each.test.rpartition("::")[2]: each.attempts
        for each in read(pytester.path / "new.json").tests
        if each.hub == "epolls"
    }
    assert attempts == {
        "test_moody": ("failed", "passed", "passed"),
        "test_worse": ("failed", "failed", "failed"),
        "test_fine": ("passed",),
    }
    # What runs again is not in the report.
    result.assert_outcomes(failed=hubs + 1, passed=2 * hubs - 1)


@pytest.mark.parametrize(
    ("worse", "arguments", "end"),
    [
        ("os._exit(1)", [], "crashed"),
        ("time.sleep(600)", ["--eventlet-timeout=5"], "hung"),
    ],
)
def test_a_test_that_ends_or_hangs_its_process_when_run_again_is_as_bad(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    worse: str,
    arguments: list[str],
    end: str,
) -> None:
    pytester.makepyfile(
        test_x=f"""
        import os, pathlib, time
        def test_x():
            if "WORSE" in os.environ:
                if pathlib.Path("flag").exists():
                    {worse}
                pathlib.Path("flag").touch()
                assert 0
        """
    )
    save(pytester)
    monkeypatch.setenv("WORSE", "1")
    compare = ["--eventlet-compare=run.json", "--eventlet-compare-reruns=1"]
    (test,) = save(pytester, *compare, *arguments, name="new.json").tests
    assert test.attempts == ("failed", end)


def test_a_test_that_is_slower_by_chance_is_not_slower_when_run_again(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        test_x="""
        import os, pathlib, time
        def test_once():
            flag = pathlib.Path("flag")
            if "WORSE" in os.environ and not flag.exists():
                flag.touch()
                time.sleep(0.8)
        def test_always():
            time.sleep(0.8 if "WORSE" in os.environ else 0)
        """
    )
    save(pytester)
    monkeypatch.setenv("WORSE", "1")
    result = pytester.runpytest("--eventlet-compare=run.json", "--eventlet-compare-reruns=1")
    lines = verdict(result)
    assert result.ret == pytest.ExitCode.OK
    assert lines[0] == "no regression, but 1 slower"
    assert [line.split()[0] for line in lines if " s -> " in line] == ["test_x.py::test_always"]


@pytest.mark.parametrize(
    ("before", "status"), [("assert 0", pytest.ExitCode.OK), ("pass", pytest.ExitCode.TESTS_FAILED)]
)
def test_compare_fail_lets_only_regressions_fail_the_run(
    pytester: pytest.Pytester, before: str, status: pytest.ExitCode
) -> None:
    pytester.makepyfile(test_x=f"def test_x(): {before}\ndef test_y(): pass")
    save(pytester)
    pytester.makepyfile(test_x="def test_x(): assert 0\ndef test_y(): pass")
    result = pytester.runpytest("--eventlet-compare=run.json", "--eventlet-compare-fail")
    assert result.ret == status
    note = "exit status 0: with --eventlet-compare-fail only regressions count"
    assert (note in verdict(result)) == (status == pytest.ExitCode.OK)


def test_a_run_that_stopped_early_is_not_absolved(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_x(): assert 0\ndef test_y(): pass")
    save(pytester)
    result = pytester.runpytest("-x", "--eventlet-compare=run.json", "--eventlet-compare-fail")
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_part_of_a_suite_is_compared_with_the_whole(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_a="def test_x(): pass\ndef test_y(): pass", test_b="def test_z(): pass"
    )
    save(pytester)
    lines = verdict(pytester.runpytest("test_a.py", "-k", "x", "--eventlet-compare=run.json"))
    assert lines[0] == "no regression, but 2 not run"
    assert not any(line.startswith("gone") for line in lines)


def test_one_file_may_be_compared_with_and_saved_to(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_x(): pass")
    save(pytester)
    pytester.makepyfile(test_x="def test_x(): assert 0")
    both = ["--eventlet-save=run.json", "--eventlet-compare=run.json"]
    assert verdict(pytester.runpytest(*both))[0] == (
        "got worse: 1 test fails now, though nothing changed"
    )
    assert verdict(pytester.runpytest(*both))[0] == "nothing got worse in these tests"


def test_the_ini_file_can_name_the_files_from_the_root(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\neventlet_save = saved/run.json\n")
    folder = pytester.mkdir("below")
    (folder / "test_x.py").write_text("def test_x(): pass")
    pytester.chdir()
    subprocess.run([sys.executable, "-m", "pytest", "-q"], cwd=folder, check=True)
    assert len(read(pytester.path / "saved" / "run.json").tests) == 1


TEXT = "def test_x(): pass\n"
SAVED: dict[str, Any] = {
    **SavedRun(
        suite="suite",
        command=(),
        started_ns=0,
        seconds=1.0,
        exit_status=0,
        incomplete=None,
        hubs=("epolls",),
        python="",
        platform="",
        distributions={},
        selection=(".",),
        deselected=(),
        tests=(SavedTest("test_x.py::test_x", "epolls", "passed", 0.0, ("passed",)),),
        uncollected=(),
    ).as_json()
}


@pytest.mark.fault("compare-damaged")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no file"),
        (json.dumps(SAVED)[:-40], "is truncated or not JSON"),
        (json.dumps({**SAVED, "schema": 2}), "has schema 2"),
        (
            json.dumps({**SAVED, "tests": 3}),
            "is damaged (Expected `array`, got `int` - at `$.tests`)",
        ),
        ('{"format": "pytest-eventlet-debug"}', "is not a run saved with"),
        (json.dumps(SAVED).replace("test_x.py", "other.py"), "was saved from a different suite"),
        (json.dumps({**SAVED, "hubs": ["kqueue"]}), "was saved under the hubs kqueue"),
    ],
)
def test_a_file_that_cannot_be_compared_is_one_line_before_anything_is_collected(
    pytester: pytest.Pytester, text: str | None, words: str
) -> None:
    pytester.makepyfile(test_x="raise SystemError('collected')")
    if text is not None:
        (pytester.path / "run.json").write_text(text)
    result = pytester.runpytest("--eventlet-compare=run.json")
    assert "collected" not in result.stdout.str()
    line = usage_error(result)
    assert line.startswith("ERROR: ")
    assert words in line
    assert "run.json" in line


@pytest.mark.parametrize("arguments", [[], [BOTH], ["-n1"]])
def test_a_suite_that_has_other_tests_in_files_of_those_names_is_another_one(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    pytester.makepyfile(test_x="def test_other(): pass")
    (pytester.path / "run.json").write_text(json.dumps(SAVED))
    line = usage_error(pytester.runpytest("--eventlet-compare=run.json", *arguments))
    assert "was saved from a different suite (suite): none of the tests here is in it" in line


def test_the_same_suite_is_compared(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x=TEXT)
    (pytester.path / "run.json").write_text(json.dumps(SAVED))
    lines = verdict(pytester.runpytest("--eventlet-compare=run.json"))
    assert lines[0] == "nothing got worse in these tests"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--eventlet-save=.", "-q"], "it is a directory"),
        (["--eventlet-save=test_x.py/run.json"], "cannot save the run to"),
        (
            ["--eventlet-save=x", "--eventlet-compare-fail"],
            "--eventlet-compare-fail requires --eventlet-compare=FILE",
        ),
        (
            ["--eventlet-save=x", "--eventlet-compare-reruns=-1"],
            "'-1' is not valid; use a whole number",
        ),
    ],
)
def test_options_that_cannot_work_are_refused_before_the_tests_run(
    pytester: pytest.Pytester, arguments: list[str], words: str
) -> None:
    pytester.makepyfile(test_x=TEXT)
    assert words in usage_error(pytester.runpytest(*arguments))


def test_an_ini_file_may_ask_for_compare_fail_although_not_every_run_compares(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=TEXT)
    pytester.makeini("[pytest]\neventlet_compare_fail = true")
    result = pytester.runpytest("--eventlet-save=run.json")
    assert f"saved to {pytester.path / 'run.json'}" in result.outlines


def test_a_run_that_only_collects_saves_and_compares_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x=TEXT)
    save(pytester)
    before = (pytester.path / "run.json").read_text()
    result = pytester.runpytest(
        "--collect-only", "--eventlet-save=run.json", "--eventlet-compare=run.json"
    )
    assert result.ret == pytest.ExitCode.OK
    assert (pytester.path / "run.json").read_text() == before
    assert "eventlet upgrade" not in result.stdout.str()


def test_saving_alone_adds_one_line_to_the_summary(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x=TEXT)
    result = pytester.runpytest("--eventlet-save=run.json")
    assert "eventlet upgrade" not in result.stdout.str()
    assert f"saved to {pytester.path / 'run.json'}" in result.outlines


@pytest.fixture
def two_runs(pytester: pytest.Pytester, package: Path) -> tuple[str, str]:
    """Two saved runs; the second one is worse."""
    pytester.makepyfile(test_x="import frob\ndef test_x(): frob.frob(3)\ndef test_y(): pass")
    save(pytester, name="old.json")
    upgrade(package, "def frob(n): raise OSError(n)\n")
    save(pytester, name="new.json")
    return str(pytester.path / "old.json"), str(pytester.path / "new.json")


def test_two_files_are_compared_without_pytest(
    two_runs: tuple[str, str], pytester: pytest.Pytester
) -> None:
    command = ["-X", "importtime", "-m", "pytest_eventlet_debug.cli", "compare", *two_runs]
    result = pytester.run(sys.executable, *command)
    assert result.ret == 1
    assert result.outlines[0] == "got worse: 1 regression"
    assert "  frob  1.0 -> 2.0rc1   appears in 1 failure" in result.outlines
    imported = {line.rpartition("|")[2].strip() for line in result.errlines}
    assert imported.isdisjoint({"pytest", "eventlet", "psutil"})


def test_two_files_are_compared_as_json(
    two_runs: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--json", *two_runs]) == 1
    data = json.loads(capsys.readouterr().out)
    assert data["worse"] is True
    assert [change["kind"] for change in data["changes"]] == ["regression"]
    assert data["upgrades"][0]["name"] == "frob"


def test_a_comparison_without_regressions_ends_well(
    two_runs: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = two_runs
    assert main(["compare", new, old]) == 0
    assert capsys.readouterr().out.startswith("nothing got worse in these tests\n")


def test_a_file_that_cannot_be_compared_is_one_line_of_the_command(
    two_runs: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", two_runs[0], "nowhere.json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "pytest-eventlet-debug: there is no file nowhere.json; "
        "save a run with --eventlet-save=nowhere.json\n"
    )


def test_a_reader_that_has_seen_enough_gets_no_traceback(two_runs: tuple[str, str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "pytest_eventlet_debug.cli", "compare", *two_runs]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (1, b"")
