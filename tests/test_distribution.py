"""What is built to be published says what it holds."""

from __future__ import annotations

import os
from pathlib import Path
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = Path(__file__).parent.parent


def build_wheel(directory: Path, compiler: str | None) -> Path:
    """Build a wheel in a copy of the project; return its path.

    :param compiler: what to call for a C compiler; ``None`` for this machine's own.
    """
    source = directory / "source"
    source.mkdir()
    for name in ("LICENSE", "README.rst", "pyproject.toml", "setup.py"):
        shutil.copy(ROOT / name, source)
    package = "pytest_eventlet_debug"
    shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("*.so"))
    build = "from setuptools import build_meta; build_meta.build_wheel('..')"
    environment = {**os.environ} if compiler is None else {**os.environ, "CC": compiler}
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", build], cwd=source, env=environment, check=True
    )
    [wheel] = directory.glob("*.whl")
    return wheel


def compiled(wheel: Path) -> list[str]:
    return [name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".so")]


def test_a_wheel_in_which_nothing_was_compiled_is_for_any_platform(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, compiler="false")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not compiled(wheel)
    members = zipfile.ZipFile(wheel).namelist()
    assert "pytest_eventlet_debug/plugin.py" in members
    [tags] = [name for name in members if name.endswith(".dist-info/WHEEL")]
    assert "Root-Is-Purelib: true" in zipfile.ZipFile(wheel).read(tags).decode()


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_a_wheel_with_compiled_code_is_for_this_python_and_platform(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, compiler=None)
    assert f"-cp3{sys.version_info.minor}-linux_" in wheel.name
    names = sorted(name.partition(".cpython-")[0] for name in compiled(wheel))
    package = "pytest_eventlet_debug"
    assert names == [
        f"{package}/alive/_heap",
        f"{package}/helper/_sockets",
        f"{package}/profiling/_native",
        f"{package}/stalls/_watcher",
        f"{package}/system/_collector",
        f"{package}/system/_handlers",
    ]
