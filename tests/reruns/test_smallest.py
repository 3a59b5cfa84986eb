"""The smallest part of a list that does what the whole does."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from pytest_eventlet_debug.reruns.smallest import smallest


def test_one_to_blame_among_a_thousand_is_found_in_few_runs() -> None:
    asked: list[Sequence[int]] = []

    def holds(part: Sequence[int]) -> bool:
        asked.append(part)
        return 700 in part

    assert smallest(range(1000), holds) == [700]
    assert len(asked) <= 2 * 10


def test_two_that_only_do_it_together_are_both_found_in_their_order() -> None:
    assert smallest("abcdefghij", lambda part: "c" in part and "i" in part) == ["c", "i"]


def test_nothing_is_run_for_a_list_of_one() -> None:
    assert smallest(["a"], lambda part: False) == ["a"]


@given(st.integers(1, 40), st.data())
def test_no_item_of_the_result_can_be_left_out(count: int, data: st.DataObject) -> None:
    blamed = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    found = smallest(range(count), lambda part: blamed.issubset(part))
    assert found == sorted(blamed)
