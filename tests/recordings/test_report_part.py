"""The script with one test's recordings that the report loads."""

from __future__ import annotations

import base64
import json
from pathlib import Path
import re
from typing import Any
import zlib

from pytest_eventlet_debug import artifact_names
from pytest_eventlet_debug.recordings import report_part
from pytest_eventlet_debug.recordings.attribution import Call
from pytest_eventlet_debug.recordings.rows import Row
from pytest_eventlet_debug.recordings.rows import Timeline


def unpack(script: str) -> Any:
    """Return what a script hands to the page."""
    match = re.fullmatch(r'eventletReport\.receive\("([A-Za-z0-9+/=]*)"\);\n', script)
    assert match is not None, "the script is more than one call with base64 in it"
    return json.loads(zlib.decompress(base64.b64decode(match[1])))


def test_a_script_holds_nothing_but_one_call_whatever_the_data_is() -> None:
    hostile = {"</script><script>alert(1)": '");alert(1);//\u2028\udcff'}
    assert unpack(report_part.script(hostile)) == hostile


def test_a_file_that_a_test_wrote_under_that_name_is_no_part(tmp_path: Path) -> None:
    path = tmp_path / artifact_names.PART_FILE
    assert not report_part.is_part(path)
    path.write_text(report_part.script(1))
    assert report_part.is_part(path)
    path.write_text(report_part.script(1) + "alert(1)")
    assert not report_part.is_part(path)


def test_rows_are_stored_by_column_in_microseconds(tmp_path: Path) -> None:
    begin = 1_700_000_000_000_000_000
    cause = Call(17, begin, 100, "sendto", 5, "2:serve")
    rows = [
        Row(begin, "phase", "call: passed", duration_ns=9_000_000, name="call"),
        Row(begin + 2000, "syscall", "read(3) = 0", 100, 100, "2:serve", 1500, 17, "read"),
        Row(
            begin + 5000, "packet", "tcp a -> b", 100, None, "2:serve", None, 1, "tcp", True, cause
        ),
    ]
    report_part.write(tmp_path, Timeline("test_it", rows, ["cut"], left_out=3))
    data = unpack((tmp_path / artifact_names.PART_FILE).read_text())
    assert data["begin"] == str(begin)
    assert (data["leftOut"], data["problems"]) == (3, ["cut"])
    assert [data["kinds"][kind] for kind in data["k"]] == ["phase", "syscall", "packet"]
    assert [data["names"][name] for name in data["n"]] == ["call", "read", "tcp"]
    assert [data["lanes"][lane] for lane in data["l"]] == [
        [None, None],
        [100, "2:serve"],
        [100, "2:serve"],
    ]
    assert (data["t"], data["d"], data["f"]) == ([0, 2, 5], [9000, 1, -1], [0, 0, 1])
    assert (data["i"], data["causes"]) == ([0, 17, 1], {"2": [17, 5, "sendto"]})
    assert data["texts"][1] == "read(3) = 0"


def test_what_a_reader_does_not_ask_for_is_marked_and_an_import_is_one_row(tmp_path: Path) -> None:
    at = "test_x.py:3 in <module> (import)"
    rows = [
        Row(1_000, "syscall", "mmap(NULL, 9) = 0x7f00", 7, 7, None, 1_000, 1, "mmap"),
        Row(
            2_000, "syscall", 'openat(3, "/a/wave.pyc") = 4', 7, 7, None, 1_000, 2, "openat", at=at
        ),
        Row(4_000, "syscall", "read(4) = 0", 7, 7, None, 3_000, 3, "read", at=at),
        Row(9_000, "syscall", "write(1) = 1", 7, 7, None, 1_000, 4, "write"),
    ]
    report_part.write(tmp_path, Timeline("test_it", rows, []))
    data = unpack((tmp_path / artifact_names.PART_FILE).read_text())
    assert data["untold"] == [1, 0, 1, 0]
    assert data["imports"] == {"1": [5, "import of wave: 2 calls at test_x.py:3 in <module>"]}
    assert len(data["texts"]) == 4
    assert data["repeats"] == []


def test_what_repeats_is_marked_from_its_first_row_to_its_last(tmp_path: Path) -> None:
    turn = [("read(4) = 9", "read"), ("mmap(NULL, 9) = 0x7f00", "mmap"), ("write(1) = 1", "write")]
    rows = [
        Row(n * 1_000, "syscall", text, 7, 7, "1:serve", 100, n, name)
        for n, (text, name) in enumerate([("close(3) = 0", "close"), *turn * 1_200], 1)
    ]
    report_part.write(tmp_path, Timeline("test_it", rows, []))
    data = unpack((tmp_path / artifact_names.PART_FILE).read_text())
    assert data["repeats"] == [[1, 3600, 1200, "read, write"]]
