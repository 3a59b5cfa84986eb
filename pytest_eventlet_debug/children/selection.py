"""Which tests a process runs under its hub: what is asked for, what failed, what is left."""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Mapping
from collections.abc import Sequence
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import pytest

from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.hubs.ids import add_hub
from pytest_eventlet_debug.hubs.ids import split_hub
from pytest_eventlet_debug.node_ids import absolute_id
from pytest_eventlet_debug.node_ids import relative_id

if TYPE_CHECKING:
    from pytest_eventlet_debug.assignment import Assignment


def register(config: pytest.Config, assignment: Assignment) -> None:
    """Have a process that was assigned a hub choose its tests by what other processes know."""
    manager = config.pluginmanager
    if assignment.hub is not None:
        manager.register(LastFailed(assignment.hub, assignment.hubs))
        # With one hub, what is not there is nowhere, and pytest's usage error is right.
        if len(assignment.hubs) > 1:
            manager.register(AbsentTests(assignment.hub))
    if assignment.remaining is not None:
        manager.register(RemainingTests(Path(assignment.remaining)))


def select_arguments(arguments: Sequence[str], hub: str, hubs: Sequence[str]) -> list[str] | None:
    """Return the command line's paths and node ids as they are called under one hub.

    Ids with parameters but no hub stand for that test on every hub. A file with a hub, which the
    short summary calls a file that could not be collected, stands for the file on that hub.

    :param hubs: every hub of the run; ids of the other ones are left out.
    :returns: ``None`` if the user asked for tests of other hubs only.
    """
    selected = []
    for argument in arguments:
        bare, named = split_hub(argument, hubs)
        if "::" not in argument:
            if named is None or os.path.exists(argument):
                selected.append(argument)
            elif named == hub:
                selected.append(bare)
        elif named == hub:
            selected.append(argument)
        elif named is None:
            selected.append(add_hub(bare, hub) if bare.endswith("]") else bare)
    return selected if selected or not arguments else None


def chosen_hubs(config: pytest.Config, hubs: Sequence[str]) -> dict[str, set[str]]:
    """Return the tests that the command line names together with a hub, and for each its hubs.

    :returns: by the node ids that the tests have without a hub.
    """
    chosen: dict[str, set[str]] = {}
    for argument in config.args:
        bare, hub = split_hub(argument, hubs)
        if hub is not None and "::" in bare:
            test = relative_id(absolute_id(bare, config), config)
            chosen.setdefault(test, set()).add(hub)
    return chosen


def absent_everywhere(absent: Mapping[str, Mapping[str, str]], config: pytest.Config) -> list[str]:
    """Return the node ids of the command line that none of the hubs has that are to run them.

    :param absent: for each hub that has collected, the ids without a hub that are not there.
    """
    named = [absolute_id(argument, config) for argument in config.args]
    missing = []
    for nodeid in dict.fromkeys(each for ids in absent.values() for each in ids):
        asked = [hub for hub in absent if nodeid in named or add_hub(nodeid, hub) in named]
        if all(nodeid in absent[hub] for hub in asked or absent):
            missing.append(nodeid)
    return missing


class ArgumentsOfHub:
    """Take the command line's node ids for the names that the tests have under one hub.

    :param hubs: the names of all hubs of the run.
    """

    def __init__(self, hub: str, hubs: Sequence[str]) -> None:
        self._hub = hub
        self._hubs = hubs

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        config = session.config
        config.args[:] = select_arguments(config.args, self._hub, self._hubs) or config.args
        if config.option.deselect:
            config.option.deselect = select_arguments(config.option.deselect, self._hub, self._hubs)


