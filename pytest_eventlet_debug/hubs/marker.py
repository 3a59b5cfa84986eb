"""The marker ``eventlet_hub``, which keeps a test for some hubs."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.hubs.names import HubNameError
from pytest_eventlet_debug.hubs.names import select_hubs

MARKER = "eventlet_hub"

# How the reason begins of a test that is skipped for its marker.
_REASON = "marked for the eventlet hub"


def apply_marker(items: Iterable[pytest.Item], hub: Hub) -> None:
    """Skip the items that ``@pytest.mark.eventlet_hub(...)`` keeps for other hubs.

    :raises pytest.UsageError: the marker names something that is not a hub.
    """
    for item in items:
        for mark in item.iter_markers(MARKER):
            allowed = _allowed(item, mark)
            if hub.name not in allowed:
                reason = f"{_REASON} {', '.join(allowed)}, this is {hub}"
                item.add_marker(pytest.mark.skip(reason=reason))
                break


def is_kept_for_others(report: pytest.TestReport) -> bool:
    """Say whether a test was skipped for it is marked for other hubs."""
    return report.skipped and _REASON in report.longreprtext


def _allowed(item: pytest.Item, mark: pytest.Mark) -> list[str]:
    names = [str(name) for name in mark.args]
    try:
        return [hub.name for hub in select_hubs(",".join(names), only_available=False)]
    except HubNameError as error:
        raise pytest.UsageError(f"{item.nodeid}: marker {MARKER}: {error}") from None
