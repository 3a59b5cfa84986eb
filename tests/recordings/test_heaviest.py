"""The lines about a profile in the summary."""

from __future__ import annotations

import marshal
from pathlib import Path

from needs import needs_strace
import pytest

from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.recordings.heaviest import AWAY
from pytest_eventlet_debug.recordings.heaviest import WAITING
from pytest_eventlet_debug.recordings.heaviest import describe
from pytest_eventlet_debug.recordings.heaviest import lines

POLL, SLEEP = ("~", 0, WAITING[0]), ("~", 0, "<built-in method time.sleep>")
DO_POLL = ("/lib/eventlet/hubs/epolls.py", 30, "do_poll")
# A greenthread that waits for the hub calls this.
SWITCH: Stats = {("/lib/eventlet/hubs/hub.py", 3, "switch"): (1, 1, 0.0, 0.0, {})}

STATS: Stats = {
    ("/a/b/c.py", 3, "slow"): (1, 1200, 3.0, 3.0, {}),
    ("/a/b/c.py", 9, "quick"): (1, 1, 0.5, 5.0, {}),
    ("~", 0, "<built-in method len>"): (1, 1, 1.5, 1.5, {}),
    ("/a/b/c.py", 20, "least"): (1, 1, 0.0, 5.0, {}),
    POLL: (9, 9, 5.0, 5.0, {DO_POLL: (9, 9, 5.0, 5.0)}),
    **SWITCH,
}


def test_three_functions_are_named_and_the_idle_share() -> None:
    assert list(lines(STATS)) == [
        " 30%   3.000 s  slow (b/c.py:3), 1,200 calls",
        " 15%   1.500 s  built-in method len, 1 call",
        "  5%   0.500 s  quick (b/c.py:9), 1 call",
        " 50%   5.000 s  idle: the hub waited",
    ]


def test_a_test_that_hardly_does_more_than_wait_is_one_line() -> None:
    waiting = {**STATS, POLL: (9, 9, 200.0, 200.0, {DO_POLL: (9, 9, 200.0, 200.0)})}
    assert list(lines(waiting)) == [" 98% 200.000 s  idle: the hub waited"]


def test_a_hub_that_hardly_ever_waited_when_it_polled_is_not_called_idle_alone() -> None:
    polling = {**SWITCH, POLL: (9000, 9000, 8.0, 8.0, {DO_POLL: (9000, 9000, 8.0, 8.0)})}
    assert list(lines(polling)) == ["100%   8.000 s  idle: the hub waited or polled"]


def test_what_pytest_does_and_addresses_are_not_shown() -> None:
    snap, test = ("/lib/_pytest/capture.py", 9, "snap"), ("/a/test_x.py", 3, "test_x")
    called = (1, 1, 1.0, 1.0)
    by_both = ("~", 0, "<function socket.close at 0x7fbd71385760>")
    stats: Stats = {
        snap: (1, 1, 2.0, 3.0, {}),
        ("~", 0, "<built-in method posix.dup2>"): (1, 1, 1.0, 1.0, {snap: called}),
        by_both: (2, 2, 2.0, 2.0, {snap: called, test: called}),
    }
    assert list(lines(stats)) == [" 40%   2.000 s  function socket.close, 2 calls"]


def test_a_test_that_never_waits_has_no_line_about_it() -> None:
    f = ("/a/b/c.py", 3, "f")
    assert list(lines({f: (1, 1, 1.0, 1.0, {})})) == ["100%   1.000 s  f (b/c.py:3), 1 call"]


def test_a_sleep_is_idle_if_the_hub_called_it_and_else_blocks_the_hub() -> None:
    wait, f = ("/lib/eventlet/hubs/poll.py", 70, "wait"), ("/a/b/c.py", 3, "f")
    callers = {wait: (7, 7, 3.0, 3.0), f: (1, 1, 1.0, 1.0)}
    assert list(lines({SLEEP: (8, 8, 4.0, 4.0, callers), **SWITCH})) == [
        " 25%   1.000 s  built-in method time.sleep called by f (b/c.py:3), 1 call: "
        "blocked the hub",
        " 75%   3.000 s  idle: the hub waited",
    ]


def test_a_selector_is_idle_for_the_loop_and_blocks_it_for_others() -> None:
    select = ("/lib/selectors.py", 450, "select")
    loop, communicate = ("/lib/asyncio/base_events.py", 1, "_run_once"), ("/lib/sub.py", 2, "wait")
    found = list(
        lines(
            {
                POLL: (4, 4, 4.0, 4.0, {select: (4, 4, 4.0, 4.0)}),
                select: (4, 4, 0.0, 4.0, {loop: (3, 3, 0.0, 3.0), communicate: (1, 1, 0.0, 1.0)}),
                **SWITCH,
            }
        )
    )
    assert [line.split()[0] for line in found] == ["25%", "75%"]
    assert "blocked the hub" in found[0]
    assert found[1].endswith("idle: the hub waited")


