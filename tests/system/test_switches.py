"""switches: one settrace slot, several listeners, names for greenlets."""

from __future__ import annotations

from collections.abc import Iterator
import functools
import subprocess
import sys
import textwrap
from typing import Any
from unittest import mock

import greenlet
import pytest

from pytest_eventlet_debug.system import switches


@pytest.fixture(autouse=True)
def _slot() -> Iterator[None]:
    before = greenlet.gettrace()
    yield
    assert greenlet.gettrace() is before


class Listener:
    def __init__(self) -> None:
        self.events: list[tuple[str, Any, Any]] = []

    def __call__(self, event: str, arguments: tuple[Any, Any]) -> None:
        self.events.append((event, *arguments))


def switch_once() -> Any:
    other = greenlet.greenlet(lambda: None)
    other.switch()
    return other


def test_every_subscriber_hears_of_every_switch() -> None:
    one, two = Listener(), Listener()
    main = greenlet.getcurrent()
    assert switches.subscribe(one)
    assert switches.subscribe(two)
    other = switch_once()
    switches.unsubscribe(one)
    switch_once()
    switches.unsubscribe(two)
    assert one.events == [("switch", main, other), ("switch", other, main)]
    assert len(two.events) == 4


def test_the_callback_that_was_there_before_hears_on_and_gets_its_place_back() -> None:
    former, ours = Listener(), Listener()
    greenlet.settrace(former)
    try:
        switches.subscribe(ours)
        switch_once()
        assert len(former.events) == len(ours.events) == 2
        switches.unsubscribe(ours)
        assert greenlet.gettrace() is former
    finally:
        greenlet.settrace(None)


def test_a_callback_that_came_after_us_keeps_the_slot() -> None:
    ours, later = Listener(), Listener()
    switches.subscribe(ours)
    before = greenlet.settrace(later)
    switches.unsubscribe(ours)
    assert greenlet.gettrace() is later
    greenlet.settrace(None)
    assert before is not None


def test_subscribing_again_takes_a_cleared_slot_and_tells_nobody_twice() -> None:
    ours = Listener()
    switches.subscribe(ours)
    greenlet.settrace(None)
    switches.subscribe(ours)
    switch_once()
    switches.unsubscribe(ours)
    assert len(ours.events) == 2


def test_a_callback_that_passes_events_on_to_us_does_not_double_them() -> None:
    ours = Listener()
    switches.subscribe(ours)
    below = greenlet.gettrace()
    assert below is not None

    def chained(event: str, arguments: tuple[Any, Any]) -> None:
        below(event, arguments)

    greenlet.settrace(chained)
    switches.subscribe(ours)
    switch_once()
    switches.unsubscribe(ours)
    greenlet.settrace(None)
    assert len(ours.events) == 2


def test_a_subscriber_that_raises_harms_neither_the_switch_nor_the_others() -> None:
    calls = []

    def faulty(event: str, arguments: tuple[Any, Any]) -> None:
        calls.append(event)
        raise RuntimeError("faulty")

    ours = Listener()
    switches.subscribe(faulty)
    switches.subscribe(ours)
    switch_once()
    switches.unsubscribe(ours)
    switches.unsubscribe(faulty)
    assert calls == ["switch"]
    assert len(ours.events) == 2


