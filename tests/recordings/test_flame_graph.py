"""Flame graphs from what a profile knows: who called whom for how long."""

from __future__ import annotations

import marshal
from pathlib import Path
from typing import Any

from pytest_eventlet_debug.profiling.stats import ALL
from pytest_eventlet_debug.profiling.stats import Function
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.recordings import flame_graph

RUN = ("/suite/test_it.py", 1, "test_it")
SERVE = ("~", 0, "<greenthread serve (suite/test_it.py:5)>")
READ = ("/lib/eventlet/greenio/base.py", 9, "read")
RECV = ("~", 0, "<method 'recv'>")


def edge(seconds: float) -> tuple[int, int, float, float]:
    return 1, 1, 0.0, seconds


def entry(
    own: float, total: float, callers: dict[Function, tuple[int, int, float, float]]
) -> tuple[int, int, float, float, dict[Function, tuple[int, int, float, float]]]:
    return 1, 1, own, total, callers


def shape(frame: dict[str, Any]) -> tuple[str, int, list[Any]]:
    """Return name, microseconds and children of a frame."""
    return frame["name"], frame["value"], [shape(each) for each in frame.get("children", ())]


def test_a_callees_time_is_shared_among_its_callers_as_they_used_it() -> None:
    stats: Stats = {
        ALL: entry(0.0, 5.0, {}),
        RUN: entry(1.0, 4.0, {ALL: edge(4.0)}),
        SERVE: entry(0.0, 1.0, {ALL: edge(1.0)}),
        READ: entry(0.0, 4.0, {RUN: edge(3.0), SERVE: edge(1.0)}),
        RECV: entry(4.0, 4.0, {READ: edge(4.0)}),
    }
    others, serve = flame_graph.build(stats)
    read = "read (eventlet/greenio/base.py:9)"
    assert shape(others) == (
        flame_graph.OTHERS,
        4_000_000,
        [
            (
                "test_it (/suite/test_it.py:1)",
                4_000_000,
                [(read, 3_000_000, [("<method 'recv'>", 3_000_000, [])])],
            )
        ],
    )
    assert shape(serve) == (
        "<greenthread serve (suite/test_it.py:5)>",
        1_000_000,
        [(read, 1_000_000, [("<method 'recv'>", 1_000_000, [])])],
    )


def test_time_in_functions_that_are_left_out_counts_once() -> None:
    # test_it called something that no profile shows, and that called read.
    stats: Stats = {RUN: entry(1.0, 4.0, {}), READ: entry(3.0, 3.0, {})}
    (graph,) = flame_graph.build(stats)
    assert graph["value"] == 4_000_000
    assert [child["value"] for child in graph["children"]] == [3_000_000, 1_000_000]


def test_a_recursion_ends() -> None:
    stats: Stats = {
        RUN: entry(0.0, 2.0, {}),
        READ: entry(1.0, 2.0, {RUN: edge(2.0), RECV: edge(1.0), READ: edge(1.0)}),
        RECV: entry(1.0, 2.0, {READ: edge(2.0)}),
    }
    (graph,) = flame_graph.build(stats)
    (test,) = graph["children"]
    (read,) = test["children"]
    (recv,) = read["children"]
    assert "children" not in recv


def test_no_frame_is_narrower_than_those_above_it() -> None:
    # A generator's time counts for whoever resumed it, and for its caller's caller again.
    stats: Stats = {
        RUN: entry(0.0, 2.0, {}),
        READ: entry(1.0, 2.0, {RUN: edge(2.0)}),
        RECV: entry(4.0, 4.0, {READ: edge(4.0)}),
    }
    (graph,) = flame_graph.build(stats)
    (read,) = graph["children"][0]["children"]
    assert [child["value"] for child in read["children"]] == [read["value"]]


def test_frames_that_cannot_be_seen_are_left_out() -> None:
    stats: Stats = {
        RUN: entry(1.0, 1.0, {}),
        READ: entry(0.0001, 0.0001, {RUN: edge(0.0001)}),
    }
    (graph,) = flame_graph.build(stats)
    assert "children" not in graph["children"][0]


def test_a_file_that_is_no_profile_has_no_graphs(tmp_path: Path) -> None:
    assert flame_graph.read(tmp_path / "profile.cprof") == []
    (tmp_path / "profile.cprof").write_text("not a profile")
    assert flame_graph.read(tmp_path / "profile.cprof") == []


def test_a_profile_is_read_as_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "profile.cprof").write_bytes(marshal.dumps({RUN: entry(1.0, 1.0, {})}))
    (graph,) = flame_graph.read(tmp_path / "profile.cprof")
    assert graph["value"] == 1_000_000


def test_a_frame_of_which_no_microsecond_is_left_is_not_drawn() -> None:
    stats: Stats = {
        RUN: entry(5e-5, 5.12e-5, {}),
        READ: entry(8e-7, 8e-7, {RUN: edge(8e-7)}),
        RECV: entry(4e-7, 4e-7, {RUN: edge(4e-7)}),  # wide enough by its share
    }
    (others,) = flame_graph.build(stats)
    (run,) = others["children"]
    read = "read (eventlet/greenio/base.py:9)"
    assert [shape(each) for each in run["children"]] == [(read, 1, [])]
