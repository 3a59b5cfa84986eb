"""A test that an ``eventlet.Timeout`` ends is shown as it was before it unwound."""

from __future__ import annotations

import re
import sys

import pytest


def in_frames(name: str) -> str:
    """Return a function's name as frames have it, bare before Python 3.11."""
    return name if sys.version_info >= (3, 11) else name.rpartition(".")[2]


def waited(
    pytester: pytest.Pytester, suite: str, hub: str, *, failed: int
) -> tuple[pytest.RunResult, list[str]]:
    """Run a suite whose tests are ended by a Timeout; return what is told of their waiting."""
    pytester.makepyfile(test_x=suite)
    result = pytester.runpytest("--dump-asyncio-tasks", f"--eventlet-hub={hub}", "-W", "ignore")
    result.assert_outcomes(failed=failed)
    return result, [line.strip() for line in result.outlines if "waited in vain" in line]


SUITE = """
import eventlet
from eventlet.event import Event

def serve(listener):
    listener.accept()[0].recv(1)

def waits():
    listener = eventlet.listen(("127.0.0.1", 0))
    server = eventlet.spawn(serve, listener)
    try:
        eventlet.connect(listener.getsockname()).recv(1)
    finally:
        server.kill()
        listener.close()

def test_timeout():
    with eventlet.Timeout(0.2):
        waits()

def test_exception_of_its_own():
    with eventlet.Timeout(0.2, KeyError):
        waits()

def test_another_error_later():
    try:
        with eventlet.Timeout(0.2):
            waits()
    except eventlet.Timeout:
        pass
    assert False

def test_the_same_class_later():
    try:
        with eventlet.Timeout(0.2, KeyError):
            waits()
    except KeyError:
        pass
    raise KeyError

def test_expected():
    for _ in range(20):
        with eventlet.Timeout(0.001, False):
            Event().wait()
"""


def of(text: str, test: str) -> str:
    """Return the report of a failure."""
    return re.split(rf"^_+ {test}\[epolls\] _+$", text, flags=re.M)[1].split("\n____")[0]


def test_what_was_alive_as_a_timeout_was_thrown_is_shown_and_any_other_error_as_it_came(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=SUITE)
    result = pytester.runpytest("--dump-asyncio-tasks", "--eventlet-hub=epolls", "-W", "ignore")
    result.assert_outcomes(failed=4, passed=1)
    text = result.stdout.str()
    for test in ("test_timeout", "test_exception_of_its_own"):
        shown = of(text, test)
        assert re.search(
            rf"^  the test  current\n    test_x.py:\d+ in {test}\n        waits\(\)\n(.*\n)+?"
            r"    waits on read on fd \d+, TCP 127.0.0.1:\d+ -> 127.0.0.1:\d+$",
            shown,
            re.M,
        ), shown
        assert "  serve  suspended\n" in shown
        assert re.search(r"^  read on fd \d+, TCP \S+ -> \S+: wakes serve$", shown, re.M), shown
    for test in ("test_another_error_later", "test_the_same_class_later"):
        assert "serve  suspended" not in of(text, test)


OLDER = """
import eventlet

def fetch():
    eventlet.Timeout(0.2)  # which nobody cancels
    eventlet.sleep(0)

def test_fetch():
    fetch()

def test_later():
    with eventlet.Timeout(60):
        eventlet.sleep(30)
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_the_timeout_that_ended_a_test_is_shown_with_the_line_that_started_it(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytester.makepyfile(test_x=OLDER)
    result = pytester.runpytest("--dump-asyncio-tasks", f"--eventlet-hub={hub}", "-W", "ignore")
    result.assert_outcomes(failed=1, passed=1)
    result.stdout.re_match_lines(
        [
            r"  in \S+ s: raise Timeout\(60\) in the test, started at test_x\.py:11 in test_later$",
            r"-+ Timeout -+$",
            r"Timeout\(0\.2\), started at test_x\.py:4 in fetch$",
        ]
    )


def test_a_timeout_that_was_caught_is_not_shown_for_another_error(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=SUITE)
    result = pytester.runpytest("--dump-asyncio-tasks", "--eventlet-hub=epolls", "-W", "ignore")
    text = result.stdout.str()
    assert re.search(
        r"^KeyError, started at test_x.py:\d+ in test_exception_of_its_own$", text, re.M
    )
    for test in ("test_another_error_later", "test_the_same_class_later"):
        assert "- Timeout -" not in of(text, test)


IN_HUB = """
import asyncio

