"""What was counted in tests, until the finisher takes it: the helper's side of a profile."""

from __future__ import annotations

import contextlib

from pytest_eventlet_debug.artifact_names import PROFILE_COUNTS_FILE
from pytest_eventlet_debug.helper.loop import Reply
from pytest_eventlet_debug.helper.unwritten import WAITING_BYTES
from pytest_eventlet_debug.helper.unwritten import Unwritten


class Profiles:
    """The counts of tests whose directories are to be completed, or will not be kept."""

    def __init__(self) -> None:
        self._waiting: dict[str, bytes] = {}
        self._kept: set[str] = set()
        self._size = 0

    def add(self, answer: Reply, *, directory: str, data: bytes = b"") -> None:
        """Take in the counts of a test.

        :param directory: the test's.
        """
        self.forget(directory)
        self._waiting[directory] = data
        self._size += len(data)
        while self._size > WAITING_BYTES:  # the finisher is far behind, and takes the oldest next
            (newest,) = self.take(next(reversed(self._waiting)))
            try:
                newest.write()
            except OSError as error:
                answer(f"{newest.path} cannot be written: {error.strerror}")

    def keep(self, directory: str) -> None:
        """Know that the test in a directory will be completed."""
        self._kept.add(directory)

    def take(self, directory: str) -> list[Unwritten]:
        """Hand over the counts of a test, if there are any in memory."""
        self._kept.discard(directory)
        counts = self._waiting.pop(directory, None)
        if counts is None:
            return []
        self._size -= len(counts)
        return [Unwritten(f"{directory}/{PROFILE_COUNTS_FILE}", counts)]

    def forget(self, directory: str) -> None:
        """Know that a test is not kept."""
        self.take(directory)

    def abandon(self) -> list[str]:
        """Return the directories of tests that nobody has said of whether they are kept."""
        return [directory for directory in self._waiting if directory not in self._kept]

    def close(self) -> None:
        """Write down what is in memory."""
        for directory in list(self._waiting):
            for counts in self.take(directory):
                with contextlib.suppress(OSError):
                    counts.write()
