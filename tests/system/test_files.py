"""How a file that is there already is written again."""

from __future__ import annotations

import os
from pathlib import Path
import resource
import stat

import pytest

from pytest_eventlet_debug.system import files


def test_a_short_file_that_gets_longer_stays_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    files.write_new(path, b"{}")
    before = path.stat()
    files.extend(path, b"{1: 2}")
    assert path.read_bytes() == b"{1: 2}"
    assert path.stat().st_ino == before.st_ino
    assert os.listdir(tmp_path) == ["test.json"]


def test_of_a_new_file_that_cannot_be_written_whole_nothing_is_left(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            files.write_new(tmp_path / "test.json", b"{}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []
    files.write_new(tmp_path / "test.json", b"{}")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "test.json", b"{1: 2}")
    assert (tmp_path / "test.json").read_bytes() == b"{}"


@pytest.mark.parametrize("size", [1, 5000])
def test_one_that_gets_shorter_or_long_is_replaced(tmp_path: Path, size: int) -> None:
    path = tmp_path / "test.json"
    files.write_new(path, b"before")
    files.extend(path, b"x" * size)
    assert path.read_bytes() == b"x" * size
    assert os.listdir(tmp_path) == ["test.json"]


def test_a_file_that_is_not_ours_alone_is_replaced_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    for lay in (os.link, os.symlink):
        path = tmp_path / lay.__name__
        lay(tmp_path / "victim", path)
        files.extend(path, b"longer than that")
        assert path.read_bytes() == b"longer than that"
    assert (tmp_path / "victim").read_bytes() == b"precious"
    (tmp_path / "open").write_bytes(b"")
    (tmp_path / "open").chmod(0o644)
    files.extend(tmp_path / "open", b"x")
    assert stat.S_IMODE((tmp_path / "open").stat().st_mode) == files.FILE_MODE
    (tmp_path / "real").mkdir()
    files.write_new(tmp_path / "real" / "test.json", b"{}")
    (tmp_path / "folder").symlink_to("real")
    with pytest.raises(NotADirectoryError):
        files.extend(tmp_path / "folder" / "test.json", b"{1: 2}")
    assert (tmp_path / "real" / "test.json").read_bytes() == b"{}"
    files.extend(tmp_path / "none", b"made")
    assert (tmp_path / "none").read_bytes() == b"made"


def test_a_file_that_nobody_looks_for_yet_is_written_without_a_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "link").symlink_to("victim")
    for name in ("new", "link"):
        files.write_first(tmp_path / name, b"whole")
        assert (tmp_path / name).read_bytes() == b"whole"
        assert (tmp_path / name).lstat().st_mode == stat.S_IFREG | files.FILE_MODE
    assert (tmp_path / "victim").read_bytes() == b"precious"
    before = os.listdir(tmp_path)

    def fail(fd: int, data: object) -> int:
        raise OSError("full")

    monkeypatch.setattr(files.posix, "write", fail)
    with pytest.raises(OSError, match="full"):
        files.write_first(tmp_path / "cut", b"whole")
    assert os.listdir(tmp_path) == before
