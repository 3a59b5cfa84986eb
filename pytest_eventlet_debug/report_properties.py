"""What goes along with a test and its reports.

The properties are names in ``report.user_properties``, for JUnit, pytest-html, pytest-xdist and
our summary.
"""

from __future__ import annotations

import errno
import os
from typing import Final
from typing import NamedTuple

import pytest

#: In an item's stash: the descriptors that the test left open, where leaks are looked for.
LEFT_DESCRIPTORS: Final = pytest.StashKey[list[int]]()

#: A directory with recordings of the test.
DIRECTORY_PROPERTY: Final = "eventlet_artifacts"

#: What a tracer could not do, in one line.
ERROR_PROPERTY: Final = "eventlet_tracer_error"

#: Of a test that failed: what its hub or one of its tasks has to do with that, in one line.
REASON_PROPERTY: Final = "eventlet_reason"

#: What of a test's recordings is cut or missing, as :class:`Cut` writes it.
CUT_PROPERTY: Final = "eventlet_cut"


class Cut(NamedTuple):
    """A recording that is cut, or missing, because there was no room for it.

    :param since_ns: nanoseconds since the epoch.
    :param what: whose recording, such as ``strace``.
    :param why: in the system's words.
    """

    since_ns: int
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.since_ns} {self.what}: {self.why}"

    @classmethod
    def parse(cls, text: str) -> Cut:
        """Undo ``str()``."""
        since, _, rest = text.partition(" ")
        what, _, why = rest.partition(": ")
        return cls(int(since), what, why)


_NO_ROOM = tuple(
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
)


def no_room(text: str) -> str | None:
    """Return why there was no room for something, in the system's words, if a text says that."""
    return next((words for words in _NO_ROOM if words in text), None)
