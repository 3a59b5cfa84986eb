"""Results of pytest-benchmark, gathered from all hubs into one table and one file.

Written against pytest-benchmark 5.3. A child sends each result when its test is over, and saves
and shows nothing itself; the controller does with all of them what its options ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import json
import types
from typing import Any

import pytest


class BenchmarkSender:
    """Sends the results of a child's benchmarks; a plugin object.

    :param session: pytest-benchmark's own.
    :param send: takes a list of results, as plain data.
    """

    def __init__(self, session: Any, send: Callable[[list[dict[str, Any]]], None]) -> None:
        self._session = session
        self._send = send
        session.json = session.save = session.autosave = None

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logfinish(self) -> None:
        results = list(filter(None, self._session.benchmarks))
        self._session.benchmarks.clear()
        if results:
            self._send([_pack(result) for result in results])


def sender(
    config: pytest.Config, send: Callable[[list[dict[str, Any]]], None]
) -> BenchmarkSender | None:
    """Return what sends benchmarks, or ``None`` where pytest-benchmark is not in use."""
    session = getattr(config, "_benchmarksession", None)
    return None if session is None else BenchmarkSender(session, send)


def receive(config: pytest.Config, results: Iterable[dict[str, Any]]) -> None:
    """Add a child's results to those of the run that the user started."""
    session = getattr(config, "_benchmarksession", None)
    if session is not None:
        session.benchmarks += [_unpack(result) for result in results]


def _pack(result: Any) -> dict[str, Any]:
    from pytest_benchmark.utils import safe_dumps

    facts = {**result.as_dict(include_data=True), "has_error": result.has_error}
    plain: dict[str, Any] = json.loads(safe_dumps(facts))  # as its file would have them
    return plain


def _unpack(facts: dict[str, Any]) -> Any:
    from pytest_benchmark.stats import Metadata

    measured = facts.pop("stats")
    fixture = types.SimpleNamespace(**facts, cprofile_stats=None)
    result = Metadata(fixture, measured["iterations"], facts["options"])
    for seconds in measured["data"]:
        result.stats.update(seconds)
    return result
