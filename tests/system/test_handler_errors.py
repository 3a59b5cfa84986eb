"""handler_errors: what a signal handler raises in our code comes out behind it."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import os
import signal
from typing import Any

import greenlet
from needs import needs_strace
import pytest

from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.handler_errors import put_off

pytest.importorskip("pytest_eventlet_debug.system._handlers", reason="nothing was compiled")


class AlarmError(Exception):
    pass


def ring(*_: object) -> None:
    raise AlarmError("ring")


class Bell:
    def ring(self, *_: object) -> None:
        pytest.fail("ring")


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, ring)
    yield
    signal.signal(signal.SIGALRM, before)


def go_on() -> None:
    for _ in range(1000):
        os.getpid()


@pytest.mark.parametrize(
    ("handler", "kind"), [(ring, AlarmError), (Bell().ring, pytest.fail.Exception)]
)
def test_a_shield_lets_it_out_once_its_hook_has_returned(
    handler: Callable[..., None], kind: type[BaseException]
) -> None:
    signal.signal(signal.SIGALRM, handler)
    notes: list[str] = []

    def hook() -> None:
        with Shield(notes.append):
            signal.raise_signal(signal.SIGALRM)
            notes.append("not reached")
        go_on()

    with pytest.raises(kind, match=r"^ring$") as raised:
        hook()
    assert len(notes) == 1
    assert "ring" in notes[0]
    assert "ring" in [entry.name for entry in raised.traceback]
    assert signal.getsignal(signal.SIGALRM) == handler


def test_a_callback_at_a_switch_stays_subscribed() -> None:
    heard: list[str] = []

    def hear(event: str, _arguments: tuple[Any, Any]) -> None:
        heard.append(event)
        if len(heard) == 1:
            signal.raise_signal(signal.SIGALRM)
            heard.append("not reached")

    assert switches.subscribe(hear)
    try:
        with pytest.raises(AlarmError):
            greenlet.greenlet(go_on).switch()
        assert switches.subscribed(hear)
        greenlet.greenlet(int).switch()
        assert heard == ["switch", "throw", "switch", "switch"]
    finally:
        switches.unsubscribe(hear)


def test_it_waits_for_as_long_as_our_code_runs() -> None:
    done: list[object] = []

    def hear(*_: object) -> None:
        if not done:
            try:
                signal.raise_signal(signal.SIGALRM)
            except AlarmError as error:
                done.append(put_off(error))
            go_on()
            done.append("all of it")

    assert switches.subscribe(hear)
    try:
        with pytest.raises(AlarmError):
            greenlet.greenlet(int).switch()
        assert done == [True, "all of it"]
    finally:
        switches.unsubscribe(hear)


def test_what_no_handler_has_raised_is_no_business_of_handlers() -> None:
    def fail() -> None:
        raise AlarmError("of our own")

    try:
        fail()
    except AlarmError as error:
        is_handlers = put_off(error)
    assert not is_handlers
    go_on()


@pytest.mark.fault("handler-raises")
@needs_strace
def test_an_alarm_ends_a_test_that_switches_all_the_time(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import signal, time, greenlet, pytest

        def ring(*_):
            raise TimeoutError

        def switch_back():
            while True:
                greenlet.getcurrent().parent.switch()

        @pytest.mark.parametrize("number", range(20))
        def test_alarm(number):
            former = signal.signal(signal.SIGALRM, ring)
            other = greenlet.greenlet(switch_back)
            until = time.monotonic() + 5
            with pytest.raises(TimeoutError):
                signal.setitimer(signal.ITIMER_REAL, 0.02)
                while time.monotonic() < until:
                    other.switch()
            signal.signal(signal.SIGALRM, former)
        """
    )
    done = pytester.runpytest("--strace", "--eventlet-leaks=warn")
    done.assert_outcomes(passed=20)
