"""What pyfakefs is told; tests/children/test_other_plugins.py runs it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pytest_eventlet_debug.system import fake_files

PATCHER = "pyfakefs.fake_filesystem_unittest"


def test_only_a_table_that_is_there_is_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {"pydevd": ["pydevd"]}
    for patcher in (None, SimpleNamespace(), SimpleNamespace(RUNTIME_SKIPMODULES=table)):
        monkeypatch.setitem(sys.modules, PATCHER, SimpleNamespace(Patcher=patcher))
        fake_files.keep_out()
    monkeypatch.delitem(sys.modules, PATCHER)
    fake_files.keep_out()
    name = "pytest_eventlet_debug"
    assert table == {"pydevd": ["pydevd"], name: [name]}
