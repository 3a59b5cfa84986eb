"""``pytest-eventlet-debug report``, ``open`` and ``list`` on the files of real runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys

from hostile_run import Recorded
from hostile_run import report
import pytest

from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.report import opening


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with changed variables of the environment."""
    command = [sys.executable, "-m", "pytest_eventlet_debug", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}
    )


def in_run(recorded: Recorded, *arguments: str, **environment: str) -> str:
    """Run ``open`` on a recorded run; return what it printed."""
    ran = run("open", *arguments, "--artifacts", recorded.directory, **environment)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def programs(folder: Path, *names: str) -> str:
    """Return a PATH with these programs alone, each of which prints how it was called."""
    for name in names:
        (folder / name).write_text('#!/bin/sh\necho "$0" "$@"\n')
        (folder / name).chmod(0o755)
    return str(folder)


def test_open_shows_the_hub_that_failed_in_the_browser(recorded: Recorded) -> None:
    shown = in_run(recorded, "test_differs", BROWSER="echo %s")
    assert shown.strip() == f"{recorded.page}#/test/test_hostile.py%3A%3Atest_differs"


def test_open_takes_the_users_pager_for_text(recorded: Recorded) -> None:
    shown = in_run(recorded, "test_passes", "strace", PAGER="cat")
    assert shown == (recorded.of("passes-selects") / "strace.txt").read_text()
    assert "call: passed" in in_run(recorded, "differs[poll]", "timeline", PAGER="cat")


def test_a_timeline_needs_no_pager(recorded: Recorded, tmp_path: Path) -> None:
    assert "call: passed" in in_run(recorded, "differs[poll]", "timeline", PATH=str(tmp_path))
    # Which less is there for, if it is.
    assert "call: passed" in in_run(recorded, "differs[poll]", "timeline", PAGER=" ")


@pytest.mark.parametrize("what", ["timeline", "strace"])
def test_ctrl_c_is_for_the_pager(recorded: Recorded, tmp_path: Path, what: str) -> None:
    pager = tmp_path / "pager"
    # Longer than Python waits for what it has started before it kills that.
    pager.write_text('#!/bin/sh\nkill -INT $PPID; sleep 1; exec cat "$@"\n')
    pager.chmod(0o755)
    shown = in_run(recorded, "differs[poll]", what, PAGER=str(pager))
    assert "test_differs" in shown


@pytest.mark.fault("command-told-to-end")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("what", ["timeline", "strace"])
def test_the_pager_ends_with_the_command(
    recorded: Recorded, tmp_path: Path, what: str, number: signal.Signals
) -> None:
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\nexec >{tmp_path}/alive; echo; exec sleep 60\n")
    pager.chmod(0o755)
    os.mkfifo(tmp_path / "alive")
    arguments = ("open", "differs[poll]", what, "--artifacts", recorded.directory)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest_eventlet_debug", *arguments],
        env={**os.environ, "PAGER": str(pager)},
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    with open(tmp_path / "alive") as alive:
        alive.readline()
        process.send_signal(number)
        assert process.wait(60) == -number
        os.set_blocking(alive.fileno(), False)
        assert alive.read() == ""


@pytest.mark.parametrize("what", ["timeline", "strace"])
def test_a_pager_that_is_no_command_is_an_error_in_a_line(recorded: Recorded, what: str) -> None:
    ran = run("open", "differs[poll]", what, "--artifacts", recorded.directory, PAGER="less 'x")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith('PAGER is "less \'x", which is no command: No closing quotation\n')


def test_open_takes_the_best_program_that_is_there(recorded: Recorded, tmp_path: Path) -> None:
    test = recorded.of("differs-selects")
    path = programs(tmp_path, "kcachegrind", "snakeviz")
    shown = in_run(recorded, "differs", "profile", PATH=path, DISPLAY=":0")
    assert shown == f"{tmp_path}/kcachegrind {test}/profile.callgrind\n"
    shown = in_run(recorded, "differs", "profile", PATH=path, DISPLAY="", WAYLAND_DISPLAY="")
    assert shown == f"{tmp_path}/snakeviz {test}/profile.cprof\n"
    (tmp_path / "kcachegrind").unlink()
    shown = in_run(recorded, "differs", "profile", PATH=path, DISPLAY=":0")
    assert shown == f"{tmp_path}/snakeviz {test}/profile.cprof\n"


