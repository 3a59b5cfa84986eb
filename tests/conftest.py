"""What all tests share: pytester, which runs pytest in a process of its own."""

from __future__ import annotations

pytest_plugins = "pytester"