class AbsentTests:
    """Report the node ids that the command line names and that are not there on this hub.

    pytest calls them a usage error; here they are one only if no hub has them, which the
    controller knows. A collect report takes the word there, through pytest-xdist, too: it has
    the id as its node id, and in ``eventlet_absent`` the reason, if the module skips itself.
    """

    def __init__(self, hub: str) -> None:
        self._hub = hub

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if isinstance(collector, pytest.Session):
            for nodeid, reason in pytest_internals.take_not_found(collector):
                collector.ihook.pytest_collectreport(report=self._report(nodeid, reason))
        return report

    def _report(self, nodeid: str, reason: str) -> pytest.CollectReport:
        words = f"Skipped: {nodeid} does not exist on {self._hub}"
        return pytest.CollectReport(
            nodeid=nodeid,
            outcome="skipped",
            longrepr=(nodeid.partition("::")[0], 0, words),
            result=[],
            eventlet_absent=reason,
        )


class RemainingTests:
    """Run what an earlier process, which died, has left: the same tests in the same order.

    :param path: a JSON file with their node ids.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    # Outermost: --lf or --stepwise choose what they chose the first time, and then this.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        result = yield
        found: dict[str, list[pytest.Item]] = {}
        for item in reversed(items):
            found.setdefault(item.nodeid, []).append(item)
        remaining = json.loads(self._path.read_text())
        items[:] = [found[nodeid].pop() for nodeid in remaining if found.get(nodeid)]
        return result


class LastFailed:
    """Keep ``--lf`` and ``--stepwise`` right where the failures to repeat are another hub's.

    :param hubs: the names of all hubs of the run, in order.
    """

    def __init__(self, hub: str, hubs: Sequence[str]) -> None:
        self._hub = hub
        self._order = {each: place for place, each in enumerate(hubs)}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> Generator[None, object, object]:
        stepwise = Stepwise(config)
        stepwise.recall(self._hub)
        # Before pytest, which takes a hub without failures for one whose tests to run are others.
        elsewhere = self._failures_are_elsewhere(config, items)
        result = yield
        hub = split_hub(stepwise.last_failed or "", self._order)[1]
        goes_on_later = hub is not None and self._order[hub] > self._order[self._hub]
        if hub not in (None, self._hub):
            # pytest says of all hubs but one that the test is not found.
            skipped = f"skipping {len(items)} already passed items"
            stepwise.say(
                f"{skipped if goes_on_later else 'not skipping'}, the failure is on {hub}."
            )
        if elsewhere or goes_on_later:
            config.hook.pytest_deselected(items=list(items))
            items[:] = []
        return result

    def _failures_are_elsewhere(self, config: pytest.Config, items: list[pytest.Item]) -> bool:
        """Say whether no test here has failed, and one on another hub has.

        A failure whose file is gone is nobody's: pytest never takes it out of its cache.
        """
        cache = getattr(config, "cache", None)
        if cache is None or not config.option.lf:
            return False
        failed: Mapping[str, bool] = cache.get("cache/lastfailed", {})
        if any(item.nodeid in failed for item in items):
            return False
        present = [each for each in failed if (config.rootpath / each.partition("::")[0]).exists()]
        hubs = {split_hub(each, self._order)[1] for each in present}
        return None not in hubs and bool(hubs - {self._hub})


class Stepwise:
    """What ``--stepwise`` remembers, for pytest has one number of tests and each hub its own.

    All of it is nothing as long as the option is not given.
    """

    KEY = "eventlet-debug/stepwise"

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._cache: Any = getattr(config, "cache", None)
        self._info = pytest_internals.stepwise_info(config)

    def recall(self, hub: str) -> None:
        """Set how many tests there were under a hub the last time."""
        if self._info is not None:
            self._info.last_test_count = self._cache.get(self.KEY, {}).get(hub)

    @property
    def last_failed(self) -> str | None:
        """The id of the test to go on from."""
        failed = getattr(self._info, "last_failed", None)
        return str(failed) if failed is not None else None

    @property
    def count(self) -> int | None:
        """How many tests there are now, once they are collected."""
        count: int | None = getattr(self._info, "last_test_count", None)
        return count

    def say(self, status: str) -> None:
        """Have pytest say this below the number of tests, in place of what it would."""
        pytest_internals.set_stepwise_status(self._config, status)

    def save(self, counts: Mapping[str, int]) -> None:
        """Remember how many tests there are under some hubs."""
        if self._info is not None and counts:
            self._cache.set(self.KEY, {**self._cache.get(self.KEY, {}), **counts})
