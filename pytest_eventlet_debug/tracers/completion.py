"""Have recordings completed while the next tests run."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path

from pytest_eventlet_debug.tracers import ports
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import TracerError


class Completion:
    """Asks the helper to complete the directories of tests; the test process goes on."""

    def __init__(self, helper: Callable[[], Helper | None], *, shared: bool = True) -> None:
        """Ask the helper that *helper* returns, which is ``None`` if nothing needed one.

        :param shared: whether other programs use the network that tests are on.
        """
        self._helper = helper
        self._shared = shared
        self._asked = False

    def begin(self, directory: Path) -> None:
        """Have a test's directory completed, now that nothing more is recorded there.

        :raises TracerError: the helper cannot.
        :raises OSError: what the test process found out itself cannot be written.
        """
        helper = self._helper()
        if helper is None:
            from pytest_eventlet_debug.recordings.findings import stalls  # slow to import

            stalls.complete(directory)
            return
        used = ports.used() if self._shared else None
        helper.request(
            "finish", directory=os.path.abspath(directory), shared=self._shared, ports=used
        )
        self._asked = True

    def close(self) -> None:
        """Let the helper end while the rest of the run is done."""
        helper = self._helper()
        if helper is not None:
            helper.begin_close()

    def wait(self) -> list[str]:
        """Wait until all is completed; return what could not be, a line each."""
        helper = self._helper()
        problems: list[str] = []
        # Of a helper that was gone before, each test whose recordings it would have completed
        # has said so.
        while self._asked and helper is not None and not helper.is_gone:
            try:
                answer = helper.request("finish-wait")
            except TracerError as error:
                return [*problems, str(error)]
            except KeyboardInterrupt:
                return [*problems, "Ctrl-C: not all recordings have findings"]
            found = answer["problems"]
            assert isinstance(found, list)
            problems += found
            if not answer["left"]:
                break
        self._asked = False
        return problems
