"""Who cancelled a task or killed a greenthread, and from where."""

from __future__ import annotations

import re

import pytest

SUITE = """
import asyncio
import eventlet
import pytest

def waits():
    eventlet.sleep(60)

def test_killed():
    victim = eventlet.spawn(waits)
    eventlet.sleep(0)
    def killer():
        victim.kill()
    eventlet.spawn(killer)
    victim.wait()

def test_heedless():
    def heedless():
        for _ in range(2):
            try:
                eventlet.sleep(60)
            except BaseException:
                pass
    victim = eventlet.spawn(heedless)
    eventlet.sleep(0)
    eventlet.kill(victim)
    assert False

def test_killed_before_it_began():
    eventlet.spawn(waits).kill()
    assert False

@pytest.mark.eventlet_hub("epolls")
def test_cancelled():
    async def waits():
        await asyncio.sleep(60)
    async def main():
        task = asyncio.create_task(waits())
        await asyncio.sleep(0)
        task.cancel()
        other = asyncio.create_task(waits())
        asyncio.get_running_loop().call_later(0.01, other.cancel)
        await other
    asyncio.run(main())

def test_nothing_of_earlier_tests():
    assert False

def test_leaves():
    test_leaves.victim = victim = eventlet.spawn(heedless)
    eventlet.sleep(0)
    victim.kill()

def heedless():
    while True:
        try:
            eventlet.sleep(60)
        except BaseException:
            pass
"""


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_failing_test_says_who_ended_whom(pytester: pytest.Pytester, hub: str) -> None:
    pytester.makepyfile(test_x=SUITE)
    pytester.makeconftest(
        """
        def pytest_unconfigure():
            import asyncio, types
            from eventlet import greenthread
            print("as before:", type(asyncio.Task.cancel) is types.MethodDescriptorType,
                  not hasattr(greenthread.kill, "__wrapped__"))
        """
    )
    result = pytester.runpytest(
        *("--dump-asyncio-tasks", "--eventlet-leaks=warn", f"--eventlet-hub={hub}", "-s")
    )
    text = result.stdout.str()
    told = dict(re.findall(r"^_+ (test_\w+)\[.*?$(.*?)^-+ eventlet-debug", text, re.M | re.S))
    here = r" at test_x\.py:\d+ in "
    patterns = {
        "test_killed": rf"^greenthread waits was killed{here}\S*killer, by greenthread killer$",
        "test_heedless": rf"^greenthread heedless was killed{here}test_heedless, by the test$",
        "test_killed_before_it_began": rf"^a greenthread that had not begun was killed{here}",
    }
    if hub == "epolls":
        patterns["test_cancelled"] = (
            rf"^task Task-2, \S+waits\(\) was cancelled{here}\S*main, by task Task-1, \S+main\(\)\n"
            r"task Task-3, \S+waits\(\) was cancelled at \S+events.py:\d+ in \S*_run, "
            r"by a callback of the loop$"
        )
    for test, pattern in patterns.items():
        assert re.search(pattern, told[test], re.M), (test, told[test])
    assert re.search(r"spawned at .*\n    killed at test_x\.py:\d+ in ", told["test_heedless"])
    assert "Cancelled and killed" not in told["test_nothing_of_earlier_tests"]
    assert re.search(r"greenthread heedless .*killed at test_x\.py:\d+$", text, re.M)
    assert "as before: True True" in text


def test_the_asyncio_hub_cancels_nothing_when_a_timer_is_due(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import eventlet

        def test_it():
            victim = eventlet.spawn(eventlet.sleep, 60)
            eventlet.sleep(0)
            victim.kill()
            for _ in range(12):  # more than are kept
                eventlet.sleep(0.005)
            assert False
        """
    )
    result = pytester.runpytest("--dump-asyncio-tasks", "--eventlet-hub=asyncio")
    text = result.stdout.str()
    assert re.search(r"^-+ Cancelled and killed -+\ngreenthread sleep was killed .*\n-", text, re.M)
    assert "  cancelled at " not in text


def test_a_task_that_another_one_waits_for_is_cancelled_by_who_cancels_that(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import asyncio

        async def inner():
            await asyncio.sleep(60)

        async def outer():
            await asyncio.create_task(inner(), name="inner")

        async def main():
            task = asyncio.create_task(outer(), name="outer")
            asyncio.get_running_loop().call_later(0.01, task.cancel)
            await task

        def test_it():
            asyncio.run(main())
        """
    )
    result = pytester.runpytest("--dump-asyncio-tasks", "--eventlet-hub=epolls")
    ended = re.findall(r"^(task .* was cancelled) at (.*)$", result.stdout.str(), re.M)
    assert [what for what, _ in ended] == [
        "task inner, inner() was cancelled",
        "task outer, outer() was cancelled",
    ]
    assert re.fullmatch(r"\S+events.py:\d+ in \S*_run, by a callback of the loop", ended[1][1])
    assert ended[0][1] == ended[1][1]
