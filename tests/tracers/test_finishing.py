"""A finisher that does nothing, and Ctrl-C while it is waited for."""

from __future__ import annotations

import _socket
from collections.abc import Callable
import os
from pathlib import Path
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from typing import Any

from needs import needs_root
from programs import wait_until_gone
import pytest

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.artifact_records import TestRecord
from pytest_eventlet_debug.artifact_records import read_test
from pytest_eventlet_debug.artifacts import open_test
from pytest_eventlet_debug.helper import finisher_process
from pytest_eventlet_debug.helper import finishing as finishing_module
from pytest_eventlet_debug.helper import messages
from pytest_eventlet_debug.helper import process
from pytest_eventlet_debug.helper import profiles as profiles_module
from pytest_eventlet_debug.helper.capture import Capture
from pytest_eventlet_debug.helper.finishing import Finishing
from pytest_eventlet_debug.helper.loop import Loop
from pytest_eventlet_debug.helper.profiles import Profiles
from pytest_eventlet_debug.helper.unwritten import Unwritten
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.recordings.profile_file import ProfileCounts
from pytest_eventlet_debug.recordings.profile_file import ProfileFacts
from pytest_eventlet_debug.tracers.completion import Completion
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.helper_client import HelperGoneError
from pytest_eventlet_debug.tracers.helper_client import _library_directories

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the helper needs Linux")


ROOT = Path(__file__).parent.parent.parent

COUNTS = ProfileCounts(
    facts=ProfileFacts(
        engine="native", clock="run", seconds=1.0, self_seconds=0.0, switching_seconds=0.0
    ),
    parts=[Part([(("x.py", 1, "test_x"), 1, 0, 1.0, 1.0, [])])],
    has_greenlets=False,
)

COMPLETE = ["profile.callgrind", "profile.cprof", "profile.json", "report.js", "test.json"]


def add_profiled(finishing: Finishing, profiles: Profiles, directory: Path) -> None:
    """Order that the directory of a test with a profile is completed."""
    record = json_files.encode(TestRecord(format=FORMAT, nodeid="test_x.py::test_x"))
    directory.mkdir()
    profiles.add(Answers(), directory=str(directory), data=COUNTS.encode())
    finishing.order(Answers(), directory=str(directory), shared=False, ports=None, data=record)


def wait(finishing: Finishing, loop: Loop, answers: Answers) -> None:
    """Wait until all orders are carried out."""
    while not answers or answers[-1]["left"]:
        told = len(answers)
        finishing.wait(answers)
        while len(answers) == told:
            loop.step()


def files_of(directory: Path) -> list[str]:
    """Return what is in a directory, all of which its ``test.json`` names."""
    found = sorted(os.listdir(directory))
    record = read_test(directory)
    assert record is not None
    assert [*record.artifacts, "test.json"] == found
    return found


class Answers(list[dict[str, Any]]):
    """Takes the values of answers."""

    def __call__(self, error: str | None = None, **values: object) -> None:
        assert error is None
        self.append(values)


@pytest.mark.fault("finisher-hangs")
@pytest.mark.parametrize("cpus", [{0}, {0, 1}])
def test_one_that_does_nothing_is_ended_and_where_all_do_nothing_the_rest_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpus: set[int]
) -> None:
    monkeypatch.setattr(finishing_module, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: cpus)

    def stop(*arguments: object, **options: object) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(1)

    # In the new process, before it can have completed anything.
    monkeypatch.setattr(finisher_process, "_become_finisher", stop)
    loop, answers = Loop(), Answers()
    finishing = Finishing(loop, _library_directories(), Capture(loop), Profiles())
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        finishing.order(answers, directory=str(tmp_path / name), shared=False, ports=None, data=b"")
    answers.clear()
    stopped: set[int] = set()
    while not answers or answers[-1]["left"]:
        told = len(answers)
        finishing.wait(answers)
        while len(answers) == told:
            stopped |= {each.pid for each in finishing._finishers}
            loop.step()
    lost = 0
    for line in [line for answer in answers for line in answer["problems"]]:
        said = re.fullmatch(
            "the process that completes recordings did nothing for 0.5 s and was ended; what was "
            rf"recorded in {tmp_path}/\w+(?: and (\d+) more)? has no findings",
            line,
        )
        assert said is not None
        lost += 1 + int(said[1] or 0)
    assert lost == 3
    assert len(stopped) == len(cpus)
    for pid in stopped:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.fault("finisher-killed")
