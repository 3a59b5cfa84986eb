"""allure-pytest: the hub as a parameter of each result, and where the test's recordings are.

Without the parameter the results of all hubs have the same ``historyId``, and a report shows one
of them. Written against allure-pytest 2.16.
"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_eventlet_debug.report_properties import DIRECTORY_PROPERTY


class ResultsOfProcess:
    """Completes the results that allure writes in this process; a plugin object.

    :param hub: the hub this process runs under, or ``None`` if results do not name it.
    """

    def __init__(self, hub: str | None) -> None:
        self._hub = hub
        self._item: pytest.Item | None = None

    # allure's wrapper around it has begun a result by then.
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        import allure

        self._item = item
        if self._hub is not None:
            allure.dynamic.parameter("eventlet_hub", self._hub)

    def report_result(self, result: Any) -> None:
        """Label a result with the directory of what was recorded; a hook of allure's."""
        from allure_commons.model2 import Label

        if self._item is not None:
            for name, value in self._item.user_properties:
                if name == DIRECTORY_PROPERTY:
                    result.labels.append(Label(DIRECTORY_PROPERTY, str(value)))
        self._item = None


def register(config: pytest.Config, hub: str | None) -> None:
    """Complete the results of this process, which writes some."""
    import allure_commons

    results = ResultsOfProcess(hub)
    config.pluginmanager.register(results)
    # Before the hook that writes the result.
    allure_commons.hookimpl(tryfirst=True)(ResultsOfProcess.report_result)
    allure_commons.plugin_manager.register(results)
    config.add_cleanup(lambda: allure_commons.plugin_manager.unregister(results))
