"""What is noted while tests run, for those that fail: each suite has what merely looks like it."""

from __future__ import annotations

import re
import sys

import pytest
from speed import depends_on_speed


def told(
    pytester: pytest.Pytester, suite: str, hub: str, failed: int, passed: int = 0
) -> dict[str, list[str]]:
    """Return the lines of the section of findings by the name of the test."""
    pytester.makepyfile(test_x=suite)
    arguments = ("--dump-asyncio-tasks", f"--eventlet-hub={hub}", "-W", "ignore")
    result = pytester.runpytest(*arguments)
    result.assert_outcomes(failed=failed, passed=passed)
    found: dict[str, list[str]] = {}
    name = ""
    for line in result.outlines:
        if begin := re.match(r"  test_x\.py::(\w+)\[", line):
            name = begin[1]
        elif name and line.startswith("    "):
            found.setdefault(name, []).append(re.sub(r"\w+\.<locals>\.", "", line.strip()))
        else:
            name = ""
    return found


LOCKS = """
import threading

class Held:
    __slots__ = ("lock",)

held = Held()
held.lock = threading.RLock()

import eventlet
eventlet.monkey_patch()
from eventlet.semaphore import Semaphore

def use():
    with held.lock:
        with held.lock:
            eventlet.sleep(0.01)

def use_it_otherwise():
    with held.lock: eventlet.sleep(0.02)

def rest(): eventlet.sleep(0.01)

def call_with_it():
    with held.lock: rest()

def test_two_hold_a_lock():
    for each in [eventlet.spawn(use), eventlet.spawn(use)]:
        each.wait()
    assert False

def test_two_hold_a_lock_further_out():
    for each in [eventlet.spawn(use_it_otherwise), eventlet.spawn(call_with_it)]:
        each.wait()
    assert False

def test_one_after_the_other():
    for _ in range(2):
        eventlet.spawn(use).wait()
    assert False

def test_never_released():
    lock = threading.Lock()
    def take():
        lock.acquire()
        eventlet.sleep(1)
    greenthread = eventlet.spawn(take)
    eventlet.sleep(0)
    greenthread.kill()
    with eventlet.Timeout(0.1):
        lock.acquire()

def test_of_two_one_is_released():
    both = Semaphore(2)
    both.acquire()
    eventlet.spawn(both.acquire).wait()
    both.release()
    both.acquire()
    with eventlet.Timeout(0.1):
        both.acquire()

def test_released_by_another():
    lock = Semaphore()
    lock.acquire()
    eventlet.spawn(lock.release).wait()
    lock.acquire()
    lock.release()
    eventlet.spawn(lock.acquire).wait()
    with eventlet.Timeout(0.1):
        lock.acquire()

def test_signal():
    signal = Semaphore(0)
    signal.release()
    signal.acquire()
    with eventlet.Timeout(0.1):
        signal.acquire()

def test_condition():
    condition = threading.Condition()
    with condition, eventlet.Timeout(0.1):
        condition.wait()
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_who_holds_locks_of_eventlet_and_who_share_one_of_threads_is_told(
    pytester: pytest.Pytester, hub: str
) -> None:
    vain = "the test waited in vain at test_x.py:{}, value 0, 1 waiting, acquired "
    ended = "by a greenthread that has ended"
    # Before, Python does not know which call of a line a frame is at.
    known = sys.version_info >= (3, 11)
    lock = "held.lock (test_x.py:24 in call_with_it)" if known else "a lock"
    assert told(pytester, LOCKS, hub, failed=8) == {
        "test_two_hold_a_lock": [
            "greenthread use, at test_x.py:16 in use, acquired held.lock while greenthread use, at "
            "test_x.py:16 in use, held it: monkey_patch() has not greened this RLock, which keeps "
            "out other threads alone"
        ],
        "test_two_hold_a_lock_further_out": [
            f"greenthread call_with_it, at test_x.py:21 in rest, acquired {lock} while greenthread "
            "use_it_otherwise, at test_x.py:19 in use_it_otherwise, held it: monkey_patch() has "
            "not greened this RLock, which keeps out other threads alone"
        ],
        "test_never_released": [
            vain.format("50 in test_never_released on Lock") + f"at test_x.py:44 in take {ended}"
        ],
        "test_of_two_one_is_released": [
            vain.format("59 in test_of_two_one_is_released on Semaphore")
            + f"{ended}, acquired at test_x.py:57 in test_of_two_one_is_released by the test"
        ],
        "test_released_by_another": [
            vain.format("69 in test_released_by_another on Semaphore") + ended
        ],
    }


MISSING = """
import contextvars, select, threading
import eventlet
eventlet.monkey_patch()
import eventlet.debug

