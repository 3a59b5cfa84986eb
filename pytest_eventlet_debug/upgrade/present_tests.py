"""A plugin: run those of the tests that the command line names which can be collected.

Pytest runs none if one is missing, as where its module cannot be imported.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_eventlet_debug import pytest_internals


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if isinstance(collector, pytest.Session):
        pytest_internals.take_not_found(collector)
    return report
