"""The one reason for which a test of this project may run again."""

from __future__ import annotations

import pytest

#: For tests of what takes a certain speed: calls at a rate, a thread that wakes in time, a duration
#: that has an upper bound. A machine that others keep busy may miss it, and nothing is wrong then.
depends_on_speed = pytest.mark.flaky(reruns=2)
