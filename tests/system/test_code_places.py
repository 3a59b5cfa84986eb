"""Where code lies, and whose work it is."""

from __future__ import annotations

from collections.abc import Callable
import functools

from pytest_eventlet_debug.system.code_places import stand_in


def test_what_stands_in_has_the_name_of_the_code_that_it_calls() -> None:
    def run() -> int:
        return 1

    @functools.wraps(run)
    def decorated() -> int:
        return run() + 1

    def wrap(original: Callable[[], int]) -> Callable[[], int]:
        return stand_in(lambda: original() + 10, original)

    for original, name in ((run, "run"), (decorated, "decorated")):
        replaced = wrap(original)
        assert replaced() == original() + 10
        assert replaced.__name__ == "run"
        assert replaced.__code__.co_name == name