def test_waiting_for_other_greenlets_is_no_heavy_function() -> None:
    assert not any("switch" in line for line in lines({("~", 0, AWAY[0]): (1, 1, 9.0, 9.0, {})}))


def test_a_profile_of_no_time_is_no_error() -> None:
    assert list(lines({})) == ["no function but pytest's took 5% of the time"]


def test_a_test_that_pytest_alone_took_time_for_is_not_called_idle() -> None:
    capture = ("/x/_pytest/capture.py", 863, "item_capture")
    dup2 = ("~", 0, "<built-in method posix.dup2>")
    stats: Stats = {
        capture: (1, 1, 0.1, 1.3, {}),
        dup2: (4, 4, 1.2, 1.2, {capture: (4, 4, 1.2, 1.2)}),
        ("/a/b/c.py", 3, "quick"): (1, 1, 0.001, 0.001, {}),
    }
    assert list(lines(stats)) == ["no function but pytest's took 5% of the time"]


def test_of_a_test_without_a_hub_nothing_is_said_about_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import asyncio
        import time
        import eventlet.hubs

        def test_it():
            eventlet.hubs.get_hub()
            time.sleep(0.5)
            asyncio.run(asyncio.sleep(1))
        """
    )
    result = pytester.runpytest("--cprofile", "--eventlet-hub=asyncio")
    slept = r"built-in method time.sleep called by test_it \(\S*test_it.py:5\), 1 call"
    result.stdout.re_match_lines(
        [rf" +\d+% +0\.[5-9]\d+ s  {slept}$", r" +\d+% +\d\.\d+ s  idle: an event loop waited$"]
    )


@pytest.mark.parametrize("hub", ["epolls", "poll", "selects", "asyncio"])
def test_the_summary_tells_what_blocked_the_hub_from_its_waiting(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytester.makepyfile(
        test_it="""
        import time
        import eventlet

        def fetch():
            time.sleep(0.6)

        def test_it():
            for thread in [eventlet.spawn(fetch), eventlet.spawn(eventlet.sleep, 1.5)]:
                thread.wait()
        """
    )
    result = pytester.runpytest("--cprofile", f"--eventlet-hub={hub}")
    result.stdout.re_match_lines([r" +\d+% +\d\.\d+ s  idle: the hub waited$"])
    blocked = r"built-in method time.sleep called by fetch \(\S*test_it.py:4\), 1 call: blocked"
    result.stdout.re_match_lines([rf" +\d+% +0\.[6-9]\d+ s  {blocked} the hub$"])


def test_a_file_cut_short_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "profile.cprof"
    path.write_bytes(marshal.dumps(STATS)[:20])
    (line,) = describe(path)
    assert line.startswith("profile.cprof cannot be read: ")


LONG = """
    import time

    def heavy():
        until = time.perf_counter() + 1.1
        while time.perf_counter() < until:
            pass

    def test_long():
        heavy()

    def test_short():
        pass
"""


def test_the_summary_names_the_functions_of_long_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=LONG)
    result = pytester.runpytest("--cprofile")
    result.stdout.fnmatch_lines(
        ["most time was spent in:", "  test_it.py::test_long", "* s  heavy (*test_it.py:3), 1 call"]
    )
    assert "test_short" not in result.stdout.str()


def test_the_longest_test_comes_first(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="import time\ndef test_a(): sum(range(9))\ndef test_b(): time.sleep(0.5)"
    )
    result = pytester.runpytest("--cprofile", "-v")
    result.stdout.fnmatch_lines(
        ["most time was spent in:", "  test_it.py::test_b", "  test_it.py::test_a"]
    )


def test_of_many_tests_the_shorter_ones_are_counted(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_eventlet_debug.summary.SHOWN", 2)
    pytester.makepyfile(
        test_it="""
        import pytest

        @pytest.mark.parametrize("number", range(4))
        def test_it(number): sum(range(9))
        """
    )
    result = pytester.runpytest_inprocess("--cprofile", "-v")
    shown = result.outlines[result.outlines.index("most time was spent in:") :]
    assert sum(line.startswith("  test_it.py::") for line in shown) == 2
    assert "  and 2 shorter tests" in shown


def test_a_test_whose_setup_alone_is_long_is_not_named(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it="""
        import time
        import pytest

        @pytest.fixture
        def server(): time.sleep(1.1)

        def test_it(server): sum(range(9))
        """
    )
    result = pytester.runpytest("--cprofile")
    result.assert_outcomes(passed=1)
    assert "most time" not in result.stdout.str()


def test_with_v_it_names_those_of_every_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_short(): sum(range(9))")
    assert "most time" not in pytester.runpytest("--cprofile").stdout.str()
    result = pytester.runpytest("--cprofile", "-v")
    result.stdout.fnmatch_lines(["most time was spent in:", "  test_it.py::test_short"])


@needs_strace
def test_under_strace_it_says_that_system_calls_take_longer(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it="def test_short(): sum(range(9))")
    result = pytester.runpytest("--cprofile", "--strace", "-v")
    result.stdout.fnmatch_lines(
        ["most time was spent in (under strace, each system call takes longer):"]
    )
