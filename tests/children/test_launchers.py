"""Runs that a program of the user's has started, which patches first."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
import textwrap
import zipfile

import msgspec
import pytest

LAUNCHER = """
    import sys
    import eventlet
    eventlet.monkey_patch()
    import pytest

    class Own:
        def pytest_runtest_setup(self, item):
            item.user_properties.append(("launcher", sys.argv[1:]))

    print("the launcher starts")
    status = pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]], plugins=[Own()])
    pytest.main(["--version"])
    print(f"the launcher ends with {int(status)}")
    sys.exit(status)
"""

TESTS = """
    import eventlet.patcher
    import os
    import sys

    import pytest

    def test_patched():
        assert eventlet.patcher.is_monkey_patched("socket")

    def test_started_as_the_run_was(request):
        assert request.node.user_properties == [("launcher", sys.argv[1:])]
        assert "-o" in sys.argv
        assert sys.modules["__main__"].Own
        assert os.environ["EVENTLET_HUB"] in request.node.name
"""


@pytest.mark.parametrize("command", [["sub/run.py"], ["-m", "sub.run"]], ids=["script", "module"])
def test_children_start_as_the_run_was_started(
    pytester: pytest.Pytester, command: list[str]
) -> None:
    directory = pytester.mkpydir("sub")
    (directory / "run.py").write_text(textwrap.dedent(LAUNCHER))
    pytester.makepyfile(test_x=TESTS)
    options = ["--eventlet-hub=poll,asyncio", "-o", "xfail_strict=true", "test_x.py"]
    result = pytester.run(sys.executable, *command, *options)
    result.assert_outcomes(passed=4)
    assert result.ret == 0
    assert result.stdout.str().count("the launcher starts") == 1  # not once more for each hub
    assert "the launcher ends with 0" in result.outlines
    result.stdout.no_fnmatch_line("*the children run plain pytest*")


def test_what_cannot_be_started_again_is_said(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_a(): pass")
    program = "import pytest\npytest.main(['--eventlet-hub=poll,epolls', 'test_x.py'])\n"
    result = pytester.run(sys.executable, "-", stdin=program.encode())
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        ["the children run plain pytest*: it is neither a script*; *as a plugin (-p)"]
    )


TELL = """
import json, os, sys
import msgspec
from pytest_eventlet_debug.children.program import own_program
%s
print(json.dumps(msgspec.to_builtins(own_program())))
"""


def _own_program(directory: Path, *command: str) -> dict[str, object] | None:
    told = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env={"PWD": str(directory), "PYTHONWARNINGS": "default"},
        check=True,
        capture_output=True,
        text=True,
    )
    program: dict[str, object] | None = msgspec.json.decode(told.stdout)
    return program


def test_programs_are_known_by_how_python_was_started(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(TELL % "os.chdir('/')")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(TELL % "sys.argv.clear()")
    with zipfile.ZipFile(tmp_path / "archive.pyz", "w") as archive:
        archive.writestr("__main__.py", TELL % "")
    nothing = {"module": None, "script": None, "code": None, "directory": str(tmp_path)}

    assert _own_program(tmp_path, "run.py", "-m", "x") == {
        **nothing,
        "script": str(script),
        "arguments": ["-m", "x"],
    }
    assert _own_program(tmp_path, "-W", "error", "-Bm", "package", "-k", "a") == {
        **nothing,
        "module": "package",
        "arguments": ["-k", "a"],
    }
    for name in ("package", "archive.pyz"):
        assert _own_program(tmp_path, "-X", "utf8", name) == {
            **nothing,
            "script": str(tmp_path / name),
            "arguments": [],
        }
    code = TELL % "# pytest"
    assert _own_program(tmp_path, "-c", code, "x") == {**nothing, "code": code, "arguments": ["x"]}


def test_pytest_and_what_wraps_it_are_no_programs(tmp_path: Path) -> None:
    for name in ("pytest", "_jb_pytest_runner.py"):
        (tmp_path / name).write_text(TELL % "")
        assert _own_program(tmp_path, name) is None
    # A profiler keeps __main__ for itself, and each child would write its file.
    assert _own_program(tmp_path, "-m", "cProfile", "-o", "/dev/null", "pytest") is None