def test_packets_are_shown_in_the_terminal_where_nothing_shows_windows(
    recorded: Recorded, tmp_path: Path
) -> None:
    path = programs(tmp_path, "wireshark", "tshark", "cat")
    (tmp_path / "cat").write_text('#!/bin/sh\nwhile read -r line; do echo "$line"; done\n')
    there = {"PATH": path, "PAGER": "cat", "WAYLAND_DISPLAY": ""}
    assert "/wireshark -o" in in_run(recorded, "differs", "packets", DISPLAY=":0", **there)
    assert "/tshark -o" in in_run(recorded, "differs", "packets", DISPLAY="", **there)
    (tmp_path / "tshark").unlink()
    ran = run("open", "differs", "packets", "--artifacts", recorded.directory, DISPLAY="", **there)
    assert "no tshark on PATH" in ran.stderr
    assert "apt-get install tshark" in ran.stderr


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_packets_have_a_column_that_says_who_sent_them(recorded: Recorded) -> None:
    capture = recorded.of("differs-selects") / "capture.pcapng"
    command = ["tshark", "-o", opening.COLUMNS, "-r", str(capture)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "sent by sendto(fd" in shown


def test_open_says_what_to_install_where_no_program_is_there(
    recorded: Recorded, tmp_path: Path
) -> None:
    arguments = ("open", "differs", "packets", "--artifacts", recorded.directory)
    ran = run(*arguments, PATH=str(tmp_path), DISPLAY=":0")
    assert ran.returncode == 2
    assert "no wireshark or tshark on PATH" in ran.stderr
    assert "apt-get install wireshark" in ran.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("test_nothing",), "has 'test_nothing' in its id"),
        (("test_",), "'test_' matches 3 tests: "),
        (("differs", "tasks"), "has no tasks.txt; for a test that fails, --dump-"),
    ],
)
def test_open_says_what_does_not_fit(
    recorded: Recorded, arguments: tuple[str, ...], said: str
) -> None:
    ran = run("open", *arguments, "--artifacts", recorded.directory)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


def test_list_shows_the_runs_below_a_folder(recorded: Recorded, tmp_path: Path) -> None:
    shutil.copytree(recorded.directory, tmp_path / "job" / "artifacts")
    ran = run("list", tmp_path)
    assert ran.returncode == 0
    (line,) = ran.stdout.splitlines()
    assert "  poll, selects  5 passed, 2 skipped, 1 failed  " in line
    assert line.endswith(f"{tmp_path}/job/artifacts/index.html")
    assert run("list", tmp_path / "job" / "artifacts" / "report").returncode == 2


@pytest.mark.fault("hostile-run-json")
@pytest.mark.parametrize("started_ns", [-1, 1 << 63, 10**400], ids=["negative", "large", "huge"])
def test_a_run_at_a_time_that_no_clock_shows_is_not_listed(tmp_path: Path, started_ns: int) -> None:
    for name, time_ns in (("good", 1), ("bad", started_ns)):
        (tmp_path / name).mkdir()
        facts = {"format": FORMAT, "run": name, "started_ns": time_ns}
        (tmp_path / name / "run.json").write_text(json.dumps(facts))
    ran = run("list", tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[0].endswith("  no tests  " + str(tmp_path / "good"))
    assert len(ran.stdout.splitlines()) == 1


def test_several_runs_need_a_folder_for_their_report(recorded: Recorded, tmp_path: Path) -> None:
    ran = report(recorded.directory, recorded.directory)
    assert (ran.returncode, "requires -o DIR" in ran.stderr) == (2, True)
    ran = report(tmp_path)
    assert (ran.returncode, "holds no run.json" in ran.stderr) == (2, True)
    saved = tmp_path / "run.json"
    saved.touch()
    ran = report(tmp_path)
    assert (ran.returncode, f"{saved} is damaged" in ran.stderr) == (2, True)
    ran = report(saved)
    assert (ran.returncode, "a saved run requires -o DIR" in ran.stderr) == (2, True)
    ran = report(recorded.directory, "-o", saved)
    assert (ran.returncode, "choose another directory with -o" in ran.stderr) == (2, True)


def test_a_page_of_another_program_is_not_replaced(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<html>mine</html>")
    ran = report(recorded.directory, "-o", tmp_path)
    assert (ran.returncode, "another program's" in ran.stderr) == (2, True)
    assert (tmp_path / "index.html").read_text() == "<html>mine</html>"


def test_links_and_folders_of_others_are_not_written_to(recorded: Recorded, tmp_path: Path) -> None:
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "report").symlink_to(tmp_path)
    (tmp_path / "theirs" / "report").mkdir(parents=True)
    for folder, why in (("linked", "is a link"), ("theirs", "is not of a report")):
        before = sorted(tmp_path.rglob("*"))
        ran = report(recorded.directory, "-o", tmp_path / folder)
        assert (ran.returncode, why in ran.stderr) == (2, True)
        assert sorted(tmp_path.rglob("*")) == before


def test_the_libraries_are_the_files_that_were_vendored() -> None:
    script = Path(__file__).parents[2] / "scripts" / "vendor-report-libraries"
    checked = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert (checked.returncode, checked.stdout) == (0, "")
