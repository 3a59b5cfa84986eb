"""Tell what a test left behind that was not there before it.

Greenthreads, tasks, listeners, timers, threads, child processes, descriptors. Nothing here
switches greenthreads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Generator
import gc
from typing import Any
from typing import Literal

import pytest

from pytest_eventlet_debug.alive.census import Census
from pytest_eventlet_debug.alive.census import children
from pytest_eventlet_debug.alive.census import take_census
from pytest_eventlet_debug.alive.endings import EndingWatch
from pytest_eventlet_debug.alive.fixture_values import FixtureValues
from pytest_eventlet_debug.alive.heap import Follower
from pytest_eventlet_debug.alive.leftovers import Known
from pytest_eventlet_debug.alive.leftovers import Late
from pytest_eventlet_debug.alive.leftovers import Leftovers
from pytest_eventlet_debug.alive.origins import Origins
from pytest_eventlet_debug.alive.spawns import SpawnWatch
from pytest_eventlet_debug.node_ids import shown_id
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.report_properties import ERROR_PROPERTY
from pytest_eventlet_debug.report_properties import LEFT_DESCRIPTORS
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import starvation
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.open_descriptors import OpenDescriptors
from pytest_eventlet_debug.warning_types import EventletLeakWarning

Mode = Literal["warn", "fail"]

#: What threads and processes that are about to end are given for it.
GRACE_SECONDS = 0.2
#: The same where others have the CPUs.
MOST_GRACE_SECONDS = 2.0
#: Leftovers of one test that are named; the rest is counted.
MAX_LINES = 30

_SECONDS = lazily(r"-?\d+\.\d+ s left")


class LeakWatch:
    """Judges each test that passes by what it leaves; a plugin object.

    What fixtures of a wider scope than one test make is theirs, and no leak. Of a test that
    fails only that is told which its traceback does not keep alive: threads, processes, and
    what a hub holds.

    :param mode: whether to warn, or to fail the test in its teardown.
    :param own_descriptors: returns those of this plugin.
    :param list_descriptors: returns all with what the kernel calls them; ``None`` to look here.
    """

    def __init__(
        self,
        mode: Mode,
        own_descriptors: Callable[[], Collection[int]],
        list_descriptors: Callable[[], dict[int, str]] | None = None,
    ) -> None:
        self._mode = mode
        self._own_descriptors = own_descriptors
        self._follower = Follower()
        self._list_descriptors = list_descriptors or OpenDescriptors().look
        self._known = Known()
        self._late = Late()
        self._failed = False
        self._begun = False
        self._spawns = SpawnWatch()
        self._origins = Origins()
        self._endings = EndingWatch()
        self._fixtures = FixtureValues()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self) -> Generator[None, object, object]:
        self._failed = False
        with Shield():
            self._spawns.look_again()
            self._origins.begin()
            self._endings.look_again()
        if not self._begun:
            self._begun = True
            self._accept()
        return (yield)

    def pytest_unconfigure(self) -> None:
        self._spawns.stop()
        self._origins.stop()
        self._endings.stop()
        self._follower.stop()

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any]
    ) -> Generator[None, object, object]:
        result = yield
        if fixturedef.scope != "function":
            self._fixtures.begin(fixturedef)
            self._accept()
        return result

    def pytest_fixture_post_finalizer(self, fixturedef: pytest.FixtureDef[Any]) -> None:
        self._fixtures.end(fixturedef)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if report.failed or hasattr(report, "wasxfail"):
            self._failed = True
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        try:
            result = yield
        except BaseException:
            self._accept()
            raise
        found: list[tuple[str | None, list[str]]] = []
        # A leak unseen is better than a test that fails for being watched.
        with Shield(lambda line: item.user_properties.append((ERROR_PROPERTY, line)), "leaks"):
            judged = self._judge(item.nodeid)
            found = [
                (None if nodeids == [item.nodeid] else _earlier(nodeids, item.config), lines)
                for nodeids, lines in _by_lines(judged.by_test(), item.nodeid)
            ]
            item.stash[LEFT_DESCRIPTORS] = judged.left
        for earlier, lines in found:
            if earlier is not None:
                item.warn(EventletLeakWarning(_text(lines, f"{earlier} left")))
            elif self._failed:
                item.warn(EventletLeakWarning(_text(lines, "The test, which failed, left")))
            elif self._mode == "warn":
                item.warn(EventletLeakWarning(_text(lines, "The test left")))
            else:
                pytest.fail(_text(lines, "The test left"), pytrace=False)
        return result

    def _look(self) -> Census:
        return take_census(self._follower, self._list_descriptors, self._own_descriptors())

    def _accept(self) -> None:
        with Shield():
            self._known.accept(self._look())

    def _find(self, census: Census, nodeid: str) -> Leftovers:
        return Leftovers(census, self._known, self._late, nodeid, self._failed, self._origins)

    def _judge(self, nodeid: str) -> Leftovers:
        """Return what is left by which test."""
        census = self._look()
        found = self._find(census, nodeid)
        if found.uncertain:
            # Garbage is not left behind, and what ends by itself neither.
            del census
            _wait_for(found.still_ending)
            gc.collect()
            census = self._look()
            self._known.excuse(self._fixtures.reached(), census)
            found = self._find(census, nodeid)
        self._late = found.late
        self._known.accept(census)
        return found


def _by_lines(found: list[tuple[str, list[str]]], own: str) -> list[tuple[list[str], list[str]]]:
    """Put tests before *own* together that left the same, but for the time that is left to it."""
    tests: dict[tuple[object, ...], tuple[list[str], list[str]]] = {}
    for nodeid, lines in found:
        key = (nodeid == own, *sorted(_SECONDS.sub("", line) for line in lines))
        tests.setdefault(key, ([], lines))[0].append(nodeid)
    return list(tests.values())


def _earlier(nodeids: list[str], config: pytest.Config) -> str:
    first = shown_id(nodeids[0], config)
    if len(nodeids) == 1:
        return f"{first}, an earlier test,"
    others = "another" if len(nodeids) == 2 else f"{len(nodeids) - 1} others"
    return f"{first} and {others}, earlier tests, each"


def _text(lines: list[str], who: str) -> str:
    counted = Counter(lines)
    shown = [f"{line} x {count}" if count > 1 else line for line, count in counted.items()]
    if len(shown) > MAX_LINES:
        shown[MAX_LINES:] = [f"... and {len(shown) - MAX_LINES} more"]
    return "\n".join([f"{who} behind:", *(f"  {line}" for line in shown)])


def _wait_for(still: Callable[[], bool]) -> None:
    """Wait until something ends, for :data:`GRACE_SECONDS` in which there is a CPU for it."""
    began = unpatched.monotonic()
    processes = {unpatched.getpid(), *children()}
    before = starvation.run_delays(processes)
    while still():
        waited = unpatched.monotonic() - began
        if waited >= MOST_GRACE_SECONDS:
            return
        lacked = starvation.lacked(before, starvation.run_delays(processes))
        if waited - lacked >= GRACE_SECONDS:
            return
        unpatched.select.poll().poll(5)
