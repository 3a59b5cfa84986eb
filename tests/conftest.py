"""What all tests share: pytester, which runs pytest in a process of its own."""

from __future__ import annotations

import pytest

pytest_plugins = "pytester"


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Run pytest without pytest-asyncio, which has a warning for every suite without a setting."""
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:asyncio")
    return pytester
