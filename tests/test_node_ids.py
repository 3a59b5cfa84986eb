"""Node ids, from where pytest was called and back."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pytest_eventlet_debug.node_ids import absolute_id
from pytest_eventlet_debug.node_ids import relative_id
from pytest_eventlet_debug.node_ids import shown_id


@pytest.mark.parametrize(
    ("called_in", "nodeid", "shown"),
    [
        ("/suite", "tests/test_x.py::test_x[a/b::c]", "tests/test_x.py::test_x[a/b::c]"),
        ("/suite/tests", "tests/test_x.py::test_x[a/b::c]", "test_x.py::test_x[a/b::c]"),
        ("/suite/tests/deep", "tests/test_x.py", "../test_x.py"),
        ("/", "tests/test_x.py::Test::test_x", "suite/tests/test_x.py::Test::test_x"),
    ],
)
def test_an_id_is_shown_as_the_command_line_takes_it(
    called_in: str, nodeid: str, shown: str
) -> None:
    config: Any = SimpleNamespace(
        rootpath=Path("/suite"), invocation_params=SimpleNamespace(dir=Path(called_in))
    )
    assert shown_id(nodeid, config) == shown
    assert relative_id(absolute_id(shown, config), config) == nodeid
