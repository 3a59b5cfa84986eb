"""Tell which tests hold the hub: around each phase of a test, by the best means there is."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
import math
from pathlib import Path
import sys
from typing import Any
from typing import Protocol

import pytest

from pytest_eventlet_debug import fallbacks
from pytest_eventlet_debug.option_types import MOST_THRESHOLD
from pytest_eventlet_debug.recordings.findings import stalls as stalls_file
from pytest_eventlet_debug.recordings.findings import text
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.model import redacted
from pytest_eventlet_debug.report_properties import ERROR_PROPERTY
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.stalls import words
from pytest_eventlet_debug.stalls.model import Stall
from pytest_eventlet_debug.warning_types import EventletStallWarning

#: The marker that lets a test hold the hub.
MARKER = "eventlet_blocks"
#: Stalls of one test that are told; the rest is counted.
MOST = 10


class Watch(Protocol):
    """What sees stalls: see :class:`~.native.NativeWatch`."""

    @property
    def descriptors(self) -> set[int]: ...

    def start(self) -> None: ...

    def arm(self, seconds: float, hubs: dict[str, Any] | None, is_new: bool) -> None: ...

    def disarm(self) -> list[Stall]: ...

    def stop(self) -> None: ...


class StallWatch:
    """Watches the phases of each test for greenthreads that hold the hub; a plugin object.

    :param seconds: how long they may.
    :param fails: whether a test fails for it, in its teardown, instead of a warning.
    :param hub: the hub's name.
    :param directory: returns the directory of a test's artifacts, made now.
    :param redact: takes out of a text what is not to be in it.
    """

    def __init__(
        self,
        seconds: float,
        *,
        fails: bool,
        hub: str,
        directory: Callable[[pytest.Item], Path],
        redact: Callable[[str], str],
    ) -> None:
        self._seconds = seconds
        self._fails = fails
        self._hub = hub
        self._directory = directory
        self._redact = redact
        self._watch: Watch | None = None
        self._limit: float | None = None
        self._item: pytest.Item | None = None
        self._found: list[Finding] = []

    @property
    def descriptors(self) -> set[int]:
        """The descriptors that the watch has open in this process."""
        return self._watch.descriptors if self._watch is not None else set()

    def pytest_runtest_logstart(self) -> None:
        # Before tracers begin, so that no trace shows how the thread is made.
        with Shield():
            self._watch = self._watch or _make_watch()
            if self._watch is not None:
                self._watch.start()

    # Innermost, so that what other plugins do around a test is not the test's.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        self._item, self._found = item, []
        self._limit = self._limit_of(item)
        return (yield from self._watched(item, is_new=True))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        return (yield from self._watched(item))

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        try:
            result = yield from self._watched(item)
        finally:
            self._keep(item)
        self._tell(item)
        return result

    def _limit_of(self, item: pytest.Item) -> float | None:
        """Return how long a test may hold the hub, or ``None`` for as long as it likes."""
        marker = item.get_closest_marker(MARKER)
        if marker is None:
            return self._seconds
        try:
            seconds = _allowance(*marker.args, **marker.kwargs)
        except (TypeError, ValueError):
            seconds = math.nan
        if math.isnan(seconds):
            given = [*map(repr, marker.args), *(f"{k}={v!r}" for k, v in marker.kwargs.items())]
            must = "must have a number of seconds, or nothing"
            pytest.fail(f"marker {MARKER}: {must}, not {', '.join(given)}", pytrace=False)
        return max(seconds, self._seconds) if seconds <= MOST_THRESHOLD else None

    def _watched(self, item: pytest.Item, is_new: bool = False) -> Generator[None, object, object]:
        self._arm(item, is_new)
        try:
            return (yield)
        finally:
            self._disarm(item)

    def _arm(self, item: pytest.Item, is_new: bool = False) -> None:
        if self._limit is not None:
            with self._noting(item):
                self._watch = self._watch or _make_watch()
                if self._watch is not None:
                    self._watch.arm(self._limit, _hubs_of_thread(), is_new)

    def _disarm(self, item: pytest.Item) -> None:
        if self._watch is None:
            return
        with self._noting(item):
            for stall in self._watch.disarm():
                found = words.finding(stall, item.nodeid, self._hub, item.config.rootpath)
                if found is not None:
                    self._found.append(redacted(found, self._redact))

    def _noting(self, item: pytest.Item) -> Shield:
        return Shield(lambda line: item.user_properties.append((ERROR_PROPERTY, line)), "stalls")

    def pytest_enter_pdb(self) -> None:
        if self._item is not None:
            self._disarm(self._item)

    def pytest_leave_pdb(self) -> None:
        if self._item is not None:
            self._arm(self._item)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed and self._found:
            report.sections.append(("Hub held", "\n".join(self._lines())))
        return report

    def _keep(self, item: pytest.Item) -> None:
        if self._found:
            with self._noting(item):
                stalls_file.write(self._directory(item), self._found)

    def _tell(self, item: pytest.Item) -> None:
        """Say what was found, once all of it is known."""
        if not self._found:
            return
        message = "\n".join(["The test held the hub:", *self._lines()])
        if self._fails:
            pytest.fail(message, pytrace=False)
        item.warn(EventletStallWarning(message))

    def _lines(self) -> list[str]:
        lines = [
            f"  {line}"
            for finding in self._found[:MOST]
            for line in (finding.title, *list(text.with_evidence(finding))[1:])
        ]
        left = len(self._found) - MOST
        return [*lines, f"  ... and {left} more"] if left > 0 else lines

    def pytest_unconfigure(self) -> None:
        with Shield():
            if self._watch is not None:
                self._watch.stop()
        self._watch = None


def _allowance(seconds: float | None = None) -> float:
    """Return for how long the marker with these arguments lets a test hold the hub."""
    return math.inf if seconds is None else float(seconds)


def _make_watch() -> Watch | None:
    """Return the watch that works here; ``None`` as long as greenlet is not imported."""
    if "greenlet" not in sys.modules:
        return None
    try:
        from pytest_eventlet_debug.stalls.native import NativeWatch

        native = NativeWatch()
        if native.sees_switches():
            return native
        native.stop()
        why = "greenlet does not count its switches here as expected"
    except (ImportError, RuntimeError) as error:
        why = f"the watching thread is not available ({error})"
    fallbacks.warn(f"What holds the hub is noticed only when it is over: {why}")
    from pytest_eventlet_debug.stalls.fallback import SwitchWatch

    return SwitchWatch()


def _hubs_of_thread() -> dict[str, Any] | None:
    """Return the dictionary in which eventlet keeps the hub of this thread, now or later."""
    local = getattr(sys.modules.get("eventlet.hubs"), "_threadlocal", None)
    own = getattr(local, "__dict__", None)
    return own if type(own) is dict else None
