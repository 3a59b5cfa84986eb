"""allure-pytest: the hub as a parameter of each result.

Without it the results of all hubs have the same ``historyId``, and a report shows one of them.
Written against allure-pytest 2.16.
"""

from __future__ import annotations

import pytest


class HubParameter:
    """Tells allure the hub of each test; a plugin object.

    :param hub: the hub this process runs under.
    """

    def __init__(self, hub: str) -> None:
        self._hub = hub

    # allure's wrapper around it has begun a result by then.
    def pytest_runtest_setup(self) -> None:
        import allure

        allure.dynamic.parameter("eventlet_hub", self._hub)


def register(config: pytest.Config, hub: str) -> None:
    """Have the results of this process name the hub, if it writes any."""
    if getattr(config.option, "allure_report_dir", None):
        config.pluginmanager.register(HubParameter(hub))
