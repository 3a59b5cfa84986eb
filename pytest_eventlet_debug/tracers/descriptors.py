"""Which descriptors this process has open, as seen by its helper, whose calls are not traced."""

from __future__ import annotations

import contextlib

from pytest_eventlet_debug.system.open_descriptors import OpenDescriptors
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.shared_helper import SharedHelper


class DescriptorsByHelper:
    """Has the helper look, and looks itself where the helper cannot.

    :param helper: this process's.
    """

    def __init__(self, helper: SharedHelper) -> None:
        self._helper = helper
        self._own = OpenDescriptors()

    def look(self) -> dict[int, str]:
        """Return all open descriptors with what the kernel calls them."""
        helper = self._helper.started
        if helper is not None:
            with contextlib.suppress(TracerError):
                found = helper.request("descriptors")["found"]
                assert isinstance(found, dict)
                return {int(number): str(words) for number, words in found.items()}
        return self._own.look()
