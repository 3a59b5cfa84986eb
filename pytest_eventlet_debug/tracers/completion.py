"""Have recordings completed while the next tests run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
import contextlib

from pytest_eventlet_debug.artifacts import TestArtifacts
from pytest_eventlet_debug.tracers import ports
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import TracerError

#: How many tests' files a helper may have before it that dies. It takes less than a millisecond
#: for each.
_LATEST = 16


class Completion:
    """Asks the helper to complete the directories of tests; the test process goes on."""

    def __init__(self, helper: Callable[[], Helper | None], *, shared: bool = True) -> None:
        """Ask the helper that *helper* returns, which is ``None`` if nothing needed one.

        :param shared: whether other programs use the network that tests are on.
        """
        self._helper = helper
        self._shared = shared
        self._asked = False
        self._handed_over: deque[TestArtifacts] = deque(maxlen=_LATEST)

    def together(self) -> contextlib.AbstractContextManager[None]:
        """Have what tracers ask of the helper meanwhile sent in one message."""
        helper = self._helper()
        return contextlib.nullcontext() if helper is None else helper.together()

    def announce(self, test: TestArtifacts) -> None:
        """Have a test's directory known for what it is, should the test end this process.

        :raises OSError: what is known of the test cannot be written.
        """
        helper = self._helper()
        if helper is not None:
            with contextlib.suppress(TracerError):
                helper.post("announce", test.record(), directory=str(test.directory))
                return
        test.announce()

    def begin(self, test: TestArtifacts) -> None:
        """Have a test's directory completed, now that nothing more is recorded there.

        :raises TracerError: the helper cannot.
        :raises OSError: what is known of the test cannot be written.
        """
        helper = self._helper()
        if helper is None:
            from pytest_eventlet_debug.recordings.findings import stalls  # slow to import

            test.save()
            stalls.complete(test.directory)
            return
        directory = str(test.directory)
        used = ports.used() if self._shared else None
        self._handed_over.append(test)
        self._asked = True
        try:
            helper.post(
                "finish", test.record(), directory=directory, shared=self._shared, ports=used
            )
        except TracerError:
            self._take_back()
            raise

    def discard(self, test: TestArtifacts) -> None:
        """Delete what was recorded of a test.

        :raises TracerError: the helper cannot.
        :raises OSError: something of it cannot be deleted.
        """
        helper = self._helper()
        if helper is None:
            test.discard()
        else:
            helper.post("discard", directory=str(test.directory))
            self._asked = True

    def _take_back(self) -> None:
        """Write what a helper that is gone may not have come to."""
        for test in self._handed_over:
            if test.directory.exists():
                test.save()
        self._handed_over.clear()

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
                self._take_back()
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
