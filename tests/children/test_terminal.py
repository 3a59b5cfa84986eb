"""Debuggers and -s, which have the real terminal."""

from __future__ import annotations

import os
import re
import shutil
import sys

import pytest
from runs import BOTH
from runs import assert_no_traceback_of_ours
from runs import run

INTERACTIVE = """
    def test_a(eventlet_hub):
        name = "value of " + eventlet_hub
        {statement}

    def test_b(): pass
"""


@pytest.mark.parametrize(
    ("statement", "arguments"),
    [
        ("assert 0", "--pdb"),
        ("assert 0", "--pdb -n0"),
        ("assert 0", "--trace"),
        ("breakpoint()", ""),
        ("breakpoint()", "--eventlet-jobs=2"),
    ],
)
def test_a_debugger_opens_on_each_hub_in_turn(
    pytester: pytest.Pytester, statement: str, arguments: str
) -> None:
    pytest.importorskip("pexpect")
    pytester.makepyfile(test_x=INTERACTIVE.format(statement=statement))
    only = "-k test_a" if "--trace" in arguments else ""
    child = pytester.spawn_pytest(f"{BOTH} -p no:cacheprovider {arguments} {only}", 60.0)
    stopped = []
    for _ in range(2):
        child.expect(r"> PDB \w+ \(IO-capturing turned off\) >")
        child.expect(r"\(Pdb\)")
        if "--trace" in arguments:
            child.sendline("n")
            child.expect(r"\(Pdb\)")
            child.sendline("n")
            child.expect(r"\(Pdb\)")
        child.sendline("p name")
        child.expect("'value of (epolls|asyncio)'")
        stopped.append(child.match[1].decode())
        child.expect(r"\(Pdb\)")
        child.sendline("c")
    rest = child.read().decode()
    child.wait()
    assert_no_traceback_of_ours(rest)
    assert "turned off" not in rest
    assert sorted(stopped) == ["asyncio", "epolls"]
    failed = "passed" if statement == "breakpoint()" else "2 failed"
    assert failed in rest
    assert child.exitstatus == (0 if statement == "breakpoint()" else 1)


def test_leaving_the_debugger_by_quit_ends_the_run(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pexpect")
    pytester.makepyfile(test_x=INTERACTIVE.format(statement="assert 0"))
    child = pytester.spawn_pytest(f"{BOTH} -p no:cacheprovider --pdb", 60.0)
    child.expect(r"\(Pdb\)")
    child.sendline("q")
    rest = child.read().decode()
    child.wait()
    assert "asyncio]" not in rest
    assert "Exit: Quitting debugger" in rest
    assert child.exitstatus == pytest.ExitCode.INTERRUPTED


def test_s_gives_the_tests_the_terminal_and_a_lonely_stdin(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import sys

        def test_a(eventlet_hub):
            print("printed under", eventlet_hub)
            print("and to stderr", file=sys.stderr)
        """
    )
    result = run(pytester, BOTH, "-s", "--eventlet-jobs=2")
    result.stdout.fnmatch_lines(
        ["*printed under epolls", "*eventlet hub asyncio*", "*printed under asyncio"]
    )
    assert result.stderr.str().count("and to stderr") == 2
    result = run(pytester, BOTH, "-rP")
    result.stdout.fnmatch_lines(["*Captured stdout call*", "printed under asyncio"])


def test_ctrl_c_after_a_debugger_is_no_failure_of_the_test(pytester: pytest.Pytester) -> None:
    pytest.importorskip("pexpect")
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def resource():
            yield
            open("torn-down", "w").close()

        def test_a(resource):
            breakpoint()
            open("ready", "w").close()
            while True:
                pass

        def test_b():
            open("went-on", "w").close()
        """
    )
    os.mkfifo(pytester.path / "ready")
    child = pytester.spawn_pytest(f"{BOTH} -p no:cacheprovider", 60.0)
    child.expect(r"\(Pdb\)")
    child.sendline("c")
    pytester.path.joinpath("ready").read_text()
    child.sendintr()
    rest = child.read().decode()
    child.wait()
    assert re.search(r"\.py:\d+: KeyboardInterrupt", rest)
    assert "BdbQuit" not in rest
    assert "failed" not in rest
    assert child.exitstatus == pytest.ExitCode.INTERRUPTED
    assert pytester.path.joinpath("torn-down").exists()
    assert not pytester.path.joinpath("went-on").exists()


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash not installed")
def test_ctrl_z_in_a_debugger_leads_to_the_shell_and_fg_back(pytester: pytest.Pytester) -> None:
    pexpect = pytest.importorskip("pexpect")
    pytester.makepyfile(INTERACTIVE.format(statement="breakpoint()"))
    environment = {**os.environ, "PS1": "<shell>"}
    shell = pexpect.spawn("bash", ["--norc", "-i"], env=environment, cwd=pytester.path, timeout=60)
    shell.expect("<shell>")
    shell.sendline(f"{sys.executable} -m pytest {BOTH} -p no:cacheprovider")
    for _ in range(2):
        shell.expect(r"\(Pdb\)")
        shell.send("\x1a")
        shell.expect("<shell>")
        shell.sendline("fg")
        shell.sendline("p name")
        shell.expect("'value of ")
        shell.sendline("c")
    shell.expect("4 passed")
    shell.expect("<shell>")
    shell.sendline("exit")
    shell.expect(pexpect.EOF)
