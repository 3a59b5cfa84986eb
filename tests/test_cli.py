"""The command as a whole, as a shell starts it."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

import pytest

from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.artifacts import open_run
from pytest_eventlet_debug.artifacts import open_test
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.refusal import USAGE_ERROR


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the directory of a run, of a file and below a folder whose names are no UTF-8."""
    run = tmp_path / os.fsdecode(b"run-\xff")
    open_run(run, RunRecord(format=FORMAT, run="1", hubs=["poll"]))
    test = open_test(run, os.fsdecode(b"test_\xe9.py::test[poll]"), "poll")
    test.save()
    finding = Finding("storm", "accept4(-1) = -1 EBADF", nodeid=test.nodeid, hub="poll")
    findings_file.write(test.directory, findings_file.found([finding]))
    return run


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("command", ["list", "findings", "timeline", "report"])
def test_names_that_are_no_text_are_printed_escaped(run: Path, command: str, encoding: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest_eventlet_debug", command, run],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("\\udce9" if command == "timeline" else "run-\\udcff") in done.stdout


@pytest.mark.parametrize("command", ["list", "findings", "timeline", "report"])
def test_where_the_output_finds_no_room_that_is_one_line(run: Path, command: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pytest_eventlet_debug", command, run],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (done.returncode, done.stderr) == (
        USAGE_ERROR,
        "pytest-eventlet-debug: [Errno 28] No space left on device\n",
    )


@pytest.mark.parametrize("command", [["list"], ["timeline", "--perfetto"]])
def test_a_closed_output_is_no_error(run: Path, command: list[str]) -> None:
    done = subprocess.run(
        [
            "sh",
            "-c",
            '"$@" >&-',
            "sh",
            sys.executable,
            "-m",
            "pytest_eventlet_debug",
            *command,
            run,
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_ctrl_c_while_the_subcommands_are_imported_is_one_line() -> None:
    code = """
import signal, sys
from pytest_eventlet_debug import cli

class CtrlC:
    def find_spec(name, path, target=None):
        if name == "pytest_eventlet_debug.upgrade.commands":
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, CtrlC)
sys.exit(cli.main(["list"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "pytest-eventlet-debug: Ctrl-C\n")