import eventlet
from eventlet.asyncio import spawn_for_awaitable

async def fetch(seconds):
    with eventlet.Timeout(seconds):
        await asyncio.sleep(0.1)

def forgets():
    eventlet.Timeout(0.05)

def test_fetch():
    spawn_for_awaitable(fetch(0.01)).wait()
    assert False

def test_fetch_in_time():
    spawn_for_awaitable(fetch(5)).wait()
    assert False

def test_greenthread_that_has_ended():
    eventlet.spawn(forgets).wait()
    eventlet.sleep(0.1)
    assert False
"""


def test_a_timeout_that_comes_up_in_the_hub_is_told_with_the_reason(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=IN_HUB)
    result = pytester.runpytest("--dump-asyncio-tasks", "--eventlet-hub=asyncio", "-W", "ignore")
    result.assert_outcomes(failed=3)
    told = [line.strip() for line in result.outlines if "ended no wait" in line]
    assert told == [
        "Timeout(0.01), started at test_x.py:7 in fetch, ended no wait: the code that started "
        "it was called by the hub, or is a coroutine that the hub runs, so it was raised in the hub"
    ]


IN_VAIN = """
import posix

import eventlet
from eventlet.green import socket

def test_waits_on_what_is_closed():
    reader, writer = socket.socketpair()
    eventlet.spawn_after(0.01, posix.close, reader.fileno())
    try:
        with eventlet.Timeout(0.1):
            reader.recv(1)
    finally:
        reader.detach()

