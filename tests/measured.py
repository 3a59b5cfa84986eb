"""Measures the coverage of the helper and the finisher: what they run first, as programs.

They run without site-packages, and so without what starts coverage.py in other processes, and they
end in ways that leave it no time to write down what it knows. ``make coverage`` names this file.
"""

from __future__ import annotations

import contextlib
import os
import site
from typing import NoReturn

site.main()  # starts coverage.py

from coverage import Coverage  # noqa: E402


def _begin(measured: Coverage) -> None:
    """Save before the process ends, and before each answer: then the finisher may be killed."""
    end, write = os._exit, os.write

    def save() -> None:
        with contextlib.suppress(Exception):  # the process has its own work to do
            measured.save()

    def save_and_end(status: int) -> NoReturn:
        save()
        end(status)

    def save_and_write(fd: int, data: bytes) -> int:
        if fd == 1:
            save()
        return write(fd, data)

    os._exit, os.write = save_and_end, save_and_write


_current = Coverage.current()
if _current is not None:
    _begin(_current)
