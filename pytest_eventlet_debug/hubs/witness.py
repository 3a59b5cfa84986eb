"""A run must not lie: did each test run on the hub that its id names, and could that run?"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterator
from typing import Any
import weakref

import pytest

from pytest_eventlet_debug.hubs.loop_reasons import unclosed_generators
from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.hubs.names import in_force
from pytest_eventlet_debug.hubs.names import is_stuck
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.hubs.names import same
from pytest_eventlet_debug.hubs.notes import LEFT
from pytest_eventlet_debug.hubs.reasons import left_hub
from pytest_eventlet_debug.hubs.reasons import raised
from pytest_eventlet_debug.hubs.reasons import reasons
from pytest_eventlet_debug.report_properties import REASON_PROPERTY
from pytest_eventlet_debug.shield import Shield

#: Name in ``report.user_properties``: the hub that a test left in force.
HUB_PROPERTY = "eventlet_hub_in_force"

#: What every wait raises if its hub cannot run any more, see ``BaseHub.run()``.
_ENDED = "RuntimeError: Already running!"
#: And if the loop of the hub is closed.
_CLOSED = "RuntimeError: Event loop is closed"

_seen_key = pytest.StashKey[str]()


class HubWitness:
    """Compare the hub in force with the one asked for, after each phase of each test.

    :param hub: the hub that was asked for.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        #: The hub that cannot run any more, or its loop, and the test in which that came.
        self._ended: tuple[int, str] | None = None
        self._closed: tuple[int, str, str] | None = None
        #: Asynchronous generators that earlier tests have left for the hub to close.
        self._unclosed = weakref.WeakSet[Any]()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        with Shield():
            name = in_force()
            if name is not None and not same(self._hub, name):
                item.stash[_seen_key] = name
            lines = [*self._left(item, report, call.excinfo.value if call.excinfo else None)]
            if report.failed and call.excinfo is not None:
                lines += reasons(call.excinfo.value)
                lines += self._let_go()
            if call.when == "setup":
                self._unclosed = weakref.WeakSet(unclosed_generators())
            for line in lines:
                report.sections.append(("eventlet hub", line))
                report.user_properties.append((REASON_PROPERTY, line))
        seen = item.stash.get(_seen_key, None)
        if seen is not None:
            if report.failed:
                line = f"{self._hub} was asked for, {seen} was in force"
                report.sections.append(("eventlet hub", line))
            if report.when == "teardown":
                report.user_properties.append((HUB_PROPERTY, seen))
        return report

    def _let_go(self) -> list[str]:
        """Name the first asynchronous generator of this test that the hub has yet to close."""
        found = unclosed_generators().items()
        return [line for each, line in found if each not in self._unclosed][:1]

    def _left(
        self, item: pytest.Item, report: pytest.TestReport, error: BaseException | None
    ) -> Iterator[str]:
        """Say what has become of the hub, if a test fails for it; remember since when it is so."""
        hub = own_hub()
        loop = getattr(hub, "loop", None)
        if is_stuck(hub):
            # For a while it may get on: the loop goes on with the coroutine that was left.
            if self._ended is None or self._ended[0] != id(hub):
                self._ended = id(hub), item.nodeid
                # Where nothing has watched the loop since it began.
                if error is not None and getattr(loop, LEFT, None) is None and left_hub(error):
                    setattr(loop, LEFT, raised(error))
            if _names(report, _ENDED):
                left = getattr(loop, LEFT, None)
                what = f"{left}," if left else "an exception"
                yield (
                    f"{what} ended the hub in {_test(self._ended[1], item)}; it does not start "
                    f"again, so every wait fails with {_ENDED}"
                )
        elif _is_closed(loop):
            if self._closed is None or self._closed[0] != id(loop):
                self._closed = id(loop), item.nodeid, report.when
            if _names(report, _CLOSED):
                _, nodeid, phase = self._closed
                yield (
                    f"the hub's event loop was closed in the {phase} of {_test(nodeid, item)}; "
                    f"every wait fails with {_CLOSED}"
                )


def _names(report: pytest.TestReport, error: str) -> bool:
    texts = [report.longreprtext, *(text for _, text in report.sections)]
    return report.failed and any(error in text for text in texts)


def _is_closed(loop: Any) -> bool:
    is_closed = getattr(loop, "is_closed", None)
    return callable(is_closed) and is_closed() is True


def _test(nodeid: str, item: pytest.Item) -> str:
    return "this test" if nodeid == item.nodeid else nodeid
