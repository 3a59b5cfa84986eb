"""The artifacts' directory: names, what is written, and what may be deleted."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
from importlib import metadata
import json
import os
from pathlib import Path
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import threading
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
import pytest

from pytest_eventlet_debug.artifact_names import COMPLETION_LOCK
from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import RunRecord
from pytest_eventlet_debug.artifact_records import read_run
from pytest_eventlet_debug.artifact_records import read_test
from pytest_eventlet_debug.artifact_records import tests as described
from pytest_eventlet_debug.artifacts import ArtifactsError
from pytest_eventlet_debug.artifacts import await_completion
from pytest_eventlet_debug.artifacts import close_run
from pytest_eventlet_debug.artifacts import directory_name
from pytest_eventlet_debug.artifacts import lock_path
from pytest_eventlet_debug.artifacts import newest_attempt
from pytest_eventlet_debug.artifacts import note_end
from pytest_eventlet_debug.artifacts import open_run
from pytest_eventlet_debug.artifacts import open_test
from pytest_eventlet_debug.system import unpatched

NODEIDS = [
    "tests/wsgi_test.py::TestHttpd::test_001_server[asyncio]",
    "test_x.py::test_x[" + "x" * 5000 + "]",
    "test_x.py::test_größe[日本-poll]",
    "test_x.py::test_x[\udc80\ud800]",
    "test_x.py::test_x[../../../etc/passwd]",
    "test_x.py::test_x[a\0b\nc\td]",
    "test_x.py::test_x[" + "/" * 300 + "]",
    "..",
    "日本",
    "",
]


def record(run: str) -> RunRecord:
    return RunRecord(format=FORMAT, run=run)


@pytest.mark.fault("hostile-id")
@pytest.mark.parametrize("nodeid", NODEIDS, ids=range(len(NODEIDS)))
def test_any_test_has_a_directory_and_its_id_comes_back_whole(nodeid: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    open_run(run, record("1"))
    test = open_test(run, nodeid, "poll")
    test.save()
    assert test.directory.parent == run
    assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*-[0-9a-f]{8}", test.directory.name)
    assert len(test.directory.name) <= 80 + 9
    (facts,) = described(run)
    assert facts.nodeid == nodeid
    assert newest_attempt(run, nodeid) == test.directory


def test_of_a_long_name_the_middle_is_left_out() -> None:
    name = directory_name(f"tests/wsgi_test.py::TestHttpd::test_001_server[{'x' * 99}-asyncio]")
    start = r"wsgi_test\.py-TestHttpd-test_001_server-x+\.\.\.x+-asyncio"
    assert re.fullmatch(rf"{start}-[0-9a-f]{{8}}", name)
    assert len(name) == 80 - 1 + 9  # one bracket has gone


def test_a_name_can_be_read() -> None:
    name = directory_name("tests/wsgi_test.py::TestHttpd::test_001_server[asyncio]")
    assert re.fullmatch(r"wsgi_test.py-TestHttpd-test_001_server-asyncio-[0-9a-f]{8}", name)


@given(st.lists(st.tuples(st.text(st.characters()), st.integers(1, 3)), unique=True, min_size=2))
def test_names_differ_where_tests_or_attempts_do(tests: list[tuple[str, int]]) -> None:
    # On file systems that ignore case, too.
    assert len({directory_name(*test).lower() for test in tests}) == len(tests)


def test_a_test_keeps_its_name_from_run_to_run() -> None:
    assert directory_name("test_x.py::test_x") == "test_x.py-test_x-5ca7df61"


def test_each_attempt_has_a_directory_of_its_own(tmp_path: Path) -> None:
    open_run(tmp_path, record("1"))
    attempts = [open_test(tmp_path, "test_x.py::test_x", None) for _ in range(3)]
    assert [test.attempt for test in attempts] == [1, 2, 3]
    assert len({test.directory for test in attempts}) == 3
    assert newest_attempt(tmp_path, "test_x.py::test_x") == attempts[2].directory


def test_the_next_run_replaces_what_the_last_one_made_and_nothing_else(tmp_path: Path) -> None:
    open_run(tmp_path, record("1"))
    test = open_test(tmp_path, "test_x.py::test_x", None)
    test.save()
    (test.directory / "block-1").mkdir()
    (test.directory / "block-1" / "strace.txt").write_text("trace")
    notes = tmp_path / "notes.txt"
    notes.write_text("theirs")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "test.json").write_text('{"nodeid": "x"}')
    copy = tmp_path / "a-copy-to-keep"
    copy.mkdir()
    (copy / "test.json").write_bytes((test.directory / "test.json").read_bytes())
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    test.directory.rename(elsewhere)
    test.directory.symlink_to(elsewhere)

    open_run(tmp_path, record("2"))
    assert notes.exists()
    assert theirs.exists()
    assert copy.exists()
    assert (elsewhere / "block-1" / "strace.txt").exists()
    assert test.directory.is_symlink()

    test.directory.unlink()
    elsewhere.rename(test.directory)
    open_run(tmp_path, record("3"))
    assert not test.directory.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(".gitignore", ".lock", "a-copy-to-keep", "notes.txt", "run.json", "theirs")
    ]
    opened = read_run(tmp_path)
    assert opened is not None
    assert opened.run == "3"


def test_an_empty_directory_of_a_run_that_was_killed_is_no_attempt_of_the_next_one(
    tmp_path: Path,
) -> None:
    open_run(tmp_path, record("1"))
    open_test(tmp_path, "test_x.py::test_x", None)  # killed before it could be announced
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    full = open_test(tmp_path, "test_x.py::test_y", None).directory / "notes.txt"
    full.write_text("theirs, too")
    open_run(tmp_path, record("2"))
    assert open_test(tmp_path, "test_x.py::test_x", None).attempt == 1
    assert theirs.exists()
    assert full.exists()


@pytest.mark.fault("directory-of-others")
@pytest.mark.parametrize(
    "content", ["{}", '{"format": "another"}', "[1]", "\xff", '{"format": "\xff"}', None]
)
def test_a_directory_with_files_of_others_is_refused_and_left_alone(
    tmp_path: Path, content: str | None
) -> None:
    (tmp_path / "precious").write_text("theirs")
    if content is not None:
        (tmp_path / "run.json").write_text(content, encoding="latin-1")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ArtifactsError) as caught:
        open_run(tmp_path, record("1"))
    assert str(caught.value) == (
        f"{tmp_path} holds files but no run.json of pytest-eventlet-debug; "
        "empty it or choose another directory with --eventlet-artifacts"
    )
    assert sorted(tmp_path.iterdir()) == before


def test_of_two_processes_that_open_the_same_run_one_clears(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from pytest_eventlet_debug.artifacts import *\n"
        "from pytest_eventlet_debug.artifact_records import *\n"
        "directory, run, number = Path(sys.argv[1]), *sys.argv[2:]\n"
        "open_run(directory, RunRecord(format=FORMAT, run=run))\n"
        "open_test(directory, 'test_x.py::' + number, None).save()\n"
        "close_run(directory, run, ended_ns=1, exit_status=0)"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    subprocess.run([*command, "1", "old"], check=True)
    processes = [subprocess.Popen([*command, "2", str(number)]) for number in range(4)]
    assert [process.wait() for process in processes] == [0] * 4
    made = [f"test_x.py::{number}" for number in range(4)]
    assert sorted(test.nodeid for test in described(tmp_path)) == made
    opened = read_run(tmp_path)
    assert opened is not None
    assert isinstance(opened.tests, list)
    assert sorted(test.nodeid for test in opened.tests) == made


def test_a_run_that_another_one_has_replaced_does_not_close_that(tmp_path: Path) -> None:
    open_run(tmp_path, record("1"))
    open_run(tmp_path, record("2"))
    close_run(tmp_path, "1", ended_ns=1, exit_status=1)
    assert "exit_status" not in json.loads((tmp_path / "run.json").read_text())


def test_how_a_test_ended_is_noted_for_the_process_that_could_not(tmp_path: Path) -> None:
    open_run(tmp_path, record("1"))
    for _ in range(2):
        test = open_test(tmp_path, "test_x.py::test_x", "poll")
        test.save()
    (test.directory / "strace.txt").touch()
    (test.directory / "block-1").mkdir()
    (test.directory / "block-1" / "capture.pcapng").touch()
    assert note_end(tmp_path, "test_x.py::test_x", "crashed") == test.directory
    first, last = sorted(described(tmp_path), key=lambda test: test.attempt)
    assert first.outcomes == {}
    assert last.outcomes == {"call": "crashed"}
    assert last.artifacts == ["block-1/capture.pcapng", "strace.txt"]
    assert last.nodeid == "test_x.py::test_x"


@pytest.mark.fault("no-descriptors")
def test_no_directory_is_left_of_a_test_that_no_file_can_be_opened_for(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            open_test(tmp_path, "test_x.py::test_x", "poll").announce()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_of_a_test_that_nobody_completed_the_disk_tells_what_there_is(tmp_path: Path) -> None:
    test = open_test(tmp_path, "test_x.py::test_x", "poll")
    test.announce()
    (test.directory / "strace.txt").touch()
    (tmp_path / "index.html").touch()
    (listed,) = described(tmp_path)
    assert (listed.directory, listed.artifacts) == (test.directory.name, ["strace.txt"])


def test_a_test_file_names_the_process_that_ran_the_test(tmp_path: Path) -> None:
    open_run(tmp_path, record("1"))
    test = open_test(tmp_path, "test_x.py::test_x", "poll")
    test.phases["call"] = (1, 2)
    test.save()
    found = read_test(test.directory)
    assert found is not None
    assert (found.pid, found.hub, found.phases) == (os.getpid(), "poll", {"call": (1, 2)})


@pytest.mark.parametrize(
    "wrong", [{"phases": None}, {"phases": {"call": [1]}}, {"attempt": "1"}, {"outcomes": 3}]
)
def test_a_test_file_with_a_field_of_another_type_is_not_ours(
    tmp_path: Path, wrong: dict[str, object]
) -> None:
    facts = {"format": "pytest-eventlet-debug", "nodeid": "a::b", **wrong}
    (tmp_path / "test.json").write_text(json.dumps(facts))
    assert read_test(tmp_path) is None


def test_a_patched_json_module_does_no_harm(tmp_path: Path) -> None:
    open_run(tmp_path, record("1"))
    test = open_test(tmp_path, "test_x.py::test_x[\udc80]", "poll")
    with mock.patch.multiple(json, dumps=None, loads=None, dump=None, load=None):
        test.save()
        assert note_end(tmp_path, test.nodeid, "hung") == test.directory


def test_how_a_test_ended_is_noted_although_its_helper_has_yet_to_announce_it(
    tmp_path: Path,
) -> None:
    open_run(tmp_path, record("1"))
    test = open_test(tmp_path, "test_x.py::test_x", "poll")
    helper = threading.Timer(0.1, test.announce)
    helper.start()
    assert note_end(tmp_path, test.nodeid, "crashed") == test.directory
    helper.join()
    (found,) = described(tmp_path)
    assert found.outcomes == {"call": "crashed"}


def test_nothing_is_noted_for_a_test_that_has_no_directory(tmp_path: Path) -> None:
    assert note_end(tmp_path, "test_x.py::test_x", "crashed") is None
    assert note_end(tmp_path / "none", "test_x.py::test_x", "hung") is None


@pytest.mark.fault("directory-unwritable")
@pytest.mark.parametrize("place", ["file", "file/below", "/proc/eventlet-debug", "x" * 300])
def test_a_place_that_cannot_be_written_is_a_usage_error_of_one_line(
    pytester: pytest.Pytester, place: str
) -> None:
    Path("file").touch()
    pytester.makepyfile("raise SystemExit('collected')")
    result = pytester.runpytest("--cprofile", f"--eventlet-artifacts={place}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    path = pytester.path / place
    assert line.startswith(f"ERROR: cannot write artifacts to {path} (")
    assert line.endswith("; choose another directory with --eventlet-artifacts")


@pytest.mark.fault("directory-dangling")
def test_a_link_to_nothing_is_a_usage_error_that_says_where_it_leads(
    pytester: pytest.Pytester,
) -> None:
    Path("link").symlink_to("nowhere")
    pytester.makepyfile("raise SystemExit('collected')")
    result = pytester.runpytest("--cprofile", "--eventlet-artifacts=link")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    assert line.startswith(
        f"ERROR: {pytester.path}/link is a link to nowhere, which does not exist; "
    )


@pytest.mark.fault("directory-of-others")
def test_a_directory_of_others_is_a_usage_error_before_anything_is_collected(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("raise SystemExit('collected')")
    result = pytester.runpytest("--cprofile", "--eventlet-artifacts=.")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.stderr.lines if line]
    assert line.startswith(f"ERROR: {pytester.path} holds files but no run.json of")


@pytest.mark.fault("no-file-size")
def test_a_full_disk_is_a_usage_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("raise SystemExit('collected')")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-s", "--cprofile"],
            capture_output=True,
            text=True,
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.returncode == pytest.ExitCode.USAGE_ERROR
    assert "(File too large); choose another directory with --eventlet-artifacts" in result.stderr


def test_run_json_says_what_was_run_and_how_it_ended(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pytester.makepyfile("def test_fails(): assert False\ndef test_passes(): pass")
    # Another eventlet in front of the one that is installed.
    installed = str(metadata.distribution("eventlet").locate_file("eventlet"))
    front = shutil.copytree(installed, pytester.path / "front" / "eventlet")
    (front / "_version.py").write_text("__version__ = '7.7.7'\n")
    monkeypatch.setenv("PYTHONPATH", str(front.parent))
    result = pytester.runpytest("--cprofile", "--eventlet-hub=poll,selects")
    result.stdout.fnmatch_lines(["eventlet 7.7.7, hubs: poll, selects*"])
    facts = json.loads(Path("eventlet-debug/run.json").read_text())
    assert facts["format"] == "pytest-eventlet-debug"
    assert facts["command"][1:3] == ["--cprofile", "--eventlet-hub=poll,selects"]
    assert facts["hubs"] == ["poll", "selects"]
    assert facts["exit_status"] == 1
    assert facts["rootdir"] == str(pytester.path)
    assert facts["started_ns"] < facts["ended_ns"]
    assert {"pytest", "eventlet", "greenlet"} < set(facts["versions"])
    assert facts["versions"]["eventlet"] == "7.7.7"
    assert sorted((test["nodeid"], test["outcomes"]["call"]) for test in facts["tests"]) == [
        (f"{path.name}::test_{name}[{hub}]", outcome)
        for name, outcome in (("fails", "failed"), ("passes", "passed"))
        for hub in ("poll", "selects")
    ]
    for test in facts["tests"]:
        directory = Path("eventlet-debug", test["directory"])
        assert json.loads((directory / "test.json").read_text())["nodeid"] == test["nodeid"]


WAITING = """
    import os

    def test_is_recorded():
        pass

    def test_waits():
        os.mkfifo("go")
        os.mkdir("ready")
        open("go").close()
