"""Long recordings are compressed once they are complete, as ``NAME.gz``, and read as before.

A trace becomes a twelfth as long, and a capture with much in it about as little.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_eventlet_debug.recordings.drafts import replacing
from pytest_eventlet_debug.system import files

if TYPE_CHECKING:
    from pytest_eventlet_debug.recordings.packed_file import PackedFile

#: Half as long as the best takes, for a file that is a tenth larger.
_LEVEL = 4


def packed(path: Path) -> Path:
    """Return where a recording is once it is packed."""
    return path.with_name(f"{path.name}.gz")


def is_there(path: Path) -> bool:
    """Say whether there is a recording, packed or not."""
    return path.exists() or packed(path).exists()


def size(path: Path) -> int:
    """Return how many bytes a recording has, were it not packed.

    :raises OSError: there is none.
    """
    try:
        return path.stat().st_size
    except FileNotFoundError:
        # The last four bytes, see RFC 1952; of one that exceeds 4 GB, a part of its size.
        with open(files.open_to_read(packed(path)), "rb") as file:
            file.seek(-4, os.SEEK_END)
            return int.from_bytes(file.read(4), "little")


def pack(path: Path, least: int) -> None:
    """Compress a recording that nobody writes any more, if it is there and is long.

    :param least: bytes of the longest one that stays as it is.
    :raises OSError: it cannot be written.
    """
    try:
        if path.stat().st_size <= least:
            return
        source = open(files.open_to_read(path), "rb")  # noqa: SIM115, closed below
    except OSError:
        return  # there is none
    import gzip  # slow to import, and most recordings are short
    import shutil

    with (
        source,
        replacing(packed(path)) as file,
        gzip.GzipFile(path.name, "wb", _LEVEL, file) as packing,
    ):
        shutil.copyfileobj(source, packing, 1 << 20)
    path.unlink()


def open_to_read(path: Path) -> io.BufferedReader | PackedFile:
    """Open a recording, packed or not.

    :raises OSError: it cannot be opened; reading one that was packed raises it as well, if that
        is none, or breaks off.
    """
    try:
        return open(files.open_to_read(path), "rb")
    except FileNotFoundError:
        if not packed(path).exists():
            raise
        from pytest_eventlet_debug.recordings.packed_file import PackedFile

        return PackedFile(packed(path))
