"""What was found in the recordings of a test, read where it is written."""

from __future__ import annotations

from pathlib import Path

from pytest_eventlet_debug.artifact_names import TRACE_FILES
from pytest_eventlet_debug.recordings.findings import file as findings_file


def findings_of(directory: Path) -> findings_file.Findings | None:
    """Return what was found in the recordings of a test, now if that was not completed.

    :return: ``None`` for a test without a trace.
    """
    read = findings_file.read(directory)
    if read is None and any((directory / name).exists() for name in TRACE_FILES):
        # All that reads traces: slow to import, and seldom needed.
        from pytest_eventlet_debug.recordings import recorded

        return recorded.find(directory)
    return read