request = contextvars.ContextVar("request")
user = threading.local()

def test_local_of_the_test():
    user.name = "me"
    eventlet.spawn(lambda: user.name).wait()

def test_local_of_another():
    def login():
        user.mail = "me"
        eventlet.sleep(1)
    eventlet.spawn(login)
    eventlet.sleep(0)
    user.mail

def test_local_of_nobody():
    user.age

def test_context_of_the_test():
    request.set(1)
    eventlet.spawn(request.get).wait()

def test_context_of_nobody():
    eventlet.spawn(contextvars.ContextVar("other").get).wait()

def test_removed():
    select.poll()

def test_import_of_what_is_removed():
    from select import epoll

def test_never_there():
    select.pool()

def fail():
    raise KeyError("lost")

def test_hidden():
    eventlet.debug.hub_exceptions(False)
    eventlet.spawn(fail)
    eventlet.sleep(0)
    assert False

def test_awaited():
    failing = eventlet.spawn(fail)
    def wait():
        try:
            failing.wait()
        except KeyError:
            pass
    eventlet.spawn(wait)
    eventlet.sleep(0)
    eventlet.sleep(0)
    assert False
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_where_what_is_missing_is_and_what_was_hidden_is_told(
    pytester: pytest.Pytester, hub: str
) -> None:
    of_local = "of this threading.local is set in"
    removed = (
        "monkey_patch() has removed {} from select, as it would hold the hub; "
        'eventlet.patcher.original("select") has it'
    )
    assert told(pytester, MISSING, hub, failed=10) == {
        "test_local_of_the_test": [
            f"'name' {of_local} the test, and not in the greenthread of test_x.py:11 in <lambda>: "
            "each has values of its own"
        ],
        "test_local_of_another": [
            f"'mail' {of_local} greenthread login, and not in the greenthread of test_x.py:19 in "
            "test_local_of_another: each has values of its own"
        ],
        "test_context_of_the_test": [
            "the ContextVar 'request' is set in the context of the test, which is not that of the "
            "greenthread that looked it up: greenthreads and threads begin with an empty context, "
            "and the tasks that they make with a copy of theirs"
        ],
        "test_removed": [removed.format("poll")],
        "test_import_of_what_is_removed": [removed.format("epoll")],
        "test_hidden": [
            "a greenthread, or a call of the hub, ended with KeyError: 'lost', raised at "
            "test_x.py:41 in fail; eventlet.debug.hub_exceptions(False) keeps that from being "
            "printed"
        ],
    }


