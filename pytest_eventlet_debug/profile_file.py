"""The files of a profile: that of :mod:`pstats`, and ``profile.json`` beside it."""

from __future__ import annotations

import marshal
from pathlib import Path
from typing import Any

import msgspec

from pytest_eventlet_debug.system import files

#: The profile of a hundred thousand functions is no larger.
MAX_BYTES = 64 << 20

#: How marshal begins a dictionary, with and without its flag for what is referred to later.
#: Of a list it would make room for as many items as the next bytes say.
_DICTIONARY = (b"{", b"\xfb")


class ProfileFacts(msgspec.Struct, kw_only=True):
    """What a ``profile.json`` says of the profile beside it.

    :param engine: what counted, ``native``, ``python`` or ``plain``.
    :param clock: what was measured, ``run``, ``wall`` or ``cpu``.
    :param seconds: from the beginning to the end of the profile, without its pauses.
    :param self_seconds: the sum over all functions.
    :param switching_seconds: what switches between greenlets took.
    :param incomplete: why something is missing, or ``""``.
    """

    engine: str
    clock: str
    seconds: float
    self_seconds: float
    switching_seconds: float
    incomplete: str = ""


def read(path: Path) -> dict[Any, Any]:
    """Return what ``pstats.Stats.stats`` holds of a file.

    A test may have laid something else in its place.

    :raises OSError: it cannot be read, is no regular file or larger than :data:`MAX_BYTES`.
    :raises ValueError: it is not a profile; marshal raises ``EOFError`` and ``TypeError`` as well.
    """
    data = files.read(path, MAX_BYTES)
    if not data.startswith(_DICTIONARY):
        raise ValueError("it is not a profile")
    stats: dict[Any, Any] = marshal.loads(data)
    return stats
