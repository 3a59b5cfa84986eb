"""What the tests of several hubs share: an environment that names no hub."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTLET_HUB", raising=False)
    # Files change faster here than the time stamp that bytecode is checked by.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
