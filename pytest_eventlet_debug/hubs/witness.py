"""A run must not lie: did each test run on the hub that its id names, and could that run?"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.hubs.names import in_force
from pytest_eventlet_debug.hubs.names import is_stuck
from pytest_eventlet_debug.hubs.names import own_hub
from pytest_eventlet_debug.hubs.names import same
from pytest_eventlet_debug.shield import Shield

#: Name in ``report.user_properties``: the hub that a test left in force.
HUB_PROPERTY = "eventlet_hub_in_force"

#: Of a test that failed when its hub could not run any more: why, in one line.
ENDED_PROPERTY = "eventlet_hub_ended"

#: What every wait raises then, see ``BaseHub.run()``.
_ERROR = "RuntimeError: Already running!"

_seen_key = pytest.StashKey[str]()


class HubWitness:
    """Compare the hub in force with the one asked for, after each phase of each test.

    :param hub: the hub that was asked for.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._ended: tuple[int, str] | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        with Shield():
            name = in_force()
            if name is not None and not same(self._hub, name):
                item.stash[_seen_key] = name
            hub = own_hub()
            if is_stuck(hub):
                # For a while it may get on: the loop goes on with the coroutine that was left.
                if self._ended is None or self._ended[0] != id(hub):
                    self._ended = id(hub), item.nodeid
                if report.failed and _names_it(report):
                    line = _ended(self._ended[1], item)
                    report.sections.append(("eventlet hub", line))
                    report.user_properties.append((ENDED_PROPERTY, line))
        seen = item.stash.get(_seen_key, None)
        if seen is not None:
            if report.failed:
                line = f"{self._hub} was asked for, {seen} was in force"
                report.sections.append(("eventlet hub", line))
            if report.when == "teardown":
                report.user_properties.append((HUB_PROPERTY, seen))
        return report


def _names_it(report: pytest.TestReport) -> bool:
    texts = [report.longreprtext, *(text for _, text in report.sections)]
    return any(_ERROR in text for text in texts)


def _ended(nodeid: str, item: pytest.Item) -> str:
    where = "this test" if nodeid == item.nodeid else nodeid
    return (
        f"an exception ended the hub in {where}; it does not start again, so every wait fails "
        f"with {_ERROR}"
    )
