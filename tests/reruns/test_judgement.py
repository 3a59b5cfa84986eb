"""Whether a test depends on its hub, from several attempts."""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.reruns.judgement import Ending
from pytest_eventlet_debug.reruns.judgement import judge

PASSED = Ending("passed")
SKIPPED = Ending("skipped")
KEY = Ending("failed", "KeyError")
VALUE = Ending("failed", "ValueError")
HUNG = Ending("hung")


@pytest.mark.parametrize(
    ("epolls", "asyncio", "kind", "text"),
    [
        ([PASSED] * 3, [KEY] * 3, "differs", "epolls failed 0 of 3, asyncio failed 3 of 3"),
        (
            [PASSED, KEY, PASSED],
            [KEY, KEY, PASSED],
            "flaky",
            "epolls failed 1 of 3, asyncio failed 2 of 3",
        ),
        (
            [PASSED] * 3,
            [KEY, PASSED, PASSED],
            "flaky",
            "epolls failed 0 of 3, asyncio failed 1 of 3",
        ),
        ([PASSED], [KEY], "differs", "epolls passed, asyncio failed"),
        (
            [KEY] * 2,
            [VALUE] * 2,
            "fails differently",
            "epolls failed 2 of 2 (KeyError), asyncio failed 2 of 2 (ValueError)",
        ),
        ([KEY], [HUNG], "fails differently", "epolls failed (KeyError), asyncio hung"),
        ([KEY, VALUE], [VALUE] * 2, "same", "epolls failed 2 of 2, asyncio failed 2 of 2"),
        ([HUNG, KEY], [PASSED] * 2, "differs", "epolls failed 2 of 2, asyncio failed 0 of 2"),
        ([PASSED, SKIPPED], [PASSED] * 2, "same", "epolls failed 0 of 2, asyncio failed 0 of 2"),
        ([PASSED], [SKIPPED], "differs", "epolls passed, asyncio skipped"),
        ([PASSED], [PASSED], "same", "epolls passed, asyncio passed"),
    ],
)
def test_attempts_are_judged(
    epolls: list[Ending], asyncio: list[Ending], kind: str, text: str
) -> None:
    judgement = judge({"epolls": epolls, "asyncio": asyncio})
    assert (judgement.kind, judgement.text) == (kind, text)