def test_one_that_dies_twice_over_a_directory_gives_up_that_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, answers, profiles = Loop(), Answers(), Profiles()
    finishing = Finishing(loop, _library_directories(), Capture(loop), profiles)

    def wait_for_death(*arguments: object, **options: object) -> None:
        time.sleep(20)
        os._exit(1)

    with monkeypatch.context() as patching:
        # Neither completes anything before it is killed.
        patching.setattr(finisher_process, "_become_finisher", wait_for_death)
        for name in ("one", "two"):
            add_profiled(finishing, profiles, tmp_path / name)
        (first,) = finishing._finishers
        os.kill(first.pid, signal.SIGKILL)
        while first in finishing._finishers:
            loop.step()
        (second,) = finishing._finishers
    os.kill(second.pid, signal.SIGKILL)
    wait(finishing, loop, answers)
    problems = [line for answer in answers for line in answer["problems"]]
    assert problems == [
        "the process that completes recordings ended (SIGKILL); what was recorded in "
        f"{tmp_path}/one has no findings"
    ]
    assert (tmp_path / "one" / "profile.counts").read_bytes() == COUNTS.encode()
    assert files_of(tmp_path / "two") == COMPLETE
    finishing.close()


@pytest.mark.fault("finisher-killed")
def test_others_help_where_somebody_waits_and_what_one_was_at_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finishing_module, "_SPREAD_SECONDS", 0.0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    loop, answers, profiles = Loop(), Answers(), Profiles()
    finishing = Finishing(loop, _library_directories(), Capture(loop), profiles)
    names = [f"test-{number}" for number in range(6)]
    for name in names:
        add_profiled(finishing, profiles, tmp_path / name)
    finishing.wait(answers)
    while len(finishing._finishers) < 2:
        loop.step()
    first, second = finishing._finishers
    assert second.orders
    os.kill(second.pid, signal.SIGKILL)
    wait(finishing, loop, answers)
    assert [answer["problems"] for answer in answers] == [[]]
    assert [files_of(tmp_path / name) for name in names] == [COMPLETE] * 6
    finishing.close()
    for finisher in (first, second):
        with pytest.raises(ProcessLookupError):
            os.kill(finisher.pid, 0)


@pytest.mark.fault("finisher-killed")
@pytest.mark.fault("finisher-hangs")
@pytest.mark.parametrize("hangs", [False, True])
def test_far_behind_a_finisher_has_the_next_order_ahead_which_is_not_lost_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hangs: bool
) -> None:
    monkeypatch.setattr(finishing_module, "PATIENCE_SECONDS", 0.5)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    loop, answers, profiles = Loop(), Answers(), Profiles()
    finishing = Finishing(loop, _library_directories(), Capture(loop), profiles)
    names = [f"test-{number}" for number in range(20)]

    def wait_for_death(*arguments: object, **options: object) -> None:
        signal.pause()
        os._exit(1)

    with monkeypatch.context() as patching:
        patching.setattr(finisher_process, "_become_finisher", wait_for_death)
        for name in names:
            add_profiled(finishing, profiles, tmp_path / name)
    (first,) = finishing._finishers
    assert [Path(order.directory).name for order in first.orders] == names[:2]
    if hangs:
        finishing.wait(answers)
        while len(finishing._finishers) < 2:  # one helps, and goes on with what is left
            loop.step()
    else:
        os.kill(first.pid, signal.SIGKILL)
    wait(finishing, loop, answers)
    problems = [line for answer in answers for line in answer["problems"]]
    assert problems == hangs * [
        "the process that completes recordings did nothing for 0.5 s and was ended; what was "
        f"recorded in {tmp_path}/test-0 has no findings"
    ]
    assert [files_of(tmp_path / name) for name in names[hangs:]] == [COMPLETE] * len(names[hangs:])
    finishing.close()


