"""What code of a test lost without an error: coroutines, exceptions of executors and of pools."""

from __future__ import annotations

import re
import sys

import pytest
from test_seen_meanwhile import told

UNAWAITED = """
import asyncio, gc, threading, warnings
import eventlet
eventlet.monkey_patch()

async def fetch(*arguments):
    pass

async def other():
    pass

def test_spawned():
    eventlet.spawn(fetch)
    eventlet.sleep(0)
    assert False

def test_is_kept():
    returned = eventlet.spawn(fetch).wait()
    assert False

def test_by_a_pool():
    list(eventlet.GreenPool().imap(fetch, [1]))
    assert False

def test_spawn_n():
    eventlet.spawn_n(fetch)
    eventlet.sleep(0)
    assert False

def test_thread():
    thread = threading.Thread(target=fetch)
    thread.start()
    thread.join()
    assert False

def test_called():
    fetch()
    assert False

def test_awaited_later():
    loop = asyncio.new_event_loop()
    coroutine = eventlet.spawn(fetch).wait()
    eventlet.spawn(coroutine.close)
    eventlet.sleep(0)
    assert False

class Cycle:
    pass

kept = Cycle()

def test_keeps_for_others():
    kept.cycle = Cycle()
    kept.cycle.itself = kept.cycle
    kept.cycle.coroutine = other()

def test_collects_what_others_kept():
    del kept.cycle
    gc.collect()
    assert False

def test_warned_at_the_line_that_let_go():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fetch()
    (warning,) = caught
    assert (warning.filename, warning.lineno) == (__file__, 64)
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_coroutine_that_was_never_awaited_is_told(pytester: pytest.Pytester, hub: str) -> None:
    lines = told(pytester, UNAWAITED, hub, failed=8, passed=2)
    spawned = "which a greenthread {}has returned"
    by = {
        "test_spawned": spawned.format("spawned at test_x.py:12 in test_spawned "),
        "test_is_kept": spawned.format("spawned at test_x.py:17 in test_is_kept "),
        "test_by_a_pool": spawned.format(""),
        "test_spawn_n": "which was returned to Timer.__call__()",
        "test_thread": "which was returned to Thread.run()",
        "test_called": "which was made at test_x.py:36 in test_called",
    }
    if sys.version_info < (3, 11):
        by["test_spawn_n"] = by["test_spawn_n"].replace("Timer.", "")
        by["test_thread"] = by["test_thread"].replace("Thread.", "")
    assert lines == {
        name: [
            f"the coroutine fetch() (test_x.py:5), {words}, was never awaited: none of its code "
            "has run"
        ]
        for name, words in by.items()
    }


LOST = """
import eventlet
eventlet.monkey_patch()
import eventlet.debug
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(1)

def fail():
    raise KeyError("lost")

def stop():
    pool.shutdown()

def test_submits():
    with ThreadPoolExecutor(1) as own:
        own.submit(fail)
    assert False

def test_keeps():
    with ThreadPoolExecutor(1) as own:
        failing = own.submit(fail)
    assert False

def test_is_called():
    with ThreadPoolExecutor(1) as own:
        own.submit(fail).add_done_callback(print)
    assert False

def test_stops():
    stop()

def test_comes_too_late():
    stop()
    pool.submit(len, "abc")

def test_is_dropped():
    def ask():
        eventlet.greenthread.spawn_after_local(0.01, fail)
    eventlet.spawn(ask).wait()
    eventlet.sleep(0.02)
    assert False

def test_is_called_in_time():
    eventlet.greenthread.spawn_after_local(0.01, int)
    cancelled = eventlet.greenthread.spawn_after_local(0.01, int)
    cancelled.cancel()
    eventlet.sleep(0.02)
    assert False

def test_waits_in_vain():
    for _ in range(2):
        with eventlet.Timeout(0.01, False):
            eventlet.sleep(1)
    assert False

def wait():
    with eventlet.Timeout(0.01, False):
        eventlet.sleep(1)

def test_has_something_wait():
    wait()
    assert False

def test_left_by_a_with():
    with ThreadPoolExecutor(1) as own:
        pass
    own.submit(len, "abc")

