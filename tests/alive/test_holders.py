"""Which locks a frame holds, and which one it is about to take, proven by its source."""

from __future__ import annotations

from collections.abc import Callable
import sys
from typing import Any

import pytest

from pytest_eventlet_debug.alive import holders


class Lock:
    """Looks at the frame that acquires it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.held_then: list[str] = []
        self.awaited_then: Any = None

    def acquire(self) -> None:
        frame = sys._getframe(1)
        held = (each for each in holders.held_by([frame]) if isinstance(each, Lock))
        self.held_then = [each.name for each in held]
        self.awaited_then = holders.awaited_by(frame)

    def release(self) -> None:
        pass

    __enter__ = acquire

    def __exit__(self, *error: object) -> None:
        pass


class Owner:
    __slots__ = ("lock",)

    def __init__(self, lock: Lock) -> None:
        self.lock = lock

    def nested(self, second: Lock) -> None:
        with self.lock:
            if second:
                second.acquire()


def with_in_with(first: Lock, second: Lock) -> None:
    with first:
        with second:
            pass


def plain_acquire(first: Lock, second: Lock) -> None:
    first.acquire()
    try:
        second.acquire()
    finally:
        first.release()


def in_a_loop(first: Lock, second: Lock) -> None:
    for _ in range(2):
        first.acquire()
        second.acquire()
        first.release()


def attribute(first: Lock, second: Lock) -> None:
    Owner(first).nested(second)


def by_key(first: Lock, second: Lock) -> None:
    locks = {"first": first}
    with locks["first"]:
        second.acquire()


def in_a_case(first: Lock, second: Lock) -> None:
    with first:
        match 3:
            case 3:
                second.acquire()


def of_the_function_around(first: Lock, second: Lock) -> None:
    def inner() -> None:
        with first:

            def unused() -> None:
                pass

            second.acquire()

    inner()


def released(first: Lock, second: Lock) -> None:
    first.acquire()
    first.release()
    second.acquire()


def released_in_the_loop(first: Lock, second: Lock) -> None:
    first.acquire()
    while True:
        second.acquire()
        first.release()
        break


def bound_anew(first: Lock, second: Lock) -> None:
    with first:
        first = Lock("another")
        with second:
            pass


def perhaps(first: Lock, second: Lock) -> None:
    if not second:
        first.acquire()
    second.acquire()


def after_it(first: Lock, second: Lock) -> None:
    with first:
        pass
    second.acquire()


def handed_on(first: Lock, second: Lock) -> None:
    first.acquire()
    str(first)
    second.acquire()


def in_the_handler(first: Lock, second: Lock) -> None:
    try:
        with first:
            raise KeyError
    except KeyError:
        second.acquire()


HELD = (
    with_in_with,
    plain_acquire,
    in_a_loop,
    attribute,
    by_key,
    in_a_case,
    of_the_function_around,
)
NOT_PROVEN = (
    released,
    released_in_the_loop,
    bound_anew,
    perhaps,
    after_it,
    handed_on,
    in_the_handler,
)


@pytest.mark.parametrize("function", HELD)
def test_a_lock_is_held_that_was_surely_acquired(function: Callable[[Lock, Lock], None]) -> None:
    first, second = Lock("first"), Lock("second")
    function(first, second)
    assert second.held_then == ["first"]
    assert first.held_then == []


@pytest.mark.parametrize("function", NOT_PROVEN)
def test_a_lock_that_may_have_been_released_is_not_claimed(
    function: Callable[[Lock, Lock], None],
) -> None:
    first, second = Lock("first"), Lock("second")
    function(first, second)
    assert second.held_then == []


@pytest.mark.parametrize("function", [with_in_with, plain_acquire, attribute, by_key])
def test_the_lock_that_a_frame_is_about_to_take_is_known(
    function: Callable[[Lock, Lock], None],
) -> None:
    first, second = Lock("first"), Lock("second")
    function(first, second)
    assert second.awaited_then is second
    assert first.awaited_then is first


def test_code_without_source_holds_nothing() -> None:
    names: dict[str, Any] = {"lock": Lock("first"), "second": Lock("second")}
    exec("def function():\n with lock:\n  second.acquire()\nfunction()", names)
    assert names["second"].held_then == []