LOOP = """
import asyncio, os, time, socket
import eventlet
from eventlet import hubs, patcher
from eventlet.asyncio import spawn_for_awaitable
threading = patcher.original("threading")

def wait(ours):
    with eventlet.Timeout(0.2, False):
        hubs.trampoline(ours.fileno(), read=True)

def test_takes_the_place():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    waiter = eventlet.spawn(wait, ours)
    eventlet.sleep(0)
    async def receive():
        return await asyncio.get_running_loop().sock_recv(ours, 1)
    receiver = spawn_for_awaitable(receive())
    eventlet.sleep(0.01)
    assert waiter.wait()

def test_of_nobody():
    ours, theirs = socket.socketpair()
    loop = hubs.get_hub().loop
    loop.add_reader(ours.fileno(), print)
    loop.add_reader(ours.fileno(), print)
    loop.remove_reader(ours.fileno())
    waiter = eventlet.spawn(wait, ours)
    eventlet.sleep(0)
    waiter.wait()
    assert False

def idle():
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        pass

async def nothing():
    pass

def test_does_not_let_a_task_begin():
    eventlet.sleep(0)
    task = asyncio.get_event_loop().create_task(nothing())
    idle()
    assert task.done()

def test_lets_a_task_begin():
    idle()
    asyncio.get_event_loop().create_task(asyncio.sleep(1))
    eventlet.sleep(0.01)
    idle()
    asyncio.get_event_loop().create_task(nothing())
    assert False

def test_does_not_let_a_thread_call():
    eventlet.sleep(0)
    loop = hubs.get_hub().loop
    def work():
        asyncio.run_coroutine_threadsafe(nothing(), loop)
    thread = threading.Thread(target=work, name="worker")
    thread.start()
    thread.join()
    idle()
    assert False

def test_does_not_let_a_call_come_later():
    eventlet.sleep(0)
    hubs.get_hub().loop.call_later(0.05, print)
    idle()
    assert False

async def take(lock, seconds):
    async def acquire():
        await lock.acquire()
    await asyncio.wait_for(acquire(), seconds)

def test_lock_in_vain():
    lock = asyncio.Lock()
    spawn_for_awaitable(take(lock, 1)).wait()
    spawn_for_awaitable(take(lock, 0.1)).wait()

def test_sleeps_too_long():
    spawn_for_awaitable(asyncio.wait_for(asyncio.sleep(5), 0.1)).wait()

def test_timeout_is_caught():
    lock = asyncio.Lock()
    spawn_for_awaitable(take(lock, 1)).wait()
    try:
        spawn_for_awaitable(take(lock, 0.1)).wait()
    except TimeoutError:
        pass
    raise TimeoutError

def test_lets_a_thread_call():
    loop = hubs.get_hub().loop
    thread = threading.Thread(target=loop.call_soon_threadsafe, args=[int])
    thread.start()
    thread.join()
    eventlet.sleep(0.01)
    idle()
    assert False
"""


@depends_on_speed  # a task that is made last must not be late
def test_what_the_loop_of_the_hub_cannot_do_is_told(pytester: pytest.Pytester) -> None:
    lines = told(pytester, LOOP, "asyncio", failed=10)
    patterns = {
        "test_takes_the_place": r"add_reader\(\d+\) at test_x\.py:17 in receive takes the place of "
        r"what wakes greenthread wait at test_x\.py:9 in wait: it waits to read on that "
        r"descriptor, and the asyncio hub has one callback of its loop for each",
        "test_does_not_let_a_task_begin": r"task Task-\d+, nothing\(\), created at "
        r"test_x\.py:43 in test_does_not_let_a_task_begin, had not begun \d\.\d\d s "
        r"later: nothing has let the hub run since, as eventlet\.sleep\(\) would",
        "test_does_not_let_a_call_come_later": r"print, which the hub's loop was to call later, "
        r"was due \d\.\d\d s before, and nothing has let the hub run since, as "
        r"eventlet\.sleep\(\) would",
        # Since Python 3.12 wait_for() makes no task.
        "test_lock_in_vain": r"task Task-\d+, take\(\), waited in vain (at test_x\.py:75 in take "
        r"on asyncio\.wait_for of task Task-\d+, which waits )?at test_x\.py:74 in acquire on "
        r"Lock\.acquire, locked, 1 waiting, acquired at test_x\.py:74 in acquire by task Task-\d+, "
        r"(take\.<locals>\.acquire|acquire|take)\(\), which has ended",
        "test_sleeps_too_long": r"task Task-\d+, wait_for\(\), waited in vain on asyncio\.wait_for "
        r"of task Task-\d+, which waits on sleep, [34]\.\d s left",
        "test_does_not_let_a_thread_call": r"thread worker scheduled a call at test_x\.py:59 in "
        r"work, which the hub's loop has not made \d\.\d\d s later: nothing has let the hub run "
        r"since, as eventlet\.sleep\(\) would",
    }
    lines = {
        name: [line for line in found if not line.startswith("printed: ")]
        for name, found in lines.items()
        if not all(line.startswith("printed: ") for line in found)
    }
    if sys.version_info >= (3, 12):
        del patterns["test_sleeps_too_long"]
    assert {*lines} == {*patterns}, lines
    for name, (line, *_) in lines.items():
        assert re.fullmatch(patterns[name], line), line
