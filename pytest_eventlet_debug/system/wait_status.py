"""How a process ended, in words."""

from __future__ import annotations

import os
import signal


def describe(status: int) -> str:
    """Return what a wait status means, such as ``exit status 1`` or ``SIGKILL``."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit status {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
