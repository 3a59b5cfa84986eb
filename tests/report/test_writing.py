"""What a run leaves for its report, and when."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any
import zlib

import pytest

from pytest_eventlet_debug import artifact_names
from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.report import page
from pytest_eventlet_debug.report import results
from pytest_eventlet_debug.report.data import read_run
from pytest_eventlet_debug.report.results import Result

SUITE = """
    import pytest

    runs = []

    def test_passes():
        print("of no interest")

    def test_fails():
        print("told")
        assert False, "broken"

    def test_is_flaky():
        runs.append(1)
        assert len(runs) > 1

    @pytest.mark.skip(reason="not today")
    def test_skips():
        pass
"""


def recorded(pytester: pytest.Pytester, *arguments: str) -> dict[str, Result]:
    """Run the suite, and return its results by test and hub."""
    pytester.makepyfile(SUITE)
    pytester.runpytest("-p", "rerunfailures", "--reruns=1", *arguments)
    found = results.read(pytester.path / "eventlet-debug" / artifact_names.RESULTS_FILE)
    assert found is not None
    return {f"{each.test.partition('::')[2]} {each.hub}": each for each in found.tests}


@pytest.mark.parametrize("hubs", ["poll", "poll,selects"])
def test_results_hold_every_test_and_the_texts_of_those_that_failed(
    pytester: pytest.Pytester, hubs: str
) -> None:
    found = recorded(pytester, f"--eventlet-hub={hubs}", "--cprofile")
    assert len(found) == 4 * len(hubs.split(","))
    failed = found["test_fails poll"]
    assert (failed.outcome, failed.earlier) == ("failed", ("failed",))
    assert failed.reason.startswith("AssertionError: broken")
    assert "assert False" in failed.failure
    assert [(each.title, each.text) for each in failed.sections[:1]] == [
        ("Captured stdout call", "told\n")
    ]
    flaky = found["test_is_flaky poll"]
    assert (flaky.outcome, flaky.earlier, flaky.failure) == ("passed", ("failed",), "")
    assert found["test_skips poll"].reason == "Skipped: not today"
    assert found["test_passes poll"].sections == ()


def test_a_run_names_its_report_at_its_end(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("--cprofile")
    index = pytester.path / "eventlet-debug" / "index.html"
    assert result.stdout.lines.count(f"report: {index}") == 1
    assert "Content-Security-Policy" in index.read_text()


@pytest.mark.parametrize(("size", "scripts"), [(page.DETAILS_SIZE, 1), (1, 3)])
def test_what_is_shown_of_each_test_is_found_in_its_script(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, size: int, scripts: int
) -> None:
    monkeypatch.setattr(page, "DETAILS_SIZE", size)
    pytester.makepyfile("def test_a(): pass\ndef test_b(): pass\ndef test_c(): pass")
    pytester.runpytest_inprocess("--cprofile")
    artifacts = pytester.path / "eventlet-debug"
    tests = data_of(artifacts / "report" / "run.js")["tests"]
    assert len({each["details"]["script"] for each in tests}) == scripts
    for each in tests:
        details = data_of(artifacts / each["details"]["script"])[each["details"]["place"]]
        assert details[0]["nodeid"] == each["id"]
    assert [each["id"][-1] for each in tests] == ["a", "b", "c"]


def data_of(script: Path) -> Any:
    """Return what a script hands over to the page."""
    packed = script.read_text().partition('"')[2].partition('"')[0]
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_run_that_records_nothing_leaves_the_report_before_it_alone(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.runpytest("--cprofile")
    index = pytester.path / "eventlet-debug" / "index.html"
    index.write_text("as it was")
    result = pytester.runpytest("--eventlet-hub=poll")
    assert index.read_text() == "as it was"
    result.stdout.no_fnmatch_line("report: *")


@pytest.mark.fault("report-in-the-way")
def test_a_report_that_cannot_be_written_changes_no_outcome(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): open('eventlet-debug/index.html', 'w').write('mine')")
    result = pytester.runpytest("--cprofile")
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["the report is not written: ReportError: */index.html is another program's; move it *"]
    )


def test_a_summary_needs_nothing_recorded(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    result = pytester.runpytest("--eventlet-hub=poll,selects", "--eventlet-summary=job.md")
    assert result.ret == 0
    assert "| selects | 1 |" in (pytester.path / "job.md").read_text()
    assert not (pytester.path / "eventlet-debug").exists()


def test_where_a_summary_cannot_be_written_that_is_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(): pass")
    pytester.mkdir("job.md")
    result = pytester.runpytest("--eventlet-hub=poll", "--eventlet-summary=job.md")
    assert result.ret == 0
    path = pytester.path / "job.md"
    assert f"the summary is not written: Is a directory: {path}" in result.outlines


def test_a_run_without_results_is_read_from_its_tests(pytester: pytest.Pytester) -> None:
    recorded(pytester, "--eventlet-hub=poll", "--cprofile")
    directory = Path(pytester.path / "eventlet-debug")
    (directory / artifact_names.RESULTS_FILE).unlink()
    run = read_run(directory)
    outcomes = {
        test.partition("::")[2]: row["poll"].result.outcome for test, row in run.cells.items()
    }
    assert outcomes == {"test_passes": "passed", "test_fails": "failed", "test_is_flaky": "passed"}


def test_the_report_of_a_run_that_has_just_ended_takes_its_tests_from_one_file(
    tmp_path: Path,
) -> None:
    artifacts.open_run(tmp_path, RunRecord(format=FORMAT, run="1", hubs=["poll"]))
    test = artifacts.open_test(tmp_path, "test_x.py::test_x", "poll")
    finding = Finding("stall", "it stalls")
    findings_file.write(test.directory, findings_file.found([finding]))
    test.save()
    artifacts.close_run(tmp_path, "1", ended_ns=1, exit_status=0)
    (test.directory / "test.json").unlink()
    assert read_run(tmp_path).cells == {}
    cell = read_run(tmp_path, just_ended=True).cells["test_x.py::test_x"]["poll"]
    assert [each.title for each in cell.findings] == ["it stalls"]


def test_to_write_the_report_takes_the_lock_on_the_artifacts_from_nobody(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest("""
        import subprocess, sys
        from pathlib import Path
        from pytest_eventlet_debug.artifacts import lock_path
        from pytest_eventlet_debug.system import run_lock

        PROGRAM = "import conftest, sys; print('held:', conftest.is_held(), file=sys.stderr)"

        def is_held():
            return run_lock.is_held(lock_path(Path("eventlet-debug")))

        def pytest_unconfigure():
            subprocess.run([sys.executable, "-c", PROGRAM])
    """)
    # A test that does not say how it ended may be one of a run that goes on.
    pytester.makepyfile("""
        from pathlib import Path
        from pytest_eventlet_debug.artifacts import open_test

        def test_it():
            open_test(Path("eventlet-debug"), "test_x.py::test_lost", "poll").announce()
    """)
    result = pytester.runpytest("--cprofile", "--eventlet-summary=job.md")
    assert result.ret == 0
    result.stderr.fnmatch_lines(["held: True"])


def test_results_of_the_run_before_say_nothing_of_one_that_was_killed(
    pytester: pytest.Pytester,
) -> None:
    recorded(pytester, "--eventlet-hub=poll", "--cprofile")
    pytester.makepyfile("""
        import os
        import pathlib
        import time

        def test_it():
            # It is the helper that announces it, in its own time.
            while not any(pathlib.Path("eventlet-debug").glob("*test_it-*/test.json")):
                time.sleep(0.01)
            os._exit(1)
    """)
    pytester.runpytest("--eventlet-hub=poll", "--cprofile")
    run = read_run(pytester.path / "eventlet-debug")
    assert [test.partition("::")[2] for test in run.cells] == ["test_it"]


def test_a_module_that_cannot_be_imported_stands_in_the_place_of_its_tests(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        test_good="def test_it(): pass",
        test_broken="""
            from eventlet.hubs import get_hub
            assert "selects" not in type(get_hub()).__module__, "not here"
            def test_that_is_not_reached(): pass
        """,
    )
    pytester.runpytest("--eventlet-hub=poll,selects", "--cprofile")
    row = read_run(pytester.path / "eventlet-debug").cells["test_broken.py"]
    assert list(row) == ["selects"]
    assert row["selects"].result.outcome == "error"
    assert row["selects"].result.reason == "AssertionError: not here"
