"""The files of a profile: that of :mod:`pstats`, ``profile.json`` beside it, and raw counts."""

from __future__ import annotations

from collections.abc import Sequence
import marshal
from pathlib import Path
from typing import Any

import msgspec

from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import Stats
from pytest_eventlet_debug.profiling.stats import add_up
from pytest_eventlet_debug.system import files

# Taken here, before a test can patch it.
_dumps = marshal.dumps

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
    :param self_seconds: the sum over all functions; 0 before they are added up.
    :param switching_seconds: what switches between greenlets took.
    :param incomplete: why something is missing, or ``""``.
    """

    engine: str
    clock: str
    seconds: float
    self_seconds: float
    switching_seconds: float
    incomplete: str = ""


class ProfileCounts(msgspec.Struct, kw_only=True):
    """What an engine has counted, to be added up by whoever has the time for it.

    :param facts: all but the sum over the functions.
    :param parts: the counts of stacks.
    :param has_greenlets: whether all greenlets are shown under one root.
    """

    facts: ProfileFacts
    parts: Sequence[Part]
    has_greenlets: bool

    def stats(self) -> Stats:
        """Add the counts up."""
        return add_up(self.parts, has_greenlets=self.has_greenlets)

    def encode(self) -> bytes:
        """Return what :meth:`decode` takes."""
        parts = [(each.entries, each.root, each.greenlets) for each in self.parts]
        return _dumps(
            {
                "facts": msgspec.structs.asdict(self.facts),
                "parts": parts,
                "has_greenlets": self.has_greenlets,
            }
        )

    @classmethod
    def decode(cls, raw: bytes) -> ProfileCounts:
        """Return what :meth:`encode` was of.

        :raises Exception: it is nothing of that kind.
        """
        data = _decoded(raw)
        return cls(
            facts=msgspec.convert(data["facts"], ProfileFacts),
            parts=[Part(*each) for each in data["parts"]],
            has_greenlets=data["has_greenlets"],
        )


def encode(stats: Stats) -> bytes:
    """Return what :func:`read` and :mod:`pstats` read."""
    return _dumps(stats)


def content(path: Path) -> bytes:
    """Return what is in a file, which a test may have laid there.

    :raises OSError: it cannot be read, is no regular file or larger than :data:`MAX_BYTES`.
    """
    return files.read(path, MAX_BYTES)


def read(path: Path) -> dict[Any, Any]:
    """Return what ``pstats.Stats.stats`` holds of a file.

    :raises OSError: as :func:`content` does.
    :raises ValueError: it is not a profile; marshal raises ``EOFError`` and ``TypeError`` as well.
    """
    return _decoded(content(path))


def _decoded(raw: bytes) -> dict[Any, Any]:
    if not raw.startswith(_DICTIONARY):
        raise ValueError("it is not a profile")
    found: dict[Any, Any] = marshal.loads(raw)
    return found
