"""What ``--eventlet-save`` may replace, and what it and ``--eventlet-compare`` leave alone."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import stat

import pytest

from pytest_eventlet_debug.upgrade.saved_run import read

TEXT = "def test_x(): pass"


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/full")


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def something_else(path: Path) -> None:
    path.write_text("precious")


def other_json(path: Path) -> None:
    path.write_text('{"format": "precious"}')


@pytest.mark.fault("save-special", "save-no-run")
@pytest.mark.parametrize("make", [a_fifo, a_device, endless, something_else, other_json])
def test_what_is_no_saved_run_is_refused_and_left_alone(
    pytester: pytest.Pytester, make: Callable[[Path], None]
) -> None:
    pytester.makepyfile("raise SystemError('collected')")
    make(Path("run.json"))
    before = os.lstat("run.json")
    result = pytester.runpytest("--eventlet-save=run.json", timeout=60)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line]
    assert line.startswith(f"ERROR: cannot save the run to {pytester.path / 'run.json'} (it ")
    after = os.lstat("run.json")
    assert (after.st_ino, after.st_size, after.st_mtime_ns) == (
        *(before.st_ino, before.st_size, before.st_mtime_ns),
    )


@pytest.mark.fault("save-unwritable")
@pytest.mark.parametrize("path", ["/proc/run.json", "x" * os.pathconf("/", "PC_NAME_MAX")])
def test_a_place_where_nothing_can_be_saved_is_refused_before_a_test_runs(
    pytester: pytest.Pytester, path: str
) -> None:
    pytester.makepyfile("raise SystemError('collected')")
    result = pytester.runpytest(f"--eventlet-save={path}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line]
    assert line.startswith(f"ERROR: cannot save the run to {pytester.path / path} (")
    assert line.endswith("); name another file with --eventlet-save")


@pytest.mark.fault("save-appears")
def test_what_appears_there_while_the_tests_run_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_x(): open('run.json', 'w').write('precious')")
    result = pytester.runpytest("--eventlet-save=run.json")
    result.assert_outcomes(passed=1)
    path = pytester.path / "run.json"
    why = "it exists and is not a saved run"
    assert f"the run could not be saved to {path} ({why})" in result.outlines
    assert path.read_text() == "precious"


@pytest.mark.fault("save-link")
@pytest.mark.parametrize("there", [True, False])
def test_a_run_is_saved_through_a_link(pytester: pytest.Pytester, there: bool) -> None:
    pytester.makepyfile(TEXT)
    (pytester.path / "folder").mkdir()
    target = pytester.path / "folder" / "real.json"
    if there:
        target.touch(0o640)
    (pytester.path / "run.json").symlink_to(target)
    result = pytester.runpytest("--eventlet-save=run.json")
    assert f"saved to {pytester.path / 'run.json'}" in result.outlines
    assert (pytester.path / "run.json").is_symlink()
    assert len(read(target).tests) == 1
    if there:
        assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_saved_run_is_replaced_by_the_next_one(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TEXT)
    pytester.runpytest("--eventlet-save=run.json")
    pytester.makepyfile(TEXT + "\ndef test_y(): pass")
    pytester.runpytest("--eventlet-save=run.json")
    assert len(read(pytester.path / "run.json").tests) == 2


@pytest.mark.fault("compare-special")
@pytest.mark.parametrize("make", [a_fifo, endless])
def test_what_is_no_regular_file_is_not_compared_with(
    pytester: pytest.Pytester, make: Callable[[Path], None]
) -> None:
    pytester.makepyfile(TEXT)
    make(Path("old.json"))
    result = pytester.runpytest("--eventlet-compare=old.json", timeout=60)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    path = pytester.path / "old.json"
    assert f"ERROR: {path} cannot be read (it is not a regular file)" in result.errlines


def nested(path: Path) -> None:
    path.write_text("[" * 200_000)


@pytest.mark.fault("hostile-run-json", "hostile-test-json", "hostile-recording")
@pytest.mark.parametrize("make", [a_fifo, endless, nested])
@pytest.mark.parametrize(
    "names", [["run.json"], ["x/test.json", "x/strace.txt", "x/profile.cprof"]]
)
def test_hostile_files_among_the_artifacts_hold_no_run_up(
    pytester: pytest.Pytester, make: Callable[[Path], None], names: list[str]
) -> None:
    """The files are laid there by tests, and read at the end and by the next run."""
    pytester.makepyfile(f"""
        import os
        import pytest

        @pytest.mark.parametrize(("number", "name"), list(enumerate({names})))
        def test_x(eventlet_artifacts, number, name):
            run = eventlet_artifacts.parent
            names = {{"run.json": run, "x": eventlet_artifacts}}
            first, _, last = name.rpartition("/")
            path = names[first or last] / last
            path.unlink(missing_ok=True)
            os.rename(f"hostile-{{number}}", path)
    """)
    for number, _ in enumerate(names):
        make(Path(f"hostile-{number}"))
    result = pytester.runpytest("--eventlet-hub=poll", "--dump-asyncio-tasks", timeout=60)
    result.assert_outcomes(passed=len(names))
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    for number, _ in enumerate(names):
        make(Path(f"hostile-{number}"))
    again = pytester.runpytest("--cprofile", timeout=60)
    if names == ["run.json"]:
        assert "holds files but no run.json of" in again.stderr.str()
    else:
        again.assert_outcomes(passed=len(names))