def test_waits_for_nothing():
    reader, writer = socket.socketpair()
    with eventlet.Timeout(0.1):
        reader.recv(1)
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_what_is_wrong_with_the_wait_that_a_timeout_ends_is_in_the_summary(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytester.makepyfile(test_x=IN_VAIN)
    result = pytester.runpytest("--dump-asyncio-tasks", f"--eventlet-hub={hub}", "-W", "ignore")
    result.assert_outcomes(failed=2)
    told = [line for line in result.outlines if "waited in vain" in line]
    assert len(told) == 1
    assert re.fullmatch(
        r"    the test waited in vain at test_x\.py:11 in test_waits_on_what_is_closed on read on "
        r"fd \d+, .*, which the hub's epoll set no longer has(, \S+ s left)?",
        told[0],
    )


TAKEN = """
import eventlet
from eventlet import pools
from eventlet import semaphore

def job():
    eventlet.sleep(10)

def test_full():
    pool = eventlet.GreenPool(2)
    pool.spawn(job)
    pool.spawn_n(job)
    with eventlet.Timeout(0.1):
        pool.spawn(job)

def test_ends_of_all():
    pool = eventlet.GreenPool(2)
    pool.spawn(job)
    with eventlet.Timeout(0.1):
        pool.waitall()

def test_ends_of_all_in_a_circle():
    pool = eventlet.GreenPool()
    me = eventlet.getcurrent()
    first = eventlet.spawn(lambda: pool.waitall())
    pool.spawn(first.wait)
    with eventlet.Timeout(0.1):
        eventlet.sleep(1)

def test_empty():
    pool = pools.Pool(max_size=1)
    pool.create = object
    pool.get()
    with eventlet.Timeout(0.1):
        pool.get()

def test_held():
    lock = semaphore.Semaphore()
    def hold():
        with lock:
            eventlet.sleep(10)
    eventlet.spawn(hold)
    eventlet.sleep(0)
    with eventlet.Timeout(0.1):
        lock.acquire()

def test_nobody_holds():
    with eventlet.Timeout(0.1):
        semaphore.Semaphore(0).acquire()
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_who_keeps_a_wait_from_its_end_is_in_the_summary(
    pytester: pytest.Pytester, hub: str
) -> None:
    result, told = waited(pytester, TAKEN, hub, failed=6)
    told = [re.sub(r"9\.[89] s", "9.9 s", line) for line in told]
    assert told == [
        "the test waited in vain at test_x.py:13 in test_full on GreenPool.spawn, 2 places, all "
        "taken by job at test_x.py:6 x 2",
        "the test waited in vain at test_x.py:19 in test_ends_of_all on GreenPool.waitall, 1 "
        "running: job at test_x.py:6, which waits at test_x.py:6 in job on sleep, 9.9 s left",
        "the test waited in vain at test_x.py:34 in test_empty on Pool.get, 1 item, in use, taken "
        "at test_x.py:32 in test_empty by the test",
        "the test waited in vain at test_x.py:44 in test_held on Semaphore, value 0, 1 waiting, "
        "held by hold, which waits at test_x.py:40 in hold on sleep, 9.9 s left",
    ]
    text = result.stdout.str()
    assert "waits on GreenPool.waitall, 1 running: job at test_x.py:6\n" in text
    assert re.search(r"DEADLOCK: each waits for the end of the next: .*<lambda>", text)


CHAIN = """
import asyncio
import eventlet
from eventlet import db_pool, pools, semaphore
from eventlet.asyncio import spawn_for_awaitable
from eventlet.event import Event

class Client:
    async def call(self):
        self.reply = asyncio.get_running_loop().create_future()
        return await self.reply

def test_coroutine():
    with eventlet.Timeout(0.3):
        spawn_for_awaitable(Client().call()).wait()

def listen():
    Event().wait()

async def bridge():
    await eventlet.spawn(listen)

def test_greenthread_of_a_coroutine():
    with eventlet.Timeout(0.3):
        spawn_for_awaitable(bridge()).wait()

def test_circle_of_locks():
    first, second = semaphore.Semaphore(), semaphore.Semaphore()
    def other():
        with second:
            eventlet.sleep(0)
            with first:
                pass
    eventlet.spawn(other)
    with first:
        eventlet.sleep(0)
        with eventlet.Timeout(0.3):
            with second:
                pass

def test_circle():
    def first():
        threads[1].wait()
    def second():
        threads[0].wait()
    threads = [eventlet.spawn(each) for each in (first, second)]
    with eventlet.Timeout(0.3):
        threads[0].wait()

class Connections(pools.Pool):
    def create(self):
        return object()

def fetch(pool):
    pool.get()

def test_items_that_are_lost():
    pool = Connections(max_size=2)
    for _ in range(2):
        eventlet.spawn(fetch, pool).wait()
    pool.put(pool.get()) if pool.free() else None
    with eventlet.Timeout(0.3):
        pool.get()

class Driver:
    def connect():
        return Driver()
    def close(self):
        pass
    def rollback(self):
        pass

def request(pool):
    connection = pool.get()
    eventlet.sleep(60)

def test_connection():
    pool = db_pool.RawConnectionPool(Driver, max_size=1)
    pool.put(pool.get())
    eventlet.spawn(request, pool)
    eventlet.sleep(0)
    with eventlet.Timeout(0.3):
        pool.get()

def test_items_that_came_otherwise():
    pool = Connections(max_size=1)
    pool.current_size = 1
    with eventlet.Timeout(0.3):
        pool.get()
"""


def test_what_the_test_waited_for_is_followed_to_its_end(pytester: pytest.Pytester) -> None:
    run = "the end of greenthread spawn_for_awaitable.<locals>._run, which waits on task"
    _, told = waited(pytester, CHAIN, "asyncio", failed=7)
    patterns = (
        rf"at test_x\.py:14 in test_coroutine on {run} Task-\d+, Client\.call\(\), which waits at "
        rf"test_x\.py:10 in {in_frames('Client.call')} on a Future, not done, created at "
        rf"test_x\.py:9 in {in_frames('Client.call')}",
        rf"at test_x\.py:24 in test_greenthread_of_a_coroutine on {run} Task-\d+, bridge\(\), "
        r"which waits at test_x\.py:20 in bridge on the end of a greenthread, which waits at "
        r"test_x\.py:17 in listen on Event, 1 waiting",
        r"at test_x\.py:37 in test_circle_of_locks on Semaphore, value 0, 1 waiting, held by "
        r"\S*other, which waits at test_x\.py:31 in \S*other on Semaphore, value 0, 1 waiting, "
        r"held by the test: they wait for each other, unless another one lets them go on",
        r"at test_x\.py:47 in test_circle on the end of greenthread \S*first, which waits at .* on "
        r"the end of greenthread \S*second, which waits at .* on the end of greenthread \S*first: "
        r"they wait for each other",
        r"at test_x\.py:62 in test_items_that_are_lost on Connections\.get, 2 items, all in use, "
        r"taken at test_x\.py:54 in fetch by a greenthread that has ended",
        r"at test_x\.py:82 in test_connection on RawConnectionPool\.get, 1 item, in use, taken at "
        r"test_x\.py:73 in request by request, which waits at test_x\.py:74 in request on sleep, "
        r"59\.\d s left",
        r"at test_x\.py:88 in test_items_that_came_otherwise on Connections\.get, 1 item, in use",
    )
    assert len(told) == len(patterns), told
    for pattern, line in zip(patterns, told, strict=True):
        assert re.fullmatch(f"the test waited in vain {pattern}", line), (pattern, line)


LOCKS = """
import asyncio
import eventlet
import pytest
from eventlet.asyncio import spawn_for_awaitable

class Store:
    def __init__(self, lock):
        self.lock = lock
        self.written = asyncio.Event()

    async def begin(self):
        await self.lock.acquire()

    async def write(self, error=None):
        await self.begin()
        if error:
            raise error
        self.lock.release()

    async def keep(self, seconds):
        await self.begin()
        await asyncio.sleep(seconds)
        self.lock.release()

    async def wait(self):
        async with self.lock:
            await self.written.wait()

def wait_for(*coroutines):
    for each in [spawn_for_awaitable(each) for each in coroutines]:
        each.wait()

def test_not_released():
    store = Store(asyncio.Lock())
    with pytest.raises(ValueError):
        wait_for(store.write(ValueError()))
    with eventlet.Timeout(0.3):
        wait_for(store.write())

def test_acquired_elsewhere():
    store = Store(asyncio.Lock())
    wait_for(store.write(), store.keep(0))
    spawn_for_awaitable(store.keep(60))
    eventlet.sleep(0)
    with eventlet.Timeout(0.3):
        wait_for(store.write())

def test_several():
    store = Store(asyncio.Semaphore(2))
    for _ in range(2):
        spawn_for_awaitable(store.keep(60))
    eventlet.sleep(0)
    with eventlet.Timeout(0.3):
        wait_for(store.write())

def test_event():
    with eventlet.Timeout(0.3):
        wait_for(Store(asyncio.Lock()).wait())

def test_acquired_by_itself():
    store = Store(asyncio.Lock())
    async def writes_as_it_keeps():
        await store.begin()
        await store.write()
    with eventlet.Timeout(0.3):
        wait_for(writes_as_it_keeps())
"""


def test_who_has_acquired_a_lock_of_asyncios_is_told_though_its_frame_does_not_show_it(
    pytester: pytest.Pytester,
) -> None:
    result, told = waited(pytester, LOCKS, "asyncio", failed=5)
    begin, wait = in_frames("Store.begin"), in_frames("Store.wait")
    lock = rf"waits at test_x\.py:12 in {begin} on Lock\.acquire, locked, 1 waiting, acquired at"
    semaphore = rf"waits at test_x\.py:12 in {begin} on Semaphore\.acquire, value 0, 1 waiting"
    by = rf"test_x\.py:12 in {begin} by task Task-\d+"
    keep = in_frames("Store.keep")
    patterns = (
        rf"{lock} {by}, Store\.write\(\), which has ended",
        rf"{lock} {by}, Store\.keep\(\), which waits at test_x\.py:22 in {keep} on sleep, 59\.\d s "
        "left",
        rf"{semaphore}(, acquired at {by}, Store\.keep\(\)){{2}}",
        rf"waits at test_x\.py:27 in {wait} on Event\.wait, not set, 1 waiting, created at "
        rf"test_x\.py:9 in {in_frames('Store.__init__')}",
        rf"{lock} {by}, \S*writes_as_it_keeps\(\): it waits for itself, unless another one lets "
        "it go on",
    )
    assert len(told) == len(patterns), told
    for pattern, line in zip(patterns, told, strict=True):
        assert re.search(f"\\bw\\w+\\(\\), which {pattern}$", line), (pattern, line)
    assert "pytest_eventlet_debug" not in result.stdout.str()


SEVERAL = """
import asyncio
import eventlet
from eventlet.asyncio import spawn_for_awaitable

async def move(source, target):
    async with source:
        await asyncio.sleep(0)
        async with target:
            pass

async def both_ways():
    one, other = asyncio.Lock(), asyncio.Lock()
    await asyncio.gather(asyncio.sleep(60), move(one, other), move(other, one))

def test_tasks():
    with eventlet.Timeout(0.3):
        spawn_for_awaitable(both_ways()).wait()

async def await_other(tasks, other):
    await asyncio.sleep(0)
    await tasks[other]

async def both_await():
    tasks = []
    tasks += [asyncio.ensure_future(await_other(tasks, other)) for other in (1, 0)]
    await asyncio.gather(*tasks)

def test_tasks_that_await_each_other():
    with eventlet.Timeout(0.3):
        spawn_for_awaitable(both_await()).wait()

def test_greenthreads():
    def first():
        threads[2].wait()
    def second():
        threads[1].wait()
    pool = eventlet.GreenPool()
    threads = [pool.spawn(*call) for call in ((eventlet.sleep, 60), (first,), (second,))]
    with eventlet.Timeout(0.3):
        pool.waitall()

def test_no_circle():
    pool = eventlet.GreenPool()
    for seconds in (60, 61):
        pool.spawn(eventlet.sleep, seconds)
    with eventlet.Timeout(0.3):
        pool.waitall()
"""


def test_those_of_several_are_followed_that_wait_for_each_other(pytester: pytest.Pytester) -> None:
    _, told = waited(pytester, SEVERAL, "asyncio", failed=4)
    move = in_frames("move")
    holds = (
        rf"waits at test_x\.py:8 in {move} on Lock\.acquire, locked, 1 waiting, acquired at "
        rf"test_x\.py:6 in {move} by task Task-\d+, move\(\)"
    )
    patterns = (
        rf"on gather of 3, among them task Task-\d+, move\(\), which {holds}, which {holds}: "
        "they wait for each other, unless another one lets them go on",
        r"on gather of 2, among them task (Task-\d+), await_other\(\), which waits at .* on task "
        r"(Task-\d+), which waits at .* on task \1: they wait for each other",
        # Which one is the first in a set differs.
        r"on GreenPool\.waitall, 3 running: .*, among them greenthread (\S+), which waits at .* on "
        r"the end of greenthread (?!\1,)\S+, which waits at .* on the end of greenthread \1: they "
        "wait for each other",
    )
    assert len(told) == len(patterns), told
    for pattern, line in zip(patterns, told, strict=True):
        assert re.search(f"{pattern}$", line), (pattern, line)


TPOOL = """
import eventlet
from eventlet import patcher, tpool
import pytest
threading = patcher.original("threading")
lock, ready = threading.Lock(), threading.Event()

def write():
    with lock:
        pass

@pytest.fixture(autouse=True)
def releases():
    yield
    if lock.locked():
        lock.release()
    tpool.killall()

def test_holds_it():
    with eventlet.Timeout(0.5):
        with lock:
            tpool.execute(write)

def test_another_one_holds_it():
    def keep():
        with lock:
            eventlet.sleep(60)
            ready.set()
    eventlet.spawn(keep)
    eventlet.sleep(0)
    with eventlet.Timeout(0.5):
        tpool.execute(write)

def test_nobody_holds_anything():
    with eventlet.Timeout(0.5):
        tpool.execute(ready.wait, 2)

def test_full():
    tpool.set_num_threads(2)
    for _ in range(2):
        eventlet.spawn(tpool.execute, ready.wait, 2)
    eventlet.sleep(0.1)
    with eventlet.Timeout(0.5):
        tpool.execute(write)
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_who_holds_the_lock_that_a_thread_of_tpool_waits_for_is_told(
    pytester: pytest.Pytester, hub: str
) -> None:
    _, told = waited(pytester, TPOOL, hub, failed=4)
    executes = "on tpool, which executes write, which waits at test_x.py:8 in write on a threading"
    assert len(told) == 3, told
    assert told[2] == (
        "the test waited in vain at test_x.py:43 in test_full on tpool, which is to execute write, "
        "but its 2 threads execute other calls"
    )
    assert told[0] == (
        f"the test waited in vain at test_x.py:21 in test_holds_it {executes} lock, held by the "
        "test: it waits for itself, unless another one lets it go on"
    )
    assert re.fullmatch(
        rf"the test waited in vain at test_x\.py:31 in test_another_one_holds_it {executes} "
        r"lock, held by keep, which waits at "
        r"test_x\.py:26 in keep on sleep, 59\.\d s left",
        told[1],
    )


THREADS = """
import eventlet
eventlet.monkey_patch()
import concurrent.futures, queue, threading
import pytest

gate, empty, undone = threading.Event(), queue.Queue(), queue.Queue()
undone.put(1)
future = concurrent.futures.Future()

@pytest.mark.parametrize("wait", [gate.wait, empty.get, undone.join, future.result])
def test_thread(wait):
    def work():
        wait()
    thread = threading.Thread(target=work, name="worker")
    thread.start()
    with eventlet.Timeout(0.3):
        thread.join()
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_patched_thread_is_followed_to_what_it_waits_for(
    pytester: pytest.Pytester, hub: str
) -> None:
    _, told = waited(pytester, THREADS, hub, failed=4)
    # From Python 3.13 on a thread is joined by way of its greenthread.
    older = sys.version_info < (3, 13)
    name = "thread worker" if older else "greenthread work"
    begin = (
        f"the test waited in vain at test_x.py:17 in test_thread on the end of {name}, which waits "
        "at test_x.py:13 in work on "
    )
    assert told == [
        f"{begin}Event.wait, not set",
        f"{begin}Queue.get, 0 items",
        f"{begin}Queue.join, 1 without task_done()",
        f"{begin}Future.result, pending",
    ]


RAISED_BEFORE = """
import eventlet
from eventlet.event import Event

def serve():
    Event().wait()

def test_raises_what_goes_on():
    raise eventlet.Timeout(0.2)

def test_waits():
    eventlet.spawn(serve).wait()
"""


def test_a_timeout_that_an_earlier_test_has_raised_itself_is_known(
    pytester: pytest.Pytester,
) -> None:
    _, told = waited(pytester, RAISED_BEFORE, "epolls", failed=2)
    assert told == [
        "the test waited in vain at test_x.py:11 in test_waits on the end of greenthread serve, "
        "which waits at test_x.py:5 in serve on Event, 1 waiting"
    ]


OF_TESTTOOLS = """
import eventlet
from eventlet.event import Event
import testtools

def serve():
    Event().wait()

class Tests(testtools.TestCase):
    def test_waits(self):
        with eventlet.Timeout(0.3):
            eventlet.spawn(serve).wait()

    def test_fails_after_a_timeout(self):
        with eventlet.Timeout(0.1, False):
            eventlet.spawn(serve).wait()
        raise eventlet.Timeout(0.2)

    def test_another_error(self):
        with eventlet.Timeout(0.1, KeyError("late")):
            eventlet.spawn(serve).wait()
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_test_of_testtools_is_known_by_the_text_that_it_has_of_its_error(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytest.importorskip("testtools")
    _, told = waited(pytester, OF_TESTTOOLS, hub, failed=3)
    waits = "the end of greenthread serve, which waits at test_x.py:6 in serve on Event, 1 waiting"
    assert told == [
        f"the test waited in vain at test_x.py:{line} in {in_frames(f'Tests.{test}')} on {waits}"
        for line, test in ((20, "test_another_error"), (11, "test_waits"))
    ]


EXECUTORS = """
import eventlet
eventlet.monkey_patch()
from concurrent.futures import thread
import queue, threading

def make(size):
    pool = thread.ThreadPoolExecutor(size)
    pool._work_queue = queue.Queue()  # where asyncio is imported, that of C may be left
    return pool

def test_waits_for_its_own_thread():
    pool = make(1)
    def outer():
        return pool.submit(len, "abc").result()
    with eventlet.Timeout(0.2):
        pool.submit(outer).result()

def test_all_are_busy():
    pool = make(2)
    gate = threading.Event()
    for _ in range(2):
        pool.submit(gate.wait)
    with eventlet.Timeout(0.2):
        pool.submit(len, "abc").result()

def test_runs():
    gate = threading.Event()
    with eventlet.Timeout(0.2):
        make(2).submit(gate.wait).result()
"""


def test_what_keeps_a_greened_executor_from_a_call_is_told(pytester: pytest.Pytester) -> None:
    _, told = waited(pytester, EXECUTORS, "epolls", failed=3)
    begin = "the test waited in vain at test_x.py:{} on Future.result, "
    behind = "pending, behind what the {} of its executor run"
    assert told == [
        begin.format("16 in test_waits_for_its_own_thread")
        + "running, which waits at test_x.py:14 in outer on Future.result, "
        + f"{behind.format('only thread')}s: it waits for itself, unless another one lets it go on",
        begin.format("24 in test_all_are_busy") + behind.format("2 threads"),
        begin.format("29 in test_runs") + "running, which waits on Event.wait, not set",
    ]
