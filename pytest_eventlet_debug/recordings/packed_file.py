"""Read a recording that was packed, see :mod:`.packing`."""

from __future__ import annotations

import gzip
from pathlib import Path
import zlib

from pytest_eventlet_debug.system import files


class PackedFile(gzip.GzipFile):
    """A recording that was packed; whatever is wrong with it is an OSError."""

    def __init__(self, path: Path) -> None:
        self._file = open(files.open_to_read(path), "rb")  # noqa: SIM115, closed below
        super().__init__(fileobj=self._file)

    def read(self, size: int | None = -1) -> bytes:
        try:
            return super().read(size)
        except (EOFError, zlib.error) as error:
            raise OSError(str(error)) from error

    def read1(self, size: int = -1) -> bytes:
        try:
            return super().read1(size)
        except (EOFError, zlib.error) as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        super().close()
        self._file.close()
