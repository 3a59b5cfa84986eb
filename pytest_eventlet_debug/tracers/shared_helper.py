"""The one helper of a test process, which its tracers share."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import contextlib
from pathlib import Path

from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import TracerError


class SharedHelper:
    """Starts the helper when it is first needed, and has it closed when the run is over.

    :param add_cleanup: takes what is to be called at the end of the run.
    :param redact: a regular expression; what matches is left out of what the helper completes.
    :param is_awaited: whether another process waits for it where this one dies.
    """

    def __init__(
        self,
        add_cleanup: Callable[[Callable[[], None]], object],
        redact: str | None = None,
        *,
        is_awaited: bool = False,
    ) -> None:
        self._add_cleanup = add_cleanup
        self._redact = redact
        self._is_awaited = is_awaited
        self._lock: Path | None = None
        self._has_finisher = False
        #: The helper, or ``None`` as long as nothing needed one.
        self.started: Helper | None = None

    def warm_up(self) -> None:
        """Have it get ready while this process goes on. What fails now fails again, and says so."""
        with contextlib.suppress(TracerError):
            self.start()

    def start(self) -> Helper:
        """Return the helper, started now if it is the first need.

        :raises TracerError: it cannot be started.
        """
        if self.started is None:
            self.started = Helper.start()
            self._add_cleanup(self.started.close)
            if self._redact is not None:
                self.started.post("redact", pattern=self._redact)
            self._be_awaited()
        return self.started

    def prepare_finisher(self, tracers: Sequence[str]) -> None:
        """Have the finisher get ready, which takes longer than a short test; once is enough.

        :param tracers: those whose recordings there will be to complete.
        """
        if self.started is not None and not self._has_finisher:
            self._has_finisher = True
            with contextlib.suppress(TracerError):  # each recording says so
                self.started.begin("finish-prepare", tracers=tracers)

    def know_lock(self, path: Path) -> None:
        """Have the helper lock a file while it is awaited, if it is.

        :param path: that of the run's directory.
        """
        self._lock = path
        with contextlib.suppress(TracerError):  # each recording says so
            self._be_awaited()

    def _be_awaited(self) -> None:
        if self._is_awaited and self._lock is not None and self.started is not None:
            self.started.post("be-awaited", path=str(self._lock))
