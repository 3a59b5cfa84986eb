"""A run must not lie: did each test run on the hub that its id names, and could that run?"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.hubs.names import has_ended
from pytest_eventlet_debug.hubs.names import in_force
from pytest_eventlet_debug.hubs.names import same
from pytest_eventlet_debug.shield import Shield

#: Name in ``report.user_properties``: the hub that a test left in force.
HUB_PROPERTY = "eventlet_hub_in_force"

#: Of a test that failed when its hub could not run any more: why, in one line.
ENDED_PROPERTY = "eventlet_hub_ended"

_seen_key = pytest.StashKey[str]()


class HubWitness:
    """Compare the hub in force with the one asked for, after each phase of each test.

    :param hub: the hub that was asked for.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._ended_in: str | None = None

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        with Shield():
            name = in_force()
            if name is not None and not same(self._hub, name):
                item.stash[_seen_key] = name
            if not has_ended():
                self._ended_in = None
            elif self._ended_in is None:
                self._ended_in = item.nodeid
        if report.failed and self._ended_in is not None:
            line = _ended(self._ended_in, item)
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


def _ended(nodeid: str, item: pytest.Item) -> str:
    where = "this test" if nodeid == item.nodeid else nodeid
    return (
        f"an exception ended the hub in {where}; it does not start again, so every wait fails "
        "with RuntimeError: Already running!"
    )
