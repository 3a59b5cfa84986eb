"""Tests that failed among others and pass alone: run again after those that ran before them."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence

from pytest_eventlet_debug.outcomes.gathering import Attempt
from pytest_eventlet_debug.outcomes.gathering import Gathering
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.reruns.reruns import Reruns

#: For how long the tests of a module may have run, for it to be run again for one of them.
_MOST_SECONDS = 60.0


def failed_in_run_alone(attempts: Sequence[Attempt]) -> bool:
    """Say whether a test failed in the run, and not once when it ran again."""
    in_run, *again = attempts
    return in_run.outcome in BAD and bool(again) and all(each.outcome not in BAD for each in again)


def depends_on_company(in_company: Sequence[Attempt]) -> bool:
    """Say whether such a test failed each time that it ran after others again."""
    return bool(in_company) and all(each.outcome in BAD for each in in_company)


def run_in_company(
    reruns: Reruns, gathering: Gathering, nodeids: Iterable[str], times: int
) -> dict[str, list[Attempt]]:
    """Run tests after those of their modules that ran before them under the same hub.

    Of a module that takes too long none is run.

    :param nodeids: those in question.
    :param times: how often.
    :return: by node id, how each of them ended.
    """
    of_modules: dict[tuple[str, str], list[str]] = {}
    for nodeid in gathering.nodeids:
        test, hub = gathering.key(nodeid)
        of_modules.setdefault((test.partition("::")[0], hub), []).append(nodeid)
    wanted = set(nodeids)
    parts = []
    for of_module in of_modules.values():
        last = max((at for at, nodeid in enumerate(of_module) if nodeid in wanted), default=0)
        part = of_module[: last + 1]
        if last and sum(map(gathering.seconds, part)) <= _MOST_SECONDS:
            parts.append(part)
    found: dict[str, list[Attempt]] = {}
    if not parts:
        return found
    count = sum(nodeid in wanted for part in parts for nodeid in part)
    reruns.say(f"rerunning {tests(count)} after the earlier tests of the same module")
    for attempts in reruns.run_each(parts * times):
        for nodeid in wanted & attempts.keys():
            found.setdefault(nodeid, []).append(attempts[nodeid])
    return found
