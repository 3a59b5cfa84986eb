"""Findings in a summary."""

from __future__ import annotations

from pytest_eventlet_debug.recordings.findings.text import grouped
from pytest_eventlet_debug.recordings.findings.text import shortened

CLOSED = (
    "closed: accept4(-1) = EBADF by 3:serve at socket.py:294 in accept, from test_x.py:{} in serve"
    ": 14 was closed before by 1:test at socket.py:497 in _real_close, from test_x.py:45 in stop"
)


def test_of_several_places_the_users_own_lines_are_left() -> None:
    assert shortened(CLOSED.format(30)) == (
        "closed: accept4(-1) = EBADF by 3:serve at test_x.py:30 in serve"
        ": 14 was closed before by 1:test at test_x.py:45 in stop"
    )
    storm = "storm: close(3) x 900 at socket.py:2 in close, from test_x.py:30 in serve by 3:serve"
    inner = "Tests.test_x.<locals>.<lambda> at test_x.py:3 in test_x.<locals>.f, run.<locals>.g"
    assert shortened(inner) == "<lambda> at test_x.py:3 in f, run.<locals>.g"
    by_pytest = "held at socket.py:2 in f, from pytest, while at socket.py:3 in g, from pytest"
    assert [shortened(line) for line in (storm, by_pytest)] == [storm, by_pytest]


def test_a_summary_has_three_lines_of_a_test_and_one_of_what_is_alike() -> None:
    lines = [("test_a", CLOSED.format(30)), ("test_b", CLOSED.format(99))]
    lines += [("test_c", f"kind {letter}: {{}}") for letter in "vwxyz"]
    alike, several = grouped(lines)
    assert alike == f"  test_a   and 1 more\n    {shortened(CLOSED.format(30))}"
    assert several.splitlines()[0] == "  test_c"
    assert len(several.splitlines()) == 5
    assert several.endswith("... and 2 more findings")


def test_files_that_the_same_line_of_a_function_leaves_open_are_alike() -> None:
    line = (
        "left open: {0}</tmp/{1}>{2}, which greenthread 1:test got from openat(...) at "
        "tempfile.py:256 in _mkstemp_inner, from test_x.py:{0} in {3}, strace.txt line {0}"
    )
    lines = [
        ("test_a", line.format(12, "one_a8b", "", "write")),
        ("test_b", line.format(15, "other-c", "(deleted)", "write")),
        ("test_c", line.format(12, "one_a8b", "", "read")),
    ]
    assert list(grouped(lines)) == [
        f"  test_a   and 1 more\n    {lines[0][1]}",
        f"  test_c\n    {lines[2][1]}",
    ]
