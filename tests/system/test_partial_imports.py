"""Imports without what the imported module does not need."""

from __future__ import annotations

from pathlib import Path
import sys
import types

import pytest

from pytest_eventlet_debug.system.partial_imports import NOTHING
from pytest_eventlet_debug.system.partial_imports import leaving_out


def test_only_what_is_imported_meanwhile_goes_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_two.py").write_text("import left_out, json; VALUE = left_out.value()")
    (tmp_path / "left_out.py").write_text("value = lambda: 'the real one'")
    monkeypatch.syspath_prepend(tmp_path)
    stand_in = types.SimpleNamespace(value=lambda: "another one")
    with leaving_out({"left_out": stand_in, "json": NOTHING}):
        needs_two = __import__("needs_two")
    assert (needs_two.VALUE, needs_two.json) == ("another one", sys.modules["json"])
    assert __import__("left_out").value() == "the real one"


def test_an_import_that_fails_leaves_nothing_behind() -> None:
    with pytest.raises(ModuleNotFoundError), leaving_out({"left_out_too": NOTHING}):
        import no_such_module  # type: ignore[import-not-found] # noqa: F401
    assert "left_out_too" not in sys.modules
