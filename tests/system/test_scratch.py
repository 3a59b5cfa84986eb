"""Temporary directories: gone with their owner, or with the next one's."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import tempfile

import pytest

from pytest_eventlet_debug.system.scratch import ScratchDirectory

OWNER = """
import sys
from pytest_eventlet_debug.system.scratch import ScratchDirectory
directory = ScratchDirectory()
(directory.path / "file").touch()
print(directory.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def own_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_it_is_removed_with_what_is_in_it_and_only_once() -> None:
    directory = ScratchDirectory()
    (directory.path / "file").touch()
    directory.remove()
    directory.remove()
    assert not directory.path.exists()


@pytest.mark.fault("run-killed")
def test_that_of_a_process_that_was_killed_is_removed_by_the_next_and_no_other(
    tmp_path: Path,
) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    abandoned = Path(owner.stdout.readline().strip())
    first = ScratchDirectory()
    assert (abandoned / "file").exists()  # its owner lives
    owner.kill()
    owner.communicate()
    (tmp_path / "pytest-eventlet-debug-link").symlink_to(tmp_path)
    second = ScratchDirectory()
    assert not abandoned.exists()
    assert sorted(os.listdir(tmp_path)) == sorted(
        [first.path.name, second.path.name, "pytest-eventlet-debug-link"]
    )
    first.remove()
    second.remove()
