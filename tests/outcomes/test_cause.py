"""What a test's report says of why it failed."""

from __future__ import annotations

import re

import pytest

from pytest_eventlet_debug.outcomes.cause import cause_of

NATIVE = '''
    import unittest

    class Shown(Exception):
        """As testtools has it: a text in place of a traceback."""

    class TestA(unittest.TestCase):
        def run(self, result):
            result.startTest(self)
            text = (
                'Traceback (most recent call last):\\n  File "a.py", line 7, in test_a\\n'
                "    self.fail()\\nlib.Mismatch: 1 != 2\\n"
            )
            result.addFailure(self, (Shown, Shown(text), None))
            result.stopTest(self)

        def test_a(self):
            pass
'''


def test_of_an_error_that_pytest_cannot_represent_the_one_in_its_text_is_told(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(NATIVE)
    _, _, (report,) = pytester.inline_run().listoutcomes()
    assert isinstance(report, pytest.TestReport)
    assert "NOTE: Incompatible Exception Representation" in report.longreprtext
    assert cause_of(report).error == "lib.Mismatch: 1 != 2"


THREADS = """
    import eventlet
    from eventlet import patcher
    from eventlet.semaphore import Semaphore

    threading = patcher.original("threading")


    def release(lock):
        lock.release()
        eventlet.sleep(0.01)


    def test_waits():
        lock = Semaphore(0)
        thread = threading.Thread(target=release, args=(lock,))
        eventlet.spawn(thread.start)
        try:
            with eventlet.Timeout(1):
                lock.acquire()
        finally:
            thread.join()
"""


def test_a_lock_that_another_thread_releases_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(THREADS)
    result = pytester.runpytest("--eventlet-hub=epolls", "-W", "ignore")
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r"    printed: greenlet\.error: .*semaphore\.py:\d+ in _do_acquire\)",
            r"    two threads use one lock, event or queue of eventlet's, which cannot wake a ",
        ],
        consecutive=True,
    )


HANGS = """
    import eventlet
    from eventlet.queue import Queue


    def work(queue):
        queue.get()
        raise ValueError("lost")


    def test_hangs():
        queue = Queue()
        eventlet.spawn(work, queue)
        queue.put(1)
        queue.join()
"""


def test_what_a_test_had_printed_that_hangs_is_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(HANGS)
    result = pytester.runpytest("--eventlet-hub=epolls", "--eventlet-timeout=2", "-W", "ignore")
    result.stdout.re_match_lines(
        [r"=+ findings =+", r".*test_hangs.*", r"    printed: ValueError: lost \(\S+:7 in work\)"],
        consecutive=True,
    )


OF_A_TASK = """
import asyncio, gc

async def fails():
    raise KeyError("lost")

def leave():
    loop = asyncio.new_event_loop()
    async def make():
        made = asyncio.ensure_future(fails())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    loop.run_until_complete(make())
    loop.close()
    gc.collect()

def test_leaves():
    leave()
    assert False

def test_prints():
    leave()
    import traceback
    try:
        1 / 0
    except ZeroDivisionError:
        traceback.print_exc()
    assert False
"""


def test_what_asyncio_prints_of_a_task_that_may_be_an_earlier_tests_comes_last(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=OF_A_TASK)
    result = pytester.runpytest("--eventlet-hub=poll", "-W", "ignore")
    result.assert_outcomes(failed=2)
    text = result.stdout.str()
    line = re.search(r"^    printed: KeyError: 'lost' \(test_x.py:4 in fails\)(.*)$", text, re.M)
    assert line is not None
    assert line[1] == ", as asyncio tells of a task, perhaps an earlier test's"
    assert re.search(
        r"^    printed: ZeroDivisionError: division by zero \(\S+ in test_prints\)$", text, re.M
    )
