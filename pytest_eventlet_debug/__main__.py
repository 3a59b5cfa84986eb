"""``python -m pytest_eventlet_debug``: the command ``pytest-eventlet-debug``."""

from __future__ import annotations

import sys

from pytest_eventlet_debug.cli import main

if __name__ == "__main__":
    sys.exit(main())
