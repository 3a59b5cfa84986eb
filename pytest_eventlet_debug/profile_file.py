"""Read a file of :mod:`pstats`, in whose place a test may have laid something else."""

from __future__ import annotations

import marshal
from pathlib import Path
from typing import Any

from pytest_eventlet_debug.system import files

#: The profile of a hundred thousand functions is no larger.
MAX_BYTES = 64 << 20

#: How marshal begins a dictionary, with and without its flag for what is referred to later.
#: Of a list it would make room for as many items as the next bytes say.
_DICTIONARY = (b"{", b"\xfb")


def read(path: Path) -> dict[Any, Any]:
    """Return what ``pstats.Stats.stats`` holds of a file.

    :raises OSError: it cannot be read, is no regular file or larger than :data:`MAX_BYTES`.
    :raises ValueError: it is not a profile; marshal raises ``EOFError`` and ``TypeError`` as well.
    """
    data = files.read(path, MAX_BYTES)
    if not data.startswith(_DICTIONARY):
        raise ValueError("it is not a profile")
    stats: dict[Any, Any] = marshal.loads(data)
    return stats
