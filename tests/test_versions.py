"""Versions are those of what is imported, in source trees and editable installations too."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
import sys

import pytest

import pytest_eventlet_debug
from pytest_eventlet_debug import versions


def test_what_is_installed_has_the_version_of_its_metadata() -> None:
    assert versions.in_use("pluggy") == metadata.version("pluggy")
    assert versions.in_use("pytest_eventlet_debug") == pytest_eventlet_debug.__version__


@pytest.mark.parametrize(
    ("metadata", "version"),
    [
        ("Metadata-Version: 2.1\nName: made-up\nVersion: 1.2.3\n\nVersion: 4\n", "1.2.3"),
        ("Name: made-up\nversion: 1.2.3\n", "1.2.3"),  # as the names of headers may be written
    ],
)
def test_the_version_is_that_of_the_header(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, metadata: str, version: str
) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "__init__.py").touch()
    (tmp_path / "made_up-9.dist-info").mkdir()
    (tmp_path / "made_up-9.dist-info" / "METADATA").write_text(metadata)
    monkeypatch.syspath_prepend(tmp_path)
    assert versions.in_use("made_up") == version


@pytest.mark.parametrize(
    ("file", "text", "version"),
    [
        ("_version.py", "__version__ = version = '1.2.3'\n", "1.2.3"),
        ("__init__.py", '__version__: str = "4.5"\n', "4.5"),
        ("__init__.py", "__version__ = compute()\n", versions.UNKNOWN),
    ],
)
def test_a_source_tree_in_front_says_its_own_version_and_is_not_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, file: str, text: str, version: str
) -> None:
    (tmp_path / "jinja2").mkdir()
    (tmp_path / "jinja2" / "__init__.py").touch()
    (tmp_path / "jinja2" / file).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "jinja2", raising=False)
    assert versions.in_use("jinja2") == version


def test_the_version_of_what_is_not_there_is_unknown() -> None:
    assert versions.in_use("no_such_package") == versions.UNKNOWN
