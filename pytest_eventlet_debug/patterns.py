"""Regular expressions that are compiled when they are first used.

To compile one takes up to half a millisecond. Most runs meet neither a failure nor a protocol that
the greater part of them is for.
"""

from __future__ import annotations

import re
from typing import Any
from typing import AnyStr
from typing import cast

# Taken here, before a test can patch it.
_compile = re.compile


class _Pattern:
    """Becomes a ``re.Pattern`` by and by: each of its methods is looked up once."""

    def __init__(self, pattern: str | bytes, flags: int) -> None:
        self._pattern = pattern
        self._flags = flags

    def __getattr__(self, name: str) -> Any:
        found = getattr(_compile(self._pattern, self._flags), name)
        setattr(self, name, found)
        return found


def lazily(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Return what :func:`re.compile` would, for methods to be called on; it compiles it then."""
    return cast("re.Pattern[AnyStr]", _Pattern(pattern, flags))
