"""A run's files, where no report told how its tests ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_names import RUN_FILE
from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.artifacts import open_test
from pytest_eventlet_debug.report.data import read_run


@pytest.mark.parametrize(
    ("outcomes", "outcome", "reason"),
    [
        ({"setup": "passed", "call": "passed", "teardown": "failed"}, "failed", ""),
        ({"setup": "passed", "call": "crashed"}, "crashed", "the process ended in its call"),
        ({"teardown": "crashed"}, "crashed", "the process ended in the test"),  # who knows where
        ({"call": "interrupted"}, "error", "the run was interrupted in its call"),
        ({}, "crashed", "the test did not end"),
    ],
)
def test_how_a_test_ended_is_read_from_its_recordings(
    tmp_path: Path, outcomes: dict[str, str], outcome: str, reason: str
) -> None:
    json_files.write(tmp_path / RUN_FILE, RunRecord(format=FORMAT, run="1", hubs=["poll"]))
    test = open_test(tmp_path, "test_x.py::test_x", "poll")
    test.outcomes, test.phases = outcomes, {"call": (1, 2)}
    test.save()
    result = read_run(tmp_path).cells["test_x.py::test_x"]["poll"].result
    assert (result.outcome, result.reason) == (outcome, reason)
