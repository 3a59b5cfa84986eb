"""The file of a saved run: what is written is read back, and nothing else is taken for one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_eventlet_debug.upgrade import saved_run
from pytest_eventlet_debug.upgrade.saved_run import Distribution
from pytest_eventlet_debug.upgrade.saved_run import Failure
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError
from pytest_eventlet_debug.upgrade.saved_run import SavedTest
from pytest_eventlet_debug.upgrade.saved_run import Uncollected
from pytest_eventlet_debug.upgrade.saved_run import read

FAILURE = Failure("AssertionError: ä", ("dnspython", "eventlet"), ("dns.resolver",))
RUN = SavedRun(
    suite="eventlet",
    command=("-q", "tests"),
    started_ns=1_800_000_000_000_000_000,
    seconds=75.5,
    exit_status=1,
    incomplete="stopping after 1 failures",
    hubs=("epolls", "asyncio"),
    python="CPython 3.12.1",
    platform="Linux",
    distributions={"dnspython": Distribution("2.5.0", ("dns",))},
    selection=("tests",),
    deselected=("tests/a.py::skipped",),
    tests=(
        SavedTest("tests/a.py::x", "epolls", "passed", 0.25, ("failed", "passed")),
        SavedTest("tests/a.py::x", "asyncio", "failed", 1, ("failed",), FAILURE),
    ),
    uncollected=(Uncollected("tests/b.py", "epolls", "error", FAILURE),),
)


def write(directory: Path, data: object) -> Path:
    path = directory / "run.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def refused(path: Path) -> str:
    with pytest.raises(SavedRunError) as caught:
        read(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    assert read(write(tmp_path, RUN.as_json())) == RUN


def test_a_draft_that_a_killed_process_of_the_same_id_has_left_is_in_nobodys_way(
    tmp_path: Path,
) -> None:
    (tmp_path / f".run.json.{os.getpid()}").write_text("half")
    saved_run.write(tmp_path / "run.json", RUN)
    assert os.listdir(tmp_path) == ["run.json"]
    assert read(tmp_path / "run.json") == RUN


def test_a_field_that_a_later_release_adds_is_no_harm(tmp_path: Path) -> None:
    assert read(write(tmp_path, {**RUN.as_json(), "weather": "fine"})) == RUN


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    assert "there is no file" in refused(tmp_path / "run.json")


def test_a_directory_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot be read (Is a directory)" in refused(tmp_path)


@pytest.mark.fault("compare-damaged")
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_is_said_to_be_truncated(tmp_path: Path, share: float) -> None:
    text = json.dumps(RUN.as_json())
    path = write(tmp_path, text[: int(len(text) * share)])
    assert "is truncated or not JSON" in refused(path)


def test_bytes_that_are_no_text_are_not_json(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_bytes(b"\xff\xfe\x00\x81")
    assert "is truncated or not JSON" in refused(path)


@pytest.mark.parametrize("data", [[], 1, {}, {"format": "pytest-eventlet-debug", "schema": 1}])
def test_other_json_is_not_a_saved_run(tmp_path: Path, data: object) -> None:
    assert "is not a run saved with --eventlet-save" in refused(write(tmp_path, data))


def test_a_newer_schema_is_named_with_the_one_that_is_known(tmp_path: Path) -> None:
    path = write(tmp_path, {"format": RUN.as_json()["format"], "schema": 2})
    assert "has schema 2 and this pytest-eventlet-debug knows schema 1" in refused(path)


@pytest.mark.parametrize("schema", [0, None, "1", 1.5])
def test_a_schema_that_never_was_is_damage(tmp_path: Path, schema: object) -> None:
    path = write(tmp_path, {**RUN.as_json(), "schema": schema})
    assert "is damaged (schema:" in refused(path)


@pytest.mark.parametrize("field", sorted(RUN.as_json().keys() - {"format", "schema"}))
def test_a_field_that_is_missing_is_named(tmp_path: Path, field: str) -> None:
    data = RUN.as_json()
    del data[field]
    assert f"is damaged (Object missing required field `{field}`)" in refused(write(tmp_path, data))


@pytest.mark.parametrize("field", sorted(RUN.as_json().keys() - {"format", "schema"}))
def test_a_field_of_another_type_is_damage(tmp_path: Path, field: str) -> None:
    data = {**RUN.as_json(), field: True}
    assert "is damaged" in refused(write(tmp_path, data))


@pytest.mark.fault("compare-damaged")
@pytest.mark.parametrize("field", ["started_ns", "seconds"])
@pytest.mark.parametrize("value", [-1, 10**20, 10**400], ids=["negative", "large", "huge"])
def test_a_time_that_no_clock_shows_is_damage(tmp_path: Path, field: str, value: int) -> None:
    data = {**RUN.as_json(), field: value}
    assert "is damaged" in refused(write(tmp_path, data))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("outcome", "fine"),
        ("outcome", ["passed"]),
        ("seconds", "1"),
        ("attempts", ["fine"]),
        ("hub", None),
        ("failure", {"modules": []}),
        ("failure", []),
    ],
)
def test_a_test_that_makes_no_sense_is_damage(tmp_path: Path, field: str, value: object) -> None:
    data: dict[str, Any] = json.loads(json.dumps(RUN.as_json()))
    data["tests"][1][field] = value
    assert "is damaged" in refused(write(tmp_path, data))
