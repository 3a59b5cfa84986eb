"""Files that are written beside what they replace, and take its place when they are complete."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
from typing import BinaryIO

from pytest_eventlet_debug.system import files


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of *path* when it is complete."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(files.create(draft), "wb") as file:
            yield file
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
