"""How numbers and spans of time are put."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.phrasing import span


@pytest.mark.parametrize(
    ("ns", "words"),
    [
        (0, "0 us"),
        (43_500, "44 us"),
        (999_499, "999 us"),
        (999_500, "1.00 ms"),
        (1_254_000, "1.25 ms"),
        (999_994_999, "999.99 ms"),
        (999_995_000, "1.00 s"),
        (61_500_000_000, "61.50 s"),
    ],
)
def test_a_span_of_time_is_put_in_the_unit_that_suits_it(ns: int, words: str) -> None:
    assert span(ns) == words
