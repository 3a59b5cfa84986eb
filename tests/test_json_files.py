"""JSON files: written whole, read with a bound, checked by their type."""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys

import msgspec
import pytest

from pytest_eventlet_debug import json_files


class Number(msgspec.Struct):
    n: int


@pytest.mark.fault("write-cut")
def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    json_files.write(path, Number(1))
    # What a full disk does, as far as one process can see.
    program = (
        "import resource, sys; from pathlib import Path\n"
        "from pytest_eventlet_debug import json_files\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "json_files.write(Path(sys.argv[1]), {'long': 'x' * 5000})"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, str(path)], capture_output=True, text=True
    )
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert json_files.read(path, Number) == Number(1)
    assert os.listdir(tmp_path) == ["n.json"]


@pytest.mark.parametrize("text", ["plain", "\udc80 alone", "\U0001f40d"])
def test_any_text_is_read_as_it_was_written(tmp_path: Path, text: str) -> None:
    json_files.write(tmp_path / "x.json", {"text": text})
    assert json_files.read(tmp_path / "x.json", dict[str, str]) == {"text": text}


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"x": ' + b"[" * 9999 + b"]" * 9999 + b"}"]
)
def test_what_is_no_json_is_an_error_of_its_own(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        json_files.decode(raw, Number)
    with pytest.raises(msgspec.DecodeError):
        json_files.decode(raw + b'"\\udc80"', Number)


@pytest.mark.parametrize("raw", [b'{"n": "\xff"}', b'{"\xff": "n"}', b'{"n": "\xff\\udc80"}'])
def test_a_string_that_is_no_utf_8_is_no_json(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        json_files.decode(raw, dict[str, str])


def test_json_of_another_type_is_told_apart() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"Expected `int`, got `str` - at `\$.n`"):
        json_files.decode(b'{"n": "1"}', Number)


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        json_files.read(tmp_path / "fifo", Number)
    with pytest.raises(IsADirectoryError):
        json_files.read(tmp_path, Number)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    with open(path, "wb") as file:
        file.truncate(json_files.MAX_BYTES + 1)  # a hole: it takes no room
    with pytest.raises(OSError, match="File too large"):
        json_files.read(path, Number)
