"""pytest-randomly: the same order and random numbers under each hub.

Written against pytest-randomly 5.1. It shuffles tests, and seeds each of them, by a hash of
their node ids. Where these say the hub, the hash is that of the id without.
"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_eventlet_debug.hubs.ids import without_hub


def hash_without_hub(config: pytest.Config, hub: str) -> None:
    """Have pytest-randomly, if it is there, leave the hub out of what it hashes."""
    module: Any = config.pluginmanager.getplugin("randomly")
    original = getattr(module, "_crc32", None)
    if original is None:
        return
    module._crc32 = lambda text: original(without_hub(text, hub))

    def restore() -> None:
        module._crc32 = original

    config.add_cleanup(restore)


def seed(config: pytest.Config) -> int | None:
    """Return the seed that this process has settled upon and printed, if there is one."""
    value = getattr(config.option, "randomly_seed", None)
    return value if isinstance(value, int) else None
