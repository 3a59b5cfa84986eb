"""What is done in the process that the user started when all tests are over.

Each step is imported where the run has it.
"""

from __future__ import annotations

import pytest

from pytest_eventlet_debug.children.controller import Controller
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.reruns.reruns import Reruns
from pytest_eventlet_debug.settings import Settings


def register(config: pytest.Config, settings: Settings, *, run: str, own_pids: bool) -> None:
    """Register the plugin objects for it, beside what knows how the tests end.

    :param run: names the run, for the artifacts of tests that run again.
    :param own_pids: whether the processes have process ids of their own.
    :raises pytest.UsageError: a saved run cannot be read or written.
    """
    manager = config.pluginmanager
    gathering: Gathering | None = manager.getplugin(Gathering.NAME)
    assert gathering is not None
    reruns = Reruns(config, settings, gathering, run, own_pids)
    # Of several that finish a session, pytest asks the last to be registered first: what differs
    # is known, then what is traced once more, and then run.json and the report are written.
    if settings.retrace and settings.tracers:
        from pytest_eventlet_debug.reruns.retrace import Retrace

        manager.register(Retrace(config, gathering, reruns), Retrace.NAME)
    controller: Controller | None = manager.getplugin(Controller.NAME)
    if controller is not None:
        from pytest_eventlet_debug.reruns.differences import HubDifferences

        differences = HubDifferences(config, settings, controller, gathering, reruns)
        manager.register(differences, HubDifferences.NAME)
    if settings.save is not None or settings.compare is not None:
        _register_upgrade_check(config, settings, gathering, reruns)
    if settings.culprit is not None:
        from pytest_eventlet_debug.reruns.culprit import Culprit

        manager.register(Culprit(settings.culprit, gathering, reruns))


def _register_upgrade_check(
    config: pytest.Config, settings: Settings, gathering: Gathering, reruns: Reruns
) -> None:
    from pytest_eventlet_debug.upgrade.check import UpgradeCheck
    from pytest_eventlet_debug.upgrade.recorder import Recorder
    from pytest_eventlet_debug.upgrade.saved_run import SavedRunError

    recorder = Recorder(config, gathering, settings.redact)
    try:
        check = UpgradeCheck(config, settings, recorder, gathering, reruns)
    except SavedRunError as error:
        raise pytest.UsageError(str(error)) from None
    config.pluginmanager.register(recorder)
    config.pluginmanager.register(check, UpgradeCheck.NAME)
