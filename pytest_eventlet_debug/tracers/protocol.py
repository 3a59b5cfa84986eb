"""What a tracer is: something that records one test at a time into a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from typing import Protocol

import msgspec

Phase = Literal["setup", "call", "teardown"]

PHASES: tuple[Phase, ...] = ("setup", "call", "teardown")


class TracerError(Exception):
    """A recording failed. The message is one line: what happened and what would help.

    It never fails a test: it is shown in that test's report and in the summary.
    """


class RecordingCut(TracerError):
    """A recording ends too early.

    :param since_ns: when its last record was made, in nanoseconds since the epoch.
    """

    def __init__(self, message: str, since_ns: int) -> None:
        super().__init__(message)
        self.since_ns = since_ns


class TracerUnavailable(TracerError):
    """A tracer cannot work on this machine at all; found out before the first test."""


class Recording(msgspec.Struct, frozen=True):
    """One stretch of a test that is being recorded.

    :param nodeid: the test's node id, written into the artifacts.
    :param directory: an existing directory that belongs to this test alone; an absolute path.
    :param is_block: whether it is a block of a test, which may read what was recorded as soon
        as the block has ended.
    """

    nodeid: str
    directory: Path
    is_block: bool = False


class Tracer(Protocol):
    """Records one test at a time; the registry says which there are.

    ``start`` returns once everything that follows is recorded, or is to be from ``enter`` on;
    ``stop`` once that is sure to be written: of a block it is on the disk by then, of a test it
    may still be on its way, to be there when the run has ended. In between, ``pause`` and
    ``resume`` leave a gap (a debugger is open), and ``mark`` notes that a phase of the test begins.
    ``enter`` and ``leave`` enclose the code of a phase, without what pytest and its plugins do
    before and after it, such as to capture output; ``leave`` comes before ``pause``, too, but not
    before the ``stop`` of a block. No method switches greenthreads, delivers SIGCHLD or raises
    anything but :class:`TracerError`; after an error the tracer is ready for the next ``start``.

    Where there is a body here, a tracer that derives from this class need not have one of its own.
    """

    @property
    def name(self) -> str:
        """Its name in the registry, such as ``strace``."""

    @property
    def version(self) -> str:
        """The tool's version for the report's header, such as ``6.1``."""

    @property
    def default_phases(self) -> frozenset[Phase]:
        """The phases recorded unless ``--eventlet-phases`` says otherwise."""

    def warm_up(self, *, trial: bool) -> None:
        """Begin what takes its time and need not be waited for.

        :param trial: whether :meth:`check` will be called.
        :raises TracerError: that fails already; :meth:`check` will say so, too.
        """
        return

    def check(self) -> None:
        """Find out whether it works here, before the user's tests are collected.

        :raises TracerUnavailable: it does not; the message says why and what to do.
        """

    def confirm(self) -> None:
        """Wait for what :meth:`check` could not say yet, before the first test.

        :raises TracerUnavailable: as :meth:`check` does.
        """
        return

    def start(self, recording: Recording) -> None: ...

    def mark(self, phase: str) -> None:
        return

    def enter(self) -> None:
        return

    def leave(self) -> None:
        return

    def pause(self) -> None:
        return

    def resume(self) -> None:
        return

    def let_go(self) -> bool:
        """Pause if that makes the test process faster and nothing else is missed; say whether."""
        return False

    def begin_stop(self) -> None:
        """Record nothing more; :meth:`stop`, which does that else, waits for what it takes."""

    def stop(self) -> None:
        """End the recording."""

    def close(self) -> None:
        """Release what the tracer holds for the whole run."""
        return
