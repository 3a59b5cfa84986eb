"""The command that prints findings, of one test or of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_eventlet_debug import cli
from pytest_eventlet_debug.artifact_names import FINDINGS_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_names import TEST_FILE
from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.artifacts import open_run
from pytest_eventlet_debug.artifacts import open_test
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding

STORM = Finding(
    "storm",
    "accept4(-1) = -1 EBADF x 12,267 in 0.29 s",
    (Evidence("accept4(-1) = -1 EBADF", "strace.txt", 660),),
    certainty="cut trace",
    nodeid="test_x.py::test_spins[asyncio]",
    hub="asyncio",
)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the directory of a run of two traced tests, one of which spins."""
    open_run(tmp_path, RunRecord(format=FORMAT, run="1"))
    for nodeid, findings in ((STORM.nodeid, [STORM]), ("test_x.py::test_rests[asyncio]", [])):
        test = open_test(tmp_path, nodeid, "asyncio")
        test.save()
        findings_file.write(test.directory, findings_file.found(findings))
    return tmp_path


def test_a_finding_is_printed_with_its_test_its_place_and_what_shows_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["findings", str(run)]) == 0
    (directory,) = run.glob("*spins*")
    whole = [
        f"{STORM.nodeid} ({directory})",
        "  storm: accept4(-1) = -1 EBADF x 12,267 in 0.29 s (cut trace), strace.txt line 660",
        "    strace.txt:660: accept4(-1) = -1 EBADF",
    ]
    assert capsys.readouterr().out.splitlines() == whole
    assert cli.main(["findings", str(directory)]) == 0
    assert capsys.readouterr().out.splitlines() == whole


def test_the_directory_of_a_run_has_the_name_that_the_plugin_gives_it_by_default(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.parent / "eventlet-debug").symlink_to(run)
    monkeypatch.chdir(run.parent)
    assert cli.main(["findings"]) == 0
    assert STORM.title in capsys.readouterr().out


def test_findings_are_printed_as_json(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["findings", str(run), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["kind"] == "storm"
    assert found["nodeid"] == STORM.nodeid
    assert found["evidence"] == [
        {"text": "accept4(-1) = -1 EBADF", "file": "strace.txt", "line": 660}
    ]


def test_tests_without_findings_are_counted(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory,) = run.glob("*rests*")
    assert cli.main(["findings", str(directory)]) == 0
    assert capsys.readouterr().out == "nothing was found in the traces of 1 test\n"
    assert cli.main(["findings", str(directory), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_what_could_not_be_read_is_said(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (directory,) = run.glob("*rests*")
    findings_file.write(directory, findings_file.found([], ["strace.txt: Permission denied"]))
    cli.main(["findings", str(directory)])
    assert "not read whole: strace.txt: Permission denied" in capsys.readouterr().out


def test_findings_that_are_damaged_are_looked_for_in_the_trace(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory,) = run.glob("*spins*")
    (directory / FINDINGS_FILE).write_text('{"a":')
    (directory / STRACE_FILE).write_bytes(marks.left_out(2_000_000))
    assert cli.main(["findings", str(directory)]) == 0
    assert "long trace: 2.0 MB in the middle" in capsys.readouterr().out


def test_where_no_test_has_a_trace_that_is_said(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in run.glob(f"*/{FINDINGS_FILE}"):
        path.unlink()
    assert cli.main(["findings", str(run)]) == 0
    assert capsys.readouterr().out == "no trace in 2 tests; record with --strace\n"


@pytest.mark.parametrize("command", ["findings", "timeline"])
def test_a_run_of_which_no_test_can_be_read_is_a_usage_error(
    run: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for path in run.glob(f"*/{TEST_FILE}"):
        path.write_text('{"a":')
    assert cli.main([command, str(run)]) == 2
    assert f"{run} holds the recordings of no test" in capsys.readouterr().err


def test_a_directory_of_something_else_is_a_usage_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["findings", str(tmp_path)]) == 2
    assert f"{tmp_path} holds neither run.json nor a recording" in capsys.readouterr().err