def test_hidden_in_a_pool():
    eventlet.debug.hub_exceptions(False)
    green = eventlet.GreenPool()
    green.spawn_n(fail)
    green.spawn_n(int)
    green.waitall()
    assert False

def test_shown_by_a_pool():
    eventlet.debug.hub_exceptions(True)
    green = eventlet.GreenPool()
    green.spawn_n(fail)
    green.waitall()
    assert False
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_what_was_lost_in_executors_and_pools_is_told(pytester: pytest.Pytester, hub: str) -> None:
    assert told(pytester, LOST, hub, failed=11, passed=1) == {
        "test_submits": [
            "fail(), submitted to an executor at test_x.py:16 in test_submits, ended with "
            "KeyError: 'lost', raised at test_x.py:9 in fail; nobody has kept its future, to ask "
            "for that"
        ],
        "test_comes_too_late": ["the executor was shut down at test_x.py:12 in stop"],
        "test_is_dropped": [
            "fail, spawned at test_x.py:38 in ask, was not called when it was due: what "
            "spawn_after_local() or call_after_local() is to call is dropped if the greenthread "
            "that asked for it has ended"
        ],
        "test_waits_in_vain": [
            "Timeout(0.01), started at test_x.py:52 in test_waits_in_vain, ended a wait at "
            "test_x.py:53 in test_waits_in_vain, and was caught"
        ],
        "test_left_by_a_with": [
            "the executor was shut down at test_x.py:65 in test_left_by_a_with"
        ],
        "test_hidden_in_a_pool": [
            "what GreenPool.spawn_n() called ended with KeyError: 'lost', raised at test_x.py:9 in "
            "fail; eventlet.greenpool.DEBUG, which hub_exceptions() sets, keeps that from being "
            "printed"
        ],
        "test_shown_by_a_pool": ["printed: KeyError: 'lost' (test_x.py:9 in fail)"],
    }


PRINTED = """
import eventlet
from eventlet.semaphore import Semaphore

def test_killed():
    semaphore = Semaphore(0)
    waiter = eventlet.spawn(semaphore.acquire)
    eventlet.sleep(0)
    waiter.kill(ValueError)
    eventlet.sleep(0)
    assert False
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_traceback_that_the_hub_prints_has_no_frame_of_ours(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytester.makepyfile(test_x=PRINTED)
    result = pytester.runpytest("--dump-asyncio-tasks", f"--eventlet-hub={hub}")
    result.assert_outcomes(failed=1)
    text = result.stdout.str()
    assert re.search(r'eventlet/semaphore\.py", line \d+, in acquire', text)
    assert "acquisitions.py" not in text
    # What raised it waits in the hub, which says nothing.
    result.stdout.re_match_lines([r"    printed: ValueError \(\S+ in switch\)"])


HANGS = """
import eventlet
from eventlet import patcher
from eventlet.event import Event

threading = patcher.original("threading")

def send_by_a_thread(event):
    thread = threading.Thread(target=event.send)
    thread.start()
    thread.join()

def test_sends():
    event = Event()
    waiter = eventlet.spawn(event.wait)
    eventlet.sleep(0)
    send_by_a_thread(event)

def test_hangs():
    event = Event()
    eventlet.spawn_after(0.1, send_by_a_thread, event)
    event.wait()

def test_hangs_for_another_reason():
    Event().wait()
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_of_a_test_that_hangs_it_is_told_what_another_thread_does_not_call(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytester.makepyfile(test_x=HANGS)
    result = pytester.runpytest(f"--eventlet-hub={hub}", "--eventlet-timeout=2", "-W", "ignore")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.re_match_lines_random(
        [
            r"    the test waits at test_x\.py:21 in test_hangs on Event, .*",
            r"    a timer in the hub of another thread has been due for \d+\.\d s and is not "
            r"called, as that thread does not run its hub: call Event\._do_send; an event, lock or "
            r"queue of eventlet's wakes nobody in another thread",
        ]
    )
    text = result.stdout.str()
    assert text.partition(" = findings = ".replace(" ", ""))[2].count("a timer in the hub") <= 1
