"""Whether a test depends on its hub, from several attempts."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.reruns.judgement import Ending
from pytest_eventlet_debug.reruns.judgement import Judgement
from pytest_eventlet_debug.reruns.judgement import judge

PASSED = Ending("passed")
SKIPPED = Ending("skipped")
KEY = Ending("failed", "KeyError")
VALUE = Ending("failed", "ValueError")
HUNG = Ending("hung")


@pytest.mark.parametrize(
    ("epolls", "asyncio", "expected"),
    [
        (
            [PASSED] * 3,
            [KEY] * 3,
            Judgement("differs", "epolls failed 0 of 3, asyncio failed 3 of 3 (KeyError)"),
        ),
        (
            [PASSED, KEY, PASSED],
            [KEY, KEY, PASSED],
            Judgement("flaky", "epolls failed 1 of 3 (KeyError), asyncio failed 2 of 3 (KeyError)"),
        ),
        (
            [PASSED] * 3,
            [KEY, PASSED, PASSED],
            Judgement("flaky", "epolls failed 0 of 3, asyncio failed 1 of 3 (KeyError)"),
        ),
        ([PASSED], [KEY], Judgement("differs", "epolls passed, asyncio failed (KeyError)")),
        (
            [KEY] * 2,
            [VALUE] * 2,
            Judgement(
                "fails differently",
                "epolls failed 2 of 2 (KeyError), asyncio failed 2 of 2 (ValueError)",
            ),
        ),
        (
            [KEY],
            [HUNG],
            Judgement("fails differently", "epolls failed (KeyError), asyncio hung"),
        ),
        (
            [KEY, VALUE],
            [VALUE, VALUE],
            Judgement(
                "same",
                "epolls failed 2 of 2 (KeyError, ValueError), asyncio failed 2 of 2 (ValueError)",
            ),
        ),
        ([PASSED], [SKIPPED], Judgement("differs", "epolls passed, asyncio skipped")),
        ([PASSED], [PASSED], Judgement("same", "epolls passed, asyncio passed")),
    ],
)
def test_attempts_are_judged(
    epolls: list[Ending], asyncio: list[Ending], expected: Judgement
) -> None:
    assert judge({"epolls": epolls, "asyncio": asyncio}) == expected
