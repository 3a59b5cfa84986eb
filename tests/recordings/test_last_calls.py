"""The calls that a process that hangs is in."""

from __future__ import annotations

from pytest_eventlet_debug.recordings.last_calls import describe

TRACE = """\
7 1.000000 access("/.eventlet-debug/greenlet/1/test", F_OK) = -1 ENOENT (No) <0.000009>
7 1.000100 clone3({flags=CLONE_VFORK}, 88) = 8 <0.000010>
7 1.000150 access("/.eventlet-debug/line/posix.waitpid/x.py:3 in f", F_OK) = -1 ENOENT (No) <0.01>
7 1.000200 wait4(8,  <unfinished ...>
8 1.000300 execve("/bin/sleep", ["sleep", "9"], 0x1) = 0 <0.000010>
"""


def test_each_process_is_shown_apart_with_the_call_that_has_not_returned() -> None:
    start_up = [f"8 1.{n:06} close({n}) = 0 <0.000001>\n" for n in range(1000, 2000)]
    ended = ["9 1.5 close(3) = 0 <0.01>\n", "9 1.6 +++ exited with 0 +++\n"]
    lines = [*TRACE.splitlines(keepends=True), *start_up, *ended, "8 1.700000 pause("]
    shown = list(describe(lines, 11_000_200_000))
    assert shown[:3] == [
        "its process 7:",
        "  [1:test] clone3({flags=CLONE_VFORK}, 88) = 8",
        "  [1:test] wait4(8 at x.py:3 in f: has not returned in 10.0 s",
    ]
    assert shown[3] == "child process 8 (/bin/sleep 9):"
    assert shown[4:-1] == [f"  close({n}) = 0" for n in range(1989, 2000)]
    assert shown[-1] == "  pause(: has not returned in 9.3 s"


def test_the_thread_that_watches_for_stalls_is_not_shown() -> None:
    waits = "8 1.2 futex(0x1, FUTEX_WAIT, 0, NULL <unfinished ...>\n"
    mark = '7 1.0 access("/.eventlet-debug/watcher/8", F_OK) = -1 ENOENT (No) <0.01>\n'
    pause = "7 1.1 pause( <unfinished ...>\n"
    assert not [each for each in describe([mark, pause, waits], 2_000_000_000) if "futex" in each]
    # The mark is not in what is read of a long trace, nor in a sample.
    assert [each for each in describe([pause, waits], 2_000_000_000) if "futex" in each]
    shown = list(describe([pause, waits], 2_000_000_000, own=[8]))
    assert len(shown) == 2
    assert "pause" in shown[1]


def test_what_pytest_and_this_plugin_do_is_not_shown_unless_it_lasts() -> None:
    place = (
        '7 1.1 access("/.eventlet-debug/line/posix.dup2/_pytest/capture.py:5 in f, from pytest", 0)'
    )
    lines = [
        "7 1.0 close(3) = 0 <0.01>\n",
        f"{place} = -1 ENOENT (No) <0.01>\n",
        "7 1.2 dup2(5, 1) = 1 <0.01>\n",
        '7 1.3 sendto(500<UNIX:[1->2]>, "x", 1) = 1 <0.01>\n',
    ]
    assert list(describe(lines, 2_000_000_000))[1:] == ["  close(3) = 0"]
    lines.append("7 1.4 dup2(6, 2 <unfinished ...>\n")
    assert "dup2(6, 2" in list(describe(lines, 2_000_000_000))[2]


def test_children_that_were_there_before_are_named() -> None:
    lines = ["5 1.0 wait4(-1,  <unfinished ...>\n", "6 1.0 pause( <unfinished ...>\n"]
    shown = list(describe(lines, 2_000_000_000, 5, {6: "sleep 60"}))
    assert shown[0::2] == ["its process 5:", "child process 6 (sleep 60):"]
