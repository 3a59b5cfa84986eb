"""What tells how the run went: registered in the process that the user started.

What is imported within a function is what only some runs ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence

import pytest

from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.report.writing import ReportWriter
from pytest_eventlet_debug.run_facts import RunEnd
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.summary import Summary

_SUMMARY = "eventlet-debug-summary"


def register_end(
    config: pytest.Config, settings: Settings, hubs: Callable[[], Sequence[str]], *, run: str
) -> None:
    """Have the run's end told in the terminal, and in ``run.json`` if there is one.

    :param hubs: returns the names of those that the tests run under; it may import eventlet.
    :param run: names the run.
    """
    manager = config.pluginmanager
    if manager.hasplugin(_SUMMARY):
        return
    gathering = Gathering(config, hubs, settings.hub_in_ids)
    manager.register(gathering, Gathering.NAME)
    manager.register(Summary(config, settings, gathering), _SUMMARY)
    manager.register(RunEnd(settings, run))
    _register_html_links(config, settings, gathering)
    _register_junit(config, settings)


def _register_html_links(config: pytest.Config, settings: Settings, gathering: Gathering) -> None:
    html = config.getoption("htmlpath", None)
    if html:
        from pytest_eventlet_debug.report.html_links import HtmlLinks

        links = HtmlLinks(
            html,
            settings.artifacts,
            [tracer.name for tracer in settings.tracers],
            lambda nodeid: gathering.key(nodeid)[0],
        )
        config.pluginmanager.register(links)


def _register_junit(config: pytest.Config, settings: Settings) -> None:
    path = config.getoption("xmlpath", None)
    if path:
        from pytest_eventlet_debug.report.junit import JunitCases

        hub = settings.hubs[0].name if len(settings.hubs) == 1 else None
        config.pluginmanager.register(JunitCases(config, path, hub))


def register_report(config: pytest.Config, settings: Settings, *, run: str) -> None:
    """Have the report written: last of all, when every verdict is known.

    :param run: names the run.
    """
    manager = config.pluginmanager
    gathering: Gathering | None = manager.getplugin(Gathering.NAME)
    if gathering is not None and not manager.hasplugin(ReportWriter.NAME):
        manager.register(ReportWriter(config, settings, gathering, run), ReportWriter.NAME)