@needs_root
def test_a_last_order_for_which_there_is_no_finisher_delays_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wait_for_nothing(finishing: Finishing) -> None:
        raise AssertionError("it is waited for though all is done")

    monkeypatch.setattr(Finishing, "_be_impatient", wait_for_nothing)
    loop, answers, ends = Loop(), Answers(), list[None]()
    capture = Capture(loop)
    finishing = Finishing(loop, _library_directories(), capture, Profiles())
    capture.start(
        answers,
        number=1,
        directory=str(tmp_path),
        nodeid="test_x.py::test_x",
        since_ns=time.time_ns(),
        interface="lo",
        expression=None,
        limit=None,
    )
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.sendto(b"it takes milliseconds to come", sender.getsockname())
    capture.stop(answers, number=1, until_ns=time.time_ns())
    finishing.order(answers, directory=str(tmp_path), shared=False, ports=None, data=b"")
    answers.clear()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # those it has are kept
    try:
        finishing.wait(answers)
        finishing.when_done(lambda: ends.append(None))
        while not (answers and ends):
            loop.step()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    capture.close()
    finishing.close()
    (answer,) = answers
    assert answer["left"] == 0
    assert answer["problems"][0] == f"{tmp_path} is not completed: [Errno 24] Too many open files"
    assert ends == [None]


@pytest.mark.parametrize("room", range(6))  # two files in memory and two pipes take one more
def test_a_finisher_that_cannot_be_started_leaves_no_descriptor_open(room: int) -> None:
    before = {*map(int, os.listdir("/proc/self/fd"))}
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [number for number in range(len(before) + room + 1) if not is_open(number)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[room], hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            finisher_process.FinisherProcess((), (), nice=True)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert {*map(int, os.listdir("/proc/self/fd"))} == before


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_what_was_counted_waits_in_memory_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles_module, "WAITING_BYTES", 10)
    profiles, answers = Profiles(), Answers()
    places = [str(tmp_path / name) for name in ("one", "two", "three")]
    for place in places:
        os.mkdir(place)
        profiles.keep(place)
        profiles.add(answers, directory=place, data=b"counts")
    assert profiles.take(places[0]) == [Unwritten(f"{places[0]}/profile.counts", b"counts")]
    for place in places[1:]:
        assert profiles.take(place) == []
        assert Path(place, "profile.counts").read_bytes() == b"counts"
    profiles.add(answers, directory=places[0], data=b"counts")
    assert profiles.abandon() == places[:1]  # nobody has said that it is kept
    profiles.forget(places[0])
    profiles.close()
    assert os.listdir(places[0]) == []


@pytest.mark.fault("crash-recorded")
def test_what_was_counted_of_a_test_whose_process_died_is_completed(tmp_path: Path) -> None:
    test = open_test(tmp_path, "test_x.py::test_x", None)
    test.announce()
    (tmp_path / "counts").write_bytes(COUNTS.encode())
    program = (
        "import os, sys; from pytest_eventlet_debug.tracers.helper_client import Helper\n"
        "helper = Helper.start(); print(helper.pid, flush=True)\n"
        "counts = open(sys.argv[1], 'rb').read()\n"
        "helper.post('profile', counts, directory=sys.argv[2]); os.abort()"
    )
    command = [sys.executable, "-c", program, tmp_path / "counts", test.directory]
    done = subprocess.run(command, capture_output=True, cwd=ROOT)
    wait_until_gone(int(done.stdout))
    assert files_of(test.directory) == COMPLETE


@pytest.mark.fault("crash-recorded")
def test_what_a_dead_process_recorded_is_completed_though_its_child_ends_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_LAST_WORDS_SECONDS", 0.0)
    test = open_test(tmp_path, "test_x.py::test_x", None)
    test.announce()
    control, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    arguments: dict[str, object] = {"directory": str(test.directory)}
    profile = messages.request(messages.NO_ANSWER, "profile", arguments, COUNTS.encode())
    control.send(messages.message([profile]))
    when_done = Finishing.when_done

    def child_ends(finishing: Finishing, callback: Callable[[], None]) -> None:
        control.close()  # as the last one that has it does
        when_done(finishing, callback)

    monkeypatch.setattr(Finishing, "when_done", child_ends)
    before = signal.getsignal(signal.SIGCHLD)
    with subprocess.Popen(["true"]) as tracee:
        process.HelperProcess(theirs, tracee.pid, _library_directories()).serve()
    signal.signal(signal.SIGCHLD, before)
    theirs.close()
    assert files_of(test.directory) == COMPLETE


