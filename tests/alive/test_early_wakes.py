"""What ends a sleep too early, and what comes too late that a handler or a thread has scheduled."""

from __future__ import annotations

import re

import pytest

SUITE = """
import eventlet
from eventlet import hubs
from eventlet.green import select, socket
import greenlet


def pause(seconds=1):
    eventlet.sleep(seconds)


def test_after_a_select():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        ours.bind(("127.0.0.1", 0))
        ours.sendto(b"x", ours.getsockname())
        select.select([ours], [], [])
        select.select([ours], [ours], [], 1)
        pause()
    assert False


def test_another_timer():
    hubs.get_hub().schedule_call_global(0.05, greenlet.getcurrent().switch)
    pause()
    assert False


def test_a_listener():
    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    listener = hubs.get_hub().add("read", ours.fileno(), greenlet.getcurrent().switch, print, print)
    try:
        pause()
    finally:
        hubs.get_hub().remove(listener)
    assert False


def test_another_greenthread_while_an_error_is_handled():
    sleeper = greenlet.getcurrent()
    eventlet.spawn(lambda: sleeper.switch())
    try:
        raise ValueError
    except ValueError:
        pause()
    pause(0.02)
    assert False


def test_ends_in_time():
    pause(0.02)
    assert False


def test_is_thrown_out():
    with eventlet.Timeout(0.02, False):
        pause()
    sleeper = eventlet.spawn(pause)
    eventlet.sleep(0)
    sleeper.kill()
    assert False
"""


@pytest.mark.parametrize("hub", ["epolls", "poll", "selects", "asyncio"])
def test_what_ends_a_sleep_too_early_is_told(pytester: pytest.Pytester, hub: str) -> None:
    pytester.makepyfile(test_x=SUITE)
    pytester.makeconftest(
        """
        def pytest_unconfigure():
            from eventlet.hubs import hub
            print("as before:", not hasattr(hub.BaseHub.timer_canceled, "__wrapped__"))
        """
    )
    result = pytester.runpytest(
        "--dump-asyncio-tasks", f"--eventlet-hub={hub}", "-W", "ignore", "-s"
    )
    result.assert_outcomes(failed=6)
    told = {}
    test = ""
    for line in result.outlines[result.outlines.index(_section(result)) :]:
        if begin := re.match(r"  test_x\.py::(\w+)\[", line):
            test = begin[1]
        elif "too early" in line:
            told[test] = line.strip()
    early = r"eventlet\.sleep\(1\) at test_x\.py:8 in pause returned (1\.00|0\.9\d) s too early"
    expected = {
        "test_another_timer": r": another timer has woken its greenthread \(eventlet/hubs/timer",
        "test_a_listener": r": a listener for descriptor \d+ has woken it \(eventlet/hubs/",
        "test_another_greenthread_while_an_error_is_handled": "$",
    }
    if hub in ("epolls", "poll"):
        expected["test_after_a_select"] = (
            r": a select\(\) that had returned has woken it once more, .* in on_\w+\)$"
        )
    assert {*told} == {*expected}, told
    for name, pattern in expected.items():
        assert re.match(early + pattern, told[name]), told[name]
    assert "as before: True" in result.stdout.str()


def _section(result: pytest.RunResult) -> str:
    return next(line for line in result.outlines if "= findings =" in line)


LATE = """
import signal

import eventlet
from eventlet import event
import pytest


def alarm(function):
    signal.signal(signal.SIGALRM, function)
    signal.setitimer(signal.ITIMER_REAL, 0.1)


@pytest.fixture(autouse=True)
def default():
    eventlet.sleep(0)  # to import and start a hub may take longer than the alarm
    yield
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def test_sends_while_the_hub_waits():
    done = event.Event()
    alarm(lambda number, frame: done.send(1))
    with eventlet.Timeout(1, False):
        done.wait()
    assert False


def test_sends_while_the_hub_is_busy():
    done = event.Event()
    alarm(lambda number, frame: done.send(1))
    while not done.ready():
        eventlet.sleep(0)
    done.wait()
    assert False


def test_sends_nothing():
    alarm(lambda number, frame: None)
    eventlet.sleep(0.5)
    assert False
"""


@pytest.mark.parametrize("hub", ["epolls", "poll", "selects", "asyncio"])
def test_what_a_signal_handler_schedules_too_late_is_told(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytester.makepyfile(test_x=LATE)
    result = pytester.runpytest("--dump-asyncio-tasks", f"--eventlet-hub={hub}", "-W", "ignore")
    result.assert_outcomes(failed=3)
    (line,) = [line for line in result.outlines if "s late: " in line]
    assert re.fullmatch(
        r"    Event\._do_send, which the handler of SIGALRM at test_x\.py:22 in "
        r"(?:test_sends_while_the_hub_waits\.<locals>\.)?<lambda> had the hub call, came "
        r"0\.[89]\d s late: a hub that waits in the kernel does not see what a handler "
        r"schedules until it wakes",
        line,
    )


OF_ANOTHER_THREAD = """
import eventlet
from eventlet import event, hubs, patcher
threading = patcher.original("threading")


def test_the_hub_waits():
    hub, done = hubs.get_hub(), event.Event()

    def work():
        hub.schedule_call_global(0, done.send, 1)

    eventlet.sleep(0)
    threading.Timer(0.1, work).start()
    with eventlet.Timeout(1, False):
        done.wait()
    assert False


def test_the_hub_is_busy():
    hub, done = hubs.get_hub(), event.Event()
    threading.Timer(0.1, hub.schedule_call_global, (0, done.send, 1)).start()
    while not done.ready():
        eventlet.sleep(0)
    assert False


def test_another_hub_of_this_thread():
    made = type(hubs.get_hub())()
    made.schedule_call_global(0, print)
    eventlet.sleep(0.3)
    made.fire_timers(made.clock())
    made.prepare_timers()
    made.fire_timers(made.clock())
    assert False
"""


@pytest.mark.parametrize("hub", ["epolls", "poll", "selects"])
def test_what_another_thread_schedules_too_late_is_told(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytester.makepyfile(test_x=OF_ANOTHER_THREAD)
    result = pytester.runpytest("--dump-asyncio-tasks", f"--eventlet-hub={hub}", "-W", "ignore")
    result.assert_outcomes(failed=3)
    (line,) = [line for line in result.outlines if "s late: " in line]
    assert re.fullmatch(
        r"    Event\.send, which thread Thread-\d+ at test_x\.py:10 in "
        r"(?:test_the_hub_waits\.<locals>\.)?work had the hub call, came 0\.[789]\d s late: a hub "
        r"that waits in the kernel does not see what another thread schedules until it wakes",
        line,
    )
