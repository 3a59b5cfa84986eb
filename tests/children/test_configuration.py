"""Where options and directories of a run over several hubs come from."""

from __future__ import annotations

import os
import re
import sys

import pytest
from runs import BOTH
from runs import make_differing
from runs import on_both
from runs import ran
from runs import run


def test_options_may_come_from_the_environment_and_the_ini_file(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_differing(pytester)
    usual = os.environ["PYTEST_ADDOPTS"]
    monkeypatch.setenv("PYTEST_ADDOPTS", f"{usual} {BOTH} -k test_b")
    run(pytester).assert_outcomes(passed=1, failed=1, deselected=4)
    monkeypatch.setenv("PYTEST_ADDOPTS", usual)
    pytester.makeini(f"[pytest]\naddopts = {BOTH} --maxfail=1")
    run(pytester).assert_outcomes(passed=4, failed=1)
    other = pytester.makefile(".ini", other="[pytest]\neventlet_hub = poll,selects\n")
    result = run(pytester, "-c", other, "-v", "test_x.py::test_a")
    assert ran(result) == ["test_a[poll]", "test_a[selects]"]
    result = run(pytester, "-o", "addopts=", "-o", "eventlet_hub=selects, poll", "-v", "-k", "_a")
    assert ran(result) == ["test_a[selects]", "test_a[poll]"]


def test_it_runs_from_a_subdirectory_and_with_a_root_elsewhere(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]")
    pytester.mkpydir("sub")
    pytester.path.joinpath("sub", "test_x.py").write_text(
        "import os\n"
        "def test_a(tmp_path):\n"
        "    assert os.path.basename(os.getcwd()) == 'sub'\n"
        "    assert tmp_path.exists()\n"
    )
    monkeypatch.chdir(pytester.path / "sub")
    result = run(pytester, BOTH, "-v", "--import-mode=importlib")
    assert result.parseoutcomes() == {"passed": 2}
    result.stdout.fnmatch_lines(["test_x.py::test_a[[]epolls] PASSED*"])
    result = run(pytester, BOTH, "-v", "--rootdir=.", "test_x.py::test_a[asyncio]")
    assert ran(result) == ["test_a[asyncio]"]
    result = run(pytester, BOTH, "-v", "../sub/test_x.py::test_a")
    assert ran(result) == on_both("test_a")


def test_basetemp_is_kept_with_a_directory_for_each_hub(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x="def test_a(tmp_path): (tmp_path / 'left').touch()")
    base = pytester.path / "base"
    # pytester adds a --basetemp of its own, at the end.
    result = pytester.run(sys.executable, "-m", "pytest", BOTH, f"--basetemp={base}", "-n2")
    result.assert_outcomes(passed=2)
    result = pytester.run(sys.executable, "-m", "pytest", BOTH, f"--basetemp={base}")
    result.assert_outcomes(passed=2)
    found = sorted(path.relative_to(base).parts[0] for path in base.rglob("left"))
    assert found == ["asyncio", "epolls"]


def test_hubs_at_once_never_mix_their_lines(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_x="""
        import pytest

        @pytest.mark.parametrize("n", range(30))
        def test_p(n): pass
        """
    )
    result = run(pytester, BOTH, "-v", "--eventlet-jobs=2")
    lines = [line for line in result.outlines if "test_p[" in line]
    assert len(lines) == 60
    for line in lines:
        assert re.fullmatch(r"test_x\.py::test_p\[\d+-\w+\] PASSED +\[ *\d+%\]", line)
    result = run(pytester, BOTH, "--eventlet-jobs=auto")
    headings = [line for line in result.outlines if "eventlet hub" in line]
    assert len(headings) == 2
    assert all(re.fullmatch(r"-+ eventlet hub \w+: 30 tests -+", line) for line in headings)


def test_what_a_conftest_prints_is_shown_and_told_apart(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        import atexit, os, sys

        def pytest_sessionfinish(session):
            print("finishing under", os.environ.get("EVENTLET_HUB"))
            print("to stderr", os.environ.get("EVENTLET_HUB"), file=sys.stderr)

        atexit.register(lambda: os.write(1, b"at exit %r\\n" % os.environ.get("EVENTLET_HUB")))
        """
    )
    pytester.makepyfile(test_x="def test_a(): pass")
    result = run(pytester, BOTH)
    result.assert_outcomes(passed=2)
    for hub in ("epolls", "asyncio"):
        result.stdout.fnmatch_lines([f"{hub} printed outside of its tests:", "*"])
        assert f"finishing under {hub}" in result.stdout.str()
        assert f"to stderr {hub}" in result.stdout.str()
    pytester.makeconftest(
        """
        import sys
        def pytest_sessionfinish(session): print("a warning", file=sys.stderr)
        """
    )
    result = run(pytester, "--eventlet-hub=epolls,poll,asyncio")
    assert result.stdout.str().count("a warning") == 1
    result.stdout.fnmatch_lines(
        [f"{hub} printed the same outside of its tests as epolls" for hub in ("poll", "asyncio")]
    )


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--setup-show", "*SETUP*F tmp_path*"),
        ("--setup-plan", "*SETUP*F tmp_path*"),
        ("--fixtures", "eventlet_hub*session scope*"),
        ("--fixtures-per-test", "tmp_path*"),
        ("--markers", "@pytest.mark.eventlet_hub(name, ...):*"),
        ("--help", "*--eventlet-hub=NAMES*"),
        ("--version", "pytest [0-9]*"),
        ("--cache-show", "cachedir:*"),
        ("--trace-config", "*eventlet-debug*"),
    ],
)
def test_options_that_show_something_still_show_it(
    pytester: pytest.Pytester, option: str, says: str
) -> None:
    pytester.makepyfile(test_x="def test_a(tmp_path): pass")
    result = run(pytester, BOTH, option)
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines([says])
