"""Lines of source files, for code that may be called at any moment, even from a signal handler."""

from __future__ import annotations

import functools
import linecache

from pytest_eventlet_debug.system import unpatched

#: A larger file is none that somebody wrote.
MAX_BYTES = 4 << 20


def line(filename: str, lineno: int) -> str:
    """Return a line without its indentation, or an empty string where there is none."""
    known = lines(filename)
    return known[lineno - 1].strip() if 0 < lineno <= len(known) else ""


def lines(filename: str) -> tuple[str, ...]:
    """Return all lines of a file; none where it cannot be read.

    Not by ``linecache.getlines()``: that calls ``os.stat`` and ``open``, which tests patch.
    What it has read before, or was told of code that has no file, is used.
    """
    known = linecache.cache.get(filename)
    if known is not None and len(known) > 2:
        return tuple(known[2])
    return _read(filename)


@functools.lru_cache(maxsize=200)
def _read(filename: str) -> tuple[str, ...]:
    if filename.startswith("<"):
        return ()
    try:
        data = unpatched.read_file(filename)
    except (OSError, ValueError):
        return ()
    if len(data) > MAX_BYTES:
        return ()
    return tuple(data.decode("utf-8", "replace").splitlines(keepends=True))
