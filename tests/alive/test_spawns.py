"""Where greenthreads were spawned."""

from __future__ import annotations

import re

import pytest

SUITE = """
import eventlet
from eventlet import spawn, spawn_n

def waits():
    eventlet.sleep(60)

def test_spawns():
    spawn(waits)
    spawn_n(waits)
    eventlet.spawn_after(0, waits)
    pool = eventlet.GreenPool()
    pool.spawn(waits)
    pool.spawn_n(waits)
    eventlet.sleep(0.01)
    assert False

def test_spawns_alike():
    for _ in range(5):
        spawn(waits)
    eventlet.sleep(0.01)
    assert False
"""


@pytest.mark.parametrize("more", [[], ["--eventlet-leaks=warn"]])
def test_greenthreads_say_where_they_were_spawned(
    pytester: pytest.Pytester, more: list[str]
) -> None:
    pytester.makepyfile(test_x=SUITE)
    pytester.makeconftest(
        """
        def pytest_unconfigure():
            from eventlet.greenthread import GreenThread, _spawn_n
            print("wrapped:", hasattr(GreenThread.__init__, "__wrapped__"),
                  hasattr(_spawn_n, "__wrapped__"))
        """
    )
    result = pytester.runpytest(
        *("--dump-asyncio-tasks", "--eventlet-hub=epolls", "-W", "ignore", "-s", *more)
    )
    text = result.stdout.str()
    first, second = re.split(r"^_+ test_spawns_alike", text, flags=re.MULTILINE)
    lines = re.findall(r"^    spawned at test_x.py:(\d+) in test_spawns$", first, re.MULTILINE)
    assert sorted(map(int, lines)) == [8, 9, 10, 12, 13], text
    assert re.search(
        r"^  waits  suspended  x 5\n    spawned at test_x.py:\d+ in test_spawns_alike\n",
        second,
        re.MULTILINE,
    ), second
    assert "wrapped: False False" in text


def test_nothing_is_wrapped_where_nobody_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from eventlet.greenthread import GreenThread
        def test_plain():
            assert not hasattr(GreenThread.__init__, "__wrapped__")
        """
    )
    pytester.runpytest("--eventlet-hub=epolls").assert_outcomes(passed=1)