@pytest.mark.usefixtures("unmeasured")
def test_greenlet_is_not_imported_for_it() -> None:
    program = (
        "import sys; from pytest_eventlet_debug.system import switches; "
        "print(switches.subscribe(print), 'greenlet' in sys.modules); switches.unsubscribe(print)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "False False\n", done.stderr


def labels_of(program: str) -> list[str]:
    """Run *program* with switches recorded; return ``n label`` for each switch."""
    prologue = (
        "import eventlet, greenlet, functools\n"
        "from pytest_eventlet_debug.system import switches\n"
        "labels = switches.Labels(greenlet.getcurrent())\n"
        "labels.of(greenlet.getcurrent())\n"
        "def switched(event, arguments):\n"
        "    print(*labels.of(arguments[1], arguments[0]))\n"
        "switches.subscribe(switched)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", prologue + program],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_greenthreads_have_the_name_of_their_function_from_the_first_switch() -> None:
    lines = labels_of(
        "def serve(x): eventlet.sleep(0)\n"
        "def fetch(): pass\n"
        "threads = eventlet.spawn(serve, 1), eventlet.spawn(functools.partial(fetch))\n"
        "for thread in threads: thread.wait()\n"
    )
    assert lines[:4] == ["2 hub", "3 serve", "2 hub", "4 fetch"]
    assert set(lines) == {"1 test", "2 hub", "3 serve", "4 fetch"}


def test_a_pool_names_its_greenthreads_from_the_first_switch_on() -> None:
    lines = labels_of(
        "def work():\n"
        "    for _ in range(2): eventlet.sleep(0)\n"
        "pool = eventlet.GreenPool()\n"
        "pool.spawn_n(work)\n"
        "pool.waitall()\n"
    )
    assert lines[:2] == ["2 hub", "3 work"]
    assert "3 greenlet" not in lines


def test_spawn_n_is_named_from_the_second_switch_on() -> None:
    lines = labels_of(
        "def work():\n"
        "    for _ in range(2): eventlet.sleep(0)\n"
        "eventlet.spawn_n(work)\n"
        "for _ in range(9): eventlet.sleep(0)\n"
    )
    assert lines[:2] == ["2 hub", "3 greenlet"]
    assert "3 work" in lines[2:]
    assert "3 greenlet" not in lines[2:]


def test_a_patched_thread_has_the_name_of_its_function_from_the_first_switch_on() -> None:
    lines = labels_of(
        "eventlet.monkey_patch()\n"
        "import threading\n"
        "def serve(): [eventlet.sleep(0) for _ in range(2)]\n"
        "class Watchdog(threading.Thread):\n"
        "    def run(self): serve()\n"
        "threads = threading.Thread(target=serve), Watchdog()\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
    )
    names = [line.partition(" ")[2] for line in lines]
    assert set(names) == {"test", "hub", "serve", "Watchdog"}


def test_what_runs_as_a_patched_thread_has_its_name_from_the_second_switch_on() -> None:
    lines = labels_of(
        "eventlet.monkey_patch()\n"
        "import _thread\n"
        "def serve(): [eventlet.sleep(0) for _ in range(2)]\n"
        "_thread.start_new_thread(serve, ())\n"
        "for _ in range(9): eventlet.sleep(0)\n"
    )
    assert lines[1] == "3 greenlet"
    assert "3 serve" in lines[2:]
    assert "3 greenlet" not in lines[2:]


def test_greenthreads_that_ran_before_are_called_older() -> None:
    lines = labels_of(
        "def left(): [eventlet.sleep(0) for _ in range(9)]\n"
        "def spawned(): pass\n"
        "switches.unsubscribe(switched)\n"
        "thread = eventlet.spawn(left)\n"
        "pool = eventlet.GreenPool()\n"
        "pool.spawn_n(left)\n"
        "eventlet.sleep(0)\n"
        "switches.subscribe(switched)\n"
        "eventlet.spawn(spawned)\n"
        "thread.wait()\n"
    )
    names = {line.partition(" ")[2] for line in lines}
    assert names == {"test", "hub", "left (older)", "spawned"}
    assert sum(name.endswith(" left (older)") for name in set(lines)) == 2


def test_numbers_are_not_given_twice_when_greenlets_die() -> None:
    labels = switches.Labels(greenlet.getcurrent())
    numbers = []
    for _ in range(100):
        numbers.append(labels.of(greenlet.greenlet(functools.partial(int)))[0])
    assert numbers == list(range(1, 101))


def test_what_a_test_puts_in_the_place_of_greenlet_is_not_called() -> None:
    ours = Listener()
    main = greenlet.getcurrent()
    switches.subscribe(ours)
    with mock.patch.dict(sys.modules, greenlet=mock.MagicMock()):
        assert switches.current() is main
        assert switches.subscribed(ours)
        other = switch_once()
        switches.unsubscribe(ours)
    assert ours.events == [("switch", main, other), ("switch", other, main)]


@pytest.mark.usefixtures("unmeasured")
def test_greenlet_is_looked_for_until_it_is_there() -> None:
    program = """
        import sys
        import types
        from pytest_eventlet_debug.system import switches
        assert switches.current() is None
        sys.modules["greenlet"] = types.SimpleNamespace(gettrace=print, settrace=0)
        assert switches.current() is None
        assert not switches.subscribe(print)
        del sys.modules["greenlet"]
        import greenlet
        assert switches.current() is greenlet.getcurrent()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)


def test_a_function_that_answers_no_question_about_itself_is_named_by_its_type() -> None:
    """As werkzeug's proxies do outside of a request."""
    lines = labels_of(
        "class Proxy:\n"
        "    def __getattr__(self, name): raise RuntimeError('outside of a request')\n"
        "    def __call__(self): eventlet.sleep(0)\n"
        "eventlet.spawn(Proxy()).wait()\n"
        "def after(): pass\n"
        "eventlet.spawn(after).wait()\n"
    )
    assert "3 Proxy" in lines
    assert "4 after" in lines  # who names them has not been dropped
