"""How much a test's teardown tears down, and where it fails.

Fixtures of a module or the session are torn down with whichever test is the last there: in a rerun
with another one than in the run. What fails there says nothing about the test that it falls to.

A test's collectors are counted from the session inwards; the test itself is the last of them.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from typing import Any

import pytest

from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.children import messages


class TeardownReach:
    """Say on the report of each teardown how many of the test's collectors are still set up.

    That is its ``eventlet_kept``.
    """

    def __init__(self) -> None:
        self._kept = 0

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        following = nextitem.listchain() if nextitem is not None else ()
        # A fixture may have patched sum() or zip().
        self._kept = len([each for each in item.listchain() if each in following])
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report = yield
        if call.when == "teardown":
            report.eventlet_kept = self._kept
        return report


class StagedTeardown(TeardownReach):
    """Tear down one collector after the other, and say on the report at which of them it fails.

    ``eventlet_teardown_failed`` is the number of those above it, or ``None``.

    :param tell: called after each.
    """

    def __init__(self, tell: Callable[[messages.TornDown], None] | None = None) -> None:
        super().__init__()
        self._tell = tell
        self._nodeid = ""
        self._failed: int | None = None

    @pytest.hookimpl(trylast=True)  # after pytest's own, which makes what is changed here
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        pytest_internals.tear_down_in_stages(session, self._note)

    def _note(self, left: int, failed: bool) -> None:
        if failed:
            self._failed = left
        if self._tell is not None:
            self._tell(messages.TornDown(self._nodeid, left, self._kept, failed))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        self._nodeid, self._failed = item.nodeid, None
        return (yield from super().pytest_runtest_teardown(item, nextitem))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
        report = yield from super().pytest_runtest_makereport(call)
        if call.when == "teardown":
            report.eventlet_teardown_failed = self._failed
        return report
