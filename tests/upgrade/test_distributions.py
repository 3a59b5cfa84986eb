"""Which distributions are installed, and which of them a file belongs to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_eventlet_debug.upgrade.distributions import Installed
from pytest_eventlet_debug.upgrade.distributions import normalized
from pytest_eventlet_debug.upgrade.saved_run import Distribution


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "lib" / "site-packages"
    folder.mkdir(parents=True)
    monkeypatch.syspath_prepend(folder)
    return folder


def install(site: Path, name: str, record: str = "", **files: str) -> None:
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{line},,\n" for line in record.split()))
    for line in record.split():
        (site / line).parent.mkdir(parents=True, exist_ok=True)
        (site / line).touch()
    for file, text in files.items():
        (info / file.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dnspython", "dnspython"), ("Foo.Bar__baz", "foo-bar-baz"), ("A-_-b", "a-b")],
)
def test_names_are_compared_as_pep_503_has_them(name: str, expected: str) -> None:
    assert normalized(name) == expected


def test_what_is_installed_here_is_found() -> None:
    found = Installed().distributions
    assert found["pytest"] == Distribution(pytest.__version__, ("_pytest", "py", "pytest"))
    assert found["dnspython"].packages == ("dns",)
    assert list(found) == sorted(found)


def test_packages_are_those_of_the_record_or_of_top_level(site: Path) -> None:
    record = "frob/__init__.py frob/data.txt single.py ../../bin/frob native.cpython-312.so"
    install(site, "Frob-Tools", f"{record} __pycache__/single.pyc Frob_Tools-1.0.dist-info/x.py")
    install(site, "stated", "ignored/__init__.py", top_level__txt="one\ntwo\n")
    found = Installed().distributions
    assert found["frob-tools"].packages == ("frob", "native", "single")
    assert found["stated"].packages == ("one", "two")


def test_a_checkout_has_its_commit_in_the_version(site: Path) -> None:
    origin = {
        "url": "https://x.org/frob",
        "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"},
    }
    install(site, "frob", direct_url__json=json.dumps(origin))
    assert Installed().distributions["frob"].version == "1.0 (commit 0123456789ab)"


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_a_note_of_the_origin_that_is_broken_is_no_harm(site: Path, text: str) -> None:
    install(site, "frob", direct_url__json=text)
    assert Installed().distributions["frob"].version == "1.0"


def test_metadata_without_a_name_is_passed_over(site: Path) -> None:
    (site / "broken-1.0.dist-info").mkdir()
    (site / "broken-1.0.dist-info" / "METADATA").write_text("Version: 1.0\n")
    assert "broken" not in Installed().distributions


def test_files_belong_to_the_distribution_that_has_the_package(site: Path, tmp_path: Path) -> None:
    install(site, "frob", "frob/__init__.py single.py")
    owners = Installed().owners
    assert owners([str(site / "frob/deep/x.py")], tmp_path) == ("frob",)
    assert owners(["../venv/lib/python3/dist-packages/single.py"], tmp_path) == ("frob",)
    assert owners(["site-packages/frob/x.py", "lib/site-packages/frob/y.py"], tmp_path) == ("frob",)
    assert owners(["/usr/lib/python3.12/json/__init__.py", "frob/x.py"], tmp_path) == ()
    assert owners([str(site / "unknown/x.py")], tmp_path) == ()


def test_files_of_a_shared_namespace_are_told_apart(site: Path, tmp_path: Path) -> None:
    install(site, "ns-one", "ns/one.py")
    install(site, "ns-two", "ns/two.py")
    paths = [str(site / "ns/two.py"), str(site / "ns/one.py"), str(site / "ns/three.py")]
    assert Installed().owners(paths, tmp_path) == ("ns-two", "ns-one")


@pytest.mark.parametrize("source", ["", "src"])
def test_a_source_tree_installed_from_there_owns_its_packages_but_not_its_tests(
    site: Path, tmp_path: Path, source: str
) -> None:
    tree = tmp_path / "my tree"
    for package in (tree / source / "frob", tree / "tests"):
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
    origin = {"url": tree.as_uri(), "dir_info": {"editable": True}}
    install(site, "frob", direct_url__json=json.dumps(origin))
    installed = Installed()
    assert installed.distributions["frob"].packages == ("frob",)
    paths = [str(Path(source, "frob", "x.py")), "tests/test_x.py", "elsewhere.py"]
    assert installed.owners(paths[:1], tree) == ("frob",)
    assert installed.owners(paths[1:], tree) == ()
    assert installed.owners([f"../{paths[0]}"], tree / "tests") == ("frob",)
