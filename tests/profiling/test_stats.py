"""Adding up profilers: entries, edges, and roots for greenthreads."""

from __future__ import annotations

import functools
from typing import Any
from typing import NamedTuple

from pytest_eventlet_debug.profiling.stats import ALL
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import labelled
from pytest_eventlet_debug.profiling.stats import merge
from pytest_eventlet_debug.profiling.stats import root_of
from pytest_eventlet_debug.profiling.stats import under


class Called(NamedTuple):
    code: Any
    callcount: int
    reccallcount: int
    totaltime: float
    inlinetime: float


class Call(NamedTuple):
    code: Any
    callcount: int
    reccallcount: int
    totaltime: float
    inlinetime: float
    calls: list[Called] | None = None


def test_counts_of_the_same_function_are_added() -> None:
    one = [Call("f", 3, 1, 5.0, 2.0, [Called("g", 2, 0, 3.0, 3.0)]), Call("g", 2, 0, 3.0, 3.0)]
    other = [Call("g", 1, 0, 4.0, 4.0)]
    f, g = ("~", 0, "f"), ("~", 0, "g")
    assert merge([Part(labelled(one)), Part(labelled(other))]) == {
        f: (2, 3, 2.0, 5.0, {}),
        g: (3, 3, 7.0, 7.0, {f: (2, 2, 3.0, 3.0)}),
    }


def test_a_root_calls_what_nobody_called() -> None:
    main, f = ("~", 0, "main [f (x.py:7)]"), ("~", 0, "f")
    root = ("~", 0, "<greenthread f (x.py:7)>")
    entries = [
        Call("main", 2, 0, 9.0, 1.0, [Called("f", 2, 0, 8.0, 8.0)]),
        Call("f", 3, 0, 10.0, 10.0),
    ]
    merged = merge([Part(labelled(entries), root, 2)])
    assert merged[root] == (2, 2, 0.0, 11.0, {})
    assert merged[main][4] == {root: (2, 2, 1.0, 9.0)}
    assert merged[f][4] == {main: (2, 2, 8.0, 8.0), root: (1, 1, 2.0, 2.0)}


def test_what_only_our_own_functions_call_is_left_out_with_all_below_it() -> None:
    entries = [
        Call(merge.__code__, 1, 0, 3.0, 1.0, [Called("get", 1, 0, 2.0, 1.0)]),
        Call("get", 1, 0, 2.0, 1.0, [Called("f", 1, 0, 1.0, 1.0)]),
        Call("f", 3, 0, 5.0, 5.0),
    ]
    assert merge([Part(labelled(entries))]) == {("~", 0, "f"): (2, 2, 4.0, 4.0, {})}


def test_our_own_functions_are_left_out_with_their_calls() -> None:
    ours = merge.__code__
    merged = merge(
        [
            Part(labelled([Call(ours, 1, 0, 2.0, 1.0, [Called("f", 1, 0, 1.0, 1.0)])])),
            Part(labelled([Call("f", 1, 0, 1.0, 1.0)])),
        ]
    )
    assert merged == {("~", 0, "f"): (1, 1, 1.0, 1.0, {})}


def of_ours(name: str) -> Any:
    """Return code of the plugin's of another name, such as what wraps a function."""
    return merge.__code__.replace(co_name=name)


def code(name: str) -> Any:
    """Return code of the user's."""
    return merge.__code__.replace(co_name=name, co_filename="/x.py", co_firstlineno=1)


def test_what_a_function_of_ours_stands_in_for_is_called_by_its_callers() -> None:
    entries = [
        Call(code("f"), 1, 0, 9.0, 1.0, [Called(of_ours("run"), 2, 0, 8.0, 1.0)]),
        Call(code("g"), 1, 0, 5.0, 1.0, [Called(of_ours("run"), 1, 0, 4.0, 1.0)]),
        Call(
            of_ours("run"),
            *(3, 0, 12.0, 2.0),
            [Called(code("run"), 3, 0, 6.0, 3.0), Called("setattr", 3, 0, 4.0, 4.0)],
        ),
        Call(code("run"), 3, 0, 6.0, 3.0, [Called("h", 3, 0, 3.0, 3.0)]),
        Call("setattr", 3, 0, 4.0, 4.0),
        Call("h", 3, 0, 3.0, 3.0),
    ]
    f, g, run = (("/x.py", 1, name) for name in ("f", "g", "run"))
    assert merge([Part(labelled(entries))]) == {
        f: (1, 1, 1.0, 9.0, {}),
        g: (1, 1, 1.0, 5.0, {}),
        run: (3, 3, 3.0, 6.0, {f: (2, 2, 2.0, 4.0), g: (1, 1, 1.0, 2.0)}),
        ("~", 0, "h"): (3, 3, 3.0, 3.0, {run: (3, 3, 3.0, 3.0)}),
    }


def test_what_is_written_in_c_is_ours_too_and_nothing_that_we_stand_in_for() -> None:
    arm = "<method 'arm' of 'pytest_eventlet_debug.stalls._watcher.Watcher' objects>"
    entries = [
        Call(code("f"), 1, 0, 5.0, 1.0, [Called(of_ours("arm"), 1, 0, 4.0, 1.0)]),
        Call(of_ours("arm"), 1, 0, 4.0, 1.0, [Called(arm, 1, 0, 3.0, 3.0)]),
        Call(arm, 1, 0, 3.0, 3.0),
    ]
    assert merge([Part(labelled(entries))]) == {("/x.py", 1, "f"): (1, 1, 1.0, 5.0, {})}


class Worker:
    def run(self) -> None: ...


def test_a_root_is_named_by_the_function_that_was_spawned() -> None:
    file, line, name = root_of(functools.partial(Worker().run))
    assert (file, line) == ("~", 0)  # it shares no line with the function in annotated source
    where = Worker.run.__code__.co_firstlineno
    assert name == f"<greenthread Worker.run (profiling/test_stats.py:{where})>"
    assert root_of(len) == ("~", 0, "<greenthread len>")


def test_what_two_roots_call_stays_apart() -> None:
    """Else a viewer would show each of them to call, through it, what the other calls."""
    trampoline = Worker().run.__func__.__code__
    parts = [
        Part(
            labelled(
                [
                    Call(trampoline, 1, 0, 1.0, 0.0, [Called(n, 1, 0, 1.0, 1.0)]),
                    Call(n, 1, 0, 1.0, 1.0),
                ]
            ),
            ("~", 0, f"<greenthread {n}>"),
            1,
        )
        for n in ("f", "g")
    ]
    found = merge(parts)
    callers = {function[2]: [caller[2] for caller in entry[4]] for function, entry in found.items()}
    assert callers["f"] == ["run [f]"]
    assert callers["run [f]"] == ["<greenthread f>"]
    assert callers["g"] == ["run [g]"]


def test_one_root_stands_above_all_that_no_one_called() -> None:
    f, g = ("~", 0, "f"), ("~", 0, "g")
    parts = [
        Part(
            labelled(
                [
                    Call(
                        *("f", 5, 4, 7.0, 3.0),
                        [Called("f", 4, 1, 6.0, 2.0), Called("g", 1, 0, 4.0, 4.0)],
                    ),
                    Call("g", 3, 0, 6.0, 6.0),
                ]
            )
        )
    ]
    whole = under(ALL, 1, merge(parts))
    assert whole[ALL] == (1, 1, 0.0, 9.0, {})
    assert whole[f][4][ALL] == (1, 1, 1.0, 7.0)  # f called itself, below that one call
    assert whole[g][4] == {f: (1, 1, 4.0, 4.0), ALL: (2, 2, 2.0, 2.0)}