"""


@contextlib.contextmanager
def waiting_run(pytester: pytest.Pytester) -> Iterator[subprocess.Popen[bytes]]:
    """Have a run that has recorded a test wait until somebody opens the fifo ``go``."""
    pytester.makepyfile(test_waiting=WAITING)
    command = [sys.executable, "-m", "pytest", "--cprofile", "test_waiting.py"]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while not Path("ready").exists():
            assert run.poll() is None
            select.select([], [], [], 0.01)
        yield run
    finally:
        run.kill()
        run.wait()


@pytest.mark.fault("run-beside")
def test_a_run_beside_another_one_has_a_directory_of_its_own(pytester: pytest.Pytester) -> None:
    with waiting_run(pytester) as first:
        pytester.makepyfile(test_second="def test_x(): pass")
        second = pytester.runpytest("--cprofile", "--eventlet-hub=poll,selects", "test_second.py")
        second.assert_outcomes(passed=2)
        why = "eventlet-debug belongs to a run that is still in progress"
        where = f"{pytester.path}/eventlet-debug-2 ({why})"
        assert f"artifacts: {where}" in second.stdout.str()
        second.stdout.fnmatch_lines([f"artifacts of 2 tests: {where.replace('[', '[[]')}"])
        with open("go", "w"):
            assert first.wait() == 0
    assert [test.nodeid for test in described(Path("eventlet-debug"))] == [
        *("test_waiting.py::test_is_recorded", "test_waiting.py::test_waits")
    ]
    assert len(described(Path("eventlet-debug-2"))) == 2
    closed = read_run(Path("eventlet-debug-2"))
    assert closed is not None
    assert closed.exit_status == 0


@pytest.mark.fault("holder-killed")
def test_a_run_that_was_killed_holds_no_directory(pytester: pytest.Pytester) -> None:
    with waiting_run(pytester) as first:
        first.kill()
        first.wait()
        pytester.makepyfile(test_second="def test_x(): pass")
        pytester.runpytest("--cprofile", "test_second.py").assert_outcomes(passed=1)
    assert not Path("eventlet-debug-2").exists()
    assert [test.nodeid for test in described(Path("eventlet-debug"))] == ["test_second.py::test_x"]


@pytest.mark.fault("fork-outlives-run")
def test_a_fork_that_outlives_the_run_does_not_hold_its_directory(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import os, time

        def test_forks():
            os.mkfifo("end")
            if os.fork() == 0:
                open("end").close()
                os._exit(0)
    """)
    pytester.runpytest("--cprofile", "-s").assert_outcomes(passed=1)
    with open("end", "w"):  # it lives until here
        pytester.makepyfile(test_second="def test_x(): pass")
        pytester.runpytest("--cprofile", "test_second.py").assert_outcomes(passed=1)
    assert not Path("eventlet-debug-2").exists()


@pytest.mark.fault("ctrl-c-finishing")
def test_ctrl_c_ends_the_waiting_for_what_dead_processes_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_run(tmp_path, record("1"))
    program = (
        "import fcntl, os, sys, time\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.lockf(fd, fcntl.LOCK_SH, *map(int, sys.argv[2:4]))\n"
        "print(flush=True); time.sleep(60)"
    )

    def press_ctrl_c(*waiting: object) -> None:
        signal.raise_signal(signal.SIGINT)

    command = [sys.executable, "-c", program, str(lock_path(tmp_path)), *map(str, COMPLETION_LOCK)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as helper:
        assert helper.stdout is not None
        helper.stdout.readline()
        with monkeypatch.context() as patching:
            patching.setattr(unpatched, "wait_readable", press_ctrl_c)
            await_completion(tmp_path, "1")
        assert helper.poll() is None
        helper.kill()
        helper.wait()
        await_completion(tmp_path, "1")