@pytest.mark.usefixtures("unmeasured")
def test_to_complete_a_profile_takes_nothing_that_reads_traces(tmp_path: Path) -> None:
    test = open_test(tmp_path, "test_x.py::test_x", None)
    test.announce()
    (test.directory / "profile.counts").write_bytes(COUNTS.encode())
    program = (
        "import pathlib, sys\n"
        "from pytest_eventlet_debug.recordings import finisher\n"
        "finisher.expect(['cprofile'])\n"
        "finisher.finish(pathlib.Path(sys.argv[1]))\n"
        "print([name for name in sys.modules if 'strace' in name or 'captures' in name])\n"
        "finisher.expect(['pcap'])\n"
        "print('pytest_eventlet_debug.recordings.captures' in sys.modules)"
    )
    command = [sys.executable, "-c", program, test.directory]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (done.stdout, done.stderr) == ("[]\nTrue\n", "")
    assert files_of(test.directory) == COMPLETE


@pytest.mark.usefixtures("unmeasured")
def test_a_finisher_imports_nothing_that_makes_directories_of_tests() -> None:
    paths = [str(ROOT), *_library_directories()]
    program = (
        f"import sys; sys.path += {paths}; sys.modules['typing_extensions'] = None\n"
        "from pytest_eventlet_debug.helper import process\n"
        "from pytest_eventlet_debug.recordings import finisher\n"
        "finisher.expect(['strace', 'pcap', 'cprofile'])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-ISc", program], capture_output=True, text=True)
    loaded = {name.removeprefix("pytest_eventlet_debug.") for name in done.stdout.split()}
    assert {"recordings.recorded", "artifact_records", "pyprof2calltree"} <= loaded
    slow = {"hashlib", "string", "dataclasses"}
    if sys.version_info >= (3, 11):  # before, uuid imports it, which msgspec imports
        slow.add("subprocess")
    if sys.version_info < (3, 14):  # since then cProfile imports it, which pyprof2calltree imports
        slow.add("importlib.util")
    assert not loaded & {"artifacts", "system.run_lock", "system.unpatched", *slow}


def test_every_problem_is_told_however_many_there_are(tmp_path: Path) -> None:
    helper = Helper.start()
    completion = Completion(lambda: helper)
    for number in range(25):
        test = open_test(tmp_path, f"test_x.py::test_x[{number}]", None)
        shutil.rmtree(test.directory)
        completion.begin(test)
    problems = completion.wait()
    helper.close()
    assert len({each for each in problems if "cannot be written: No such file" in each}) == 25


class _Interrupted:
    is_gone = False

    def request(self, command: str, **arguments: object) -> dict[str, object]:
        if command == "finish-wait":
            raise KeyboardInterrupt
        return {}

    def post(self, command: str, data: bytes, **arguments: object) -> None:
        pass


@pytest.mark.fault("ctrl-c-finishing")
def test_ctrl_c_while_it_is_waited_for_is_one_line(tmp_path: Path) -> None:
    helper: Any = _Interrupted()
    completion = Completion(lambda: helper)
    completion.begin(open_test(tmp_path, "test_x.py::test_x", None))
    assert completion.wait() == ["Ctrl-C: not all recordings have findings"]


class _Gone:
    is_gone = False

    def post(self, command: str, data: bytes, **arguments: object) -> None:
        pass  # it dies before it has come to that

    def request(self, command: str, **arguments: object) -> dict[str, object]:
        raise HelperGoneError("the tracing helper was killed")


@pytest.mark.fault("helper-killed")
def test_what_a_helper_did_not_come_to_is_written_by_the_test_process(tmp_path: Path) -> None:
    helper: Any = _Gone()
    completion = Completion(lambda: helper)
    test = open_test(tmp_path, "test_x.py::test_x", None)
    test.outcomes["call"] = "passed"
    completion.begin(test)
    assert completion.wait() == ["the tracing helper was killed"]
    record = read_test(test.directory)
    assert record is not None
    assert record.outcomes == {"call": "passed"}
