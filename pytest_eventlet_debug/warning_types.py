"""The warnings that this plugin gives."""

from __future__ import annotations

import pytest


class EventletDebugWarning(pytest.PytestWarning):
    """A block of a test was to be recorded, and cannot be on this machine."""

    __module__ = "pytest_eventlet_debug"


class EventletFallbackWarning(pytest.PytestWarning):
    """A part of the plugin does less in this Python than it should."""

    __module__ = "pytest_eventlet_debug"


class EventletStallWarning(pytest.PytestWarning):
    """A test held the hub for too long while others had something to do."""

    __module__ = "pytest_eventlet_debug"


class EventletLeakWarning(pytest.PytestWarning):
    """A test left something behind that was not there before it."""

    __module__ = "pytest_eventlet_debug"
