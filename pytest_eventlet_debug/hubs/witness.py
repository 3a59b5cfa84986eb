"""A run must not lie: did each test run on the hub that its id names?"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.hubs.names import in_force
from pytest_eventlet_debug.hubs.names import same
from pytest_eventlet_debug.shield import Shield

#: Name in ``report.user_properties``: the hub that a test left in force.
HUB_PROPERTY = "eventlet_hub_in_force"

_seen_key = pytest.StashKey[str]()


class HubWitness:
    """Compare the hub in force with the one asked for, after each phase of each test.

    :param hub: the hub that was asked for.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        with Shield():
            name = in_force()
            if name is not None and not same(self._hub, name):
                item.stash[_seen_key] = name
        seen = item.stash.get(_seen_key, None)
        if seen is not None:
            if report.failed:
                line = f"{self._hub} was asked for, {seen} was in force"
                report.sections.append(("eventlet hub", line))
            if report.when == "teardown":
                report.user_properties.append((HUB_PROPERTY, seen))
        return report
