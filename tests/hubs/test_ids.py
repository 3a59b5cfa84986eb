"""Hubs in node ids: put there, taken out, and chosen by on the command line."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.hubs.ids import add_hub
from pytest_eventlet_debug.hubs.ids import split_hub

HUBS = ("epolls", "poll", "asyncio")


@pytest.mark.parametrize(
    ("bare", "named"),
    [
        ("test_x.py::test_x", "test_x.py::test_x[poll]"),
        ("test_x.py::test_x[1]", "test_x.py::test_x[1-poll]"),
        ("test_x.py::TestX::test_x[a-b]", "test_x.py::TestX::test_x[a-b-poll]"),
        ("test_x.py::test_x[[]]", "test_x.py::test_x[[]-poll]"),
        ("test_x.py::test_x[]", "test_x.py::test_x[-poll]"),
        ("test_x.py::test_x[é]", "test_x.py::test_x[é-poll]"),
        ("README.rst::README.rst", "README.rst::README.rst[poll]"),
        ("a]", "a][poll]"),
    ],
)
def test_a_hub_goes_to_the_end_of_the_parameters_and_can_be_taken_out(
    bare: str, named: str
) -> None:
    assert add_hub(bare, "poll") == named
    assert split_hub(named, HUBS) == (bare, "poll")


@pytest.mark.parametrize(
    "nodeid",
    [
        "test_x.py::test_x",
        "test_x.py::test_poll",
        "test_x.py::test_x[selects]",
        "test_x.py::test_x[poll-1]",
        "test_x.py::test_x[mypoll]",
        "poll/test_poll.py",
    ],
)
def test_what_only_looks_like_a_hub_stays(nodeid: str) -> None:
    assert split_hub(nodeid, HUBS) == (nodeid, None)


def test_items_find_their_old_name_and_keep_nothing_of_their_own_for_that(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import functools
        import gc
        import types

        def pytest_runtestloop(session):
            gc.collect()
            for item in session.items:
                found = set(map(type, gc.get_referrers(item)))
                assert not found & {functools.partial, types.MethodType}, item
        """
    )
    pytester.makepyfile(
        """
        import unittest

        class TestX(unittest.TestCase):
            def test_x(self):
                assert self.id().endswith(".test_x")

            def test_y(self):
                with self.subTest(n=1): pass

        def f():
            '''
            >>> 1
            1
            '''

        def test_z(request):
            assert request.node.name == "test_z[poll]"
        """
    )
    result = pytester.runpytest("--eventlet-hub=poll", "--doctest-modules", "-v")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines(["*TestX::test_x[[]poll[]] PASSED*"])
