"""Calls that hold the hub, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import re

from needs import needs_strace
import pytest
from speed import depends_on_speed

from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.blocked import Blocked
from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse

pytestmark = needs_strace

Find = Callable[..., list[Finding]]
FindEach = Callable[..., list[list[Finding]]]
Record = Callable[..., list[Path]]

PIPE = """
import os
import subprocess
import sys
import threading
import eventlet

def slow_writer():
    program = "import sys, time; time.sleep(0.5); sys.stdout.write('x')"
    return subprocess.Popen([sys.executable, "-S", "-c", program], stdout=subprocess.PIPE)
"""

HELD = (
    PIPE
    + """
def test_held():
    done = []
    def tick():
        while not done:
            eventlet.sleep(0.01)
    def fetch():
        eventlet.sleep(0.1)
        child = slow_writer()
        assert os.read(child.stdout.fileno(), 1) == b"x"
        child.wait()
        eventlet.sleep(0.1)
        done.append(True)
    eventlet.spawn(tick)
    eventlet.spawn(fetch).wait()
"""
)


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_a_read_that_blocks_while_another_was_to_run_held_the_hub(find: Find, hub: str) -> None:
    found = find(HELD, Blocked, hub)
    (read,) = (each for each in found if " in read(" in each.title)
    assert read.kind == "blocked"
    assert ":fetch held the hub for " in read.title
    assert read.title.endswith(":tick was to run")
    assert read.counts["seconds"] > 0.2
    assert read.place.startswith("strace.txt line ")


@depends_on_speed
def test_a_sleep_that_keeps_a_greenthread_from_its_data_names_the_data(
    find: Find,
) -> None:
    program = """
import socket
import time
import eventlet

def test_sleep():
    ours, theirs = eventlet.green.socket.socketpair()
    reader = eventlet.spawn(theirs.recv, 1)
    eventlet.sleep(0)
    ours.sendall(b"x")
    time.sleep(0.3)
    assert reader.wait() == b"x"
"""
    (found,) = find("import eventlet.green.socket\n" + program, Blocked)
    assert found.counts["seconds"] >= 0.3
    assert re.search(
        # Up to Python 3.10 a sleep is a select() without descriptors.
        r" in (?:clock_nanosleep\(\)|p?select6?\(0\)) at test_program\.py:\d+ in test_sleep "
        r"while there was EPOLLIN on ",
        found.title,
    )
    assert found.certainty == "certain"


def test_reading_alone_or_in_a_plain_thread_is_no_finding(find: Find) -> None:
    program = (
        PIPE
        + """
def test_alone():
    child = slow_writer()
    assert os.read(child.stdout.fileno(), 1) == b"x"
    child.wait()
    eventlet.sleep(0.01)

def test_thread():
    child = slow_writer()
    got = []
    def serve():
        got.append(os.read(child.stdout.fileno(), 1))
    thread = threading.Thread(target=serve)
    thread.start()
    def tick():
        for _ in range(50):
            eventlet.sleep(0.01)
    eventlet.spawn(tick).wait()
    eventlet.sleep(0.2)
    thread.join()
    child.wait()
"""
    )
    assert find(program, Blocked) == []


def test_our_own_last_call_is_no_finding_where_descriptors_are_few(tmp_path: Path) -> None:
    trace = tmp_path / "strace.txt"
    trace.write_text(
        '7 1.000000 access("/.eventlet-debug/phase/1/call/test_x.py::test_x", F_OK) = -1 ENOENT '
        "(No such file or directory) <0.000001>\n"
        '7 1.000001 access("/.eventlet-debug/greenlet/1/test", F_OK) = -1 ENOENT '
        "(No such file or directory) <0.000001>\n"
        '7 1.000002 sendto(242<UNIX:[1->2]>, "[9, \\"strace-stop\\", {}]", 22, MSG_NOSIGNAL, '
        "NULL, 0 <detached ...>\n"
    )
    with open_log(trace) as log:
        detection = Detection(About(), [Blocked])
        for _ in detection.watch(parse(log)):
            pass
    assert list(detection.findings()) == []


PHASE = """\
7 1.000000 access("/.eventlet-debug/phase/1/call/test_x.py::test_x", F_OK) = -1 ENOENT (No such file or directory) <0.000001>
7 1.000001 access("/.eventlet-debug/greenlet/1/test", F_OK) = -1 ENOENT (No such file or directory) <0.000001>
"""  # noqa: E501
ASKED = """\
7 5.600002 --- SIGRT_28 {si_signo=SIGRT_28, si_code=SI_USER, si_pid=5, si_uid=0} ---
7 5.600003 rt_sigreturn({mask=[]}) = -1 EINTR (Interrupted system call) <0.000011>
7 5.600004 write(501</tmp/1.err>, "-- what is alive --\\n", 20) = 20 <0.000023>
7 5.600005 read(13</tmp/test_x.py>, "import time", 65536) = 11 <0.000009>
"""
GOES_ON = """\
7 5.600006 poll([], 0, -1) = ? ERESTART_RESTARTBLOCK (Interrupted by signal) <0.284569>
"""
KILLED = """\
7 5.700006 poll([], 0, -1 <unfinished ...>) = ?
7 5.700007 +++ killed by SIGKILL +++
"""


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (
            "clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, {tv_sec=61780, tv_nsec=3}, NULL)",
            "? ERESTARTNOHAND (To be restarted if no handler)",
        ),
        (
            "poll([{fd=14<UNIX-STREAM:[1->2]>, events=POLLIN}], 1, 500000)",
            "? ERESTART_RESTARTBLOCK (Interrupted by signal)",
        ),
        (
            "accept4(13<TCP:[127.0.0.1:42115]>, 0x7ffc, [16], SOCK_CLOEXEC)",
            "? ERESTARTSYS (To be restarted if SA_RESTART is set)",
        ),
        (
            "epoll_wait(17<anon_inode:[eventpoll]>, 0x565000c3cfa0, 1023, -1)",
            "-1 EINTR (Interrupted system call)",
        ),
    ],
)
def test_the_call_that_was_interrupted_to_show_what_is_alive_is_told(
    tmp_path: Path, call: str, answer: str
) -> None:
    began = f"7 1.000002 {call} = {answer} <4.600000>\n"
    other = '7 5.600001 write(14</tmp/x>, "y", 1) = 1 <0.000023>\n'
    traces = {
        "hung": PHASE + began + ASKED + KILLED,
        # A signal of its own ended the call, and it went on to something that makes none.
        "elsewhere": PHASE + began + other + ASKED + KILLED,
        "went on": PHASE + began + ASKED + GOES_ON + ASKED + KILLED,
    }
    told = {name: len(list(find_in(tmp_path, text))) for name, text in traces.items()}
    assert told == {"hung": 1, "elsewhere": 0, "went on": 0}


def test_a_call_that_had_hardly_begun_when_the_process_was_killed_is_no_finding(
    tmp_path: Path,
) -> None:
    waits = "7 1.000002 futex(0x5562995bd630, FUTEX_WAIT_PRIVATE, 2, NULL) = ?\n"
    soon, late = (f"7 {seconds} +++ killed by SIGKILL +++\n" for seconds in ("1.1", "1.3"))
    told = [len(list(find_in(tmp_path, PHASE + waits + killed))) for killed in (soon, late)]
    assert told == [0, 1]


def test_a_call_that_goes_on_after_signals_that_only_c_code_answers_is_told_from_its_start(
    tmp_path: Path,
) -> None:
    """Such as that for the stacks, which faulthandler writes."""
    waits = "futex(0x5562995bd630, FUTEX_WAIT_PRIVATE, 2, NULL) = ?"
    restarts = f"{waits} ERESTARTSYS (To be restarted if SA_RESTART is set)"
    asked = "--- SIGRT_28 {si_signo=SIGRT_28, si_code=SI_USER, si_pid=5, si_uid=0} ---"
    trace = f"""\
7 1.000002 {restarts} <4.6>
7 5.600002 {asked}
7 5.600003 rt_sigreturn({{mask=[]}}) = -1 EINTR (Interrupted system call) <0.000011>
7 5.600004 {restarts} <1.0>
7 6.600004 {asked}
7 6.600005 write(501</tmp/1.err>, "Current thread 0x", 17) = 17 <0.000023>
7 6.600006 rt_sigreturn({{mask=[]}}) = 202 <0.000011>
7 6.600007 {waits}
7 6.700007 +++ killed by SIGKILL +++
"""
    (found,) = find_in(tmp_path, PHASE + trace)
    assert found.title == "greenthread 1:test was still in futex() when the recording ended"
    assert found.evidence[0].line == 3
    # This one is another wait, and had hardly begun.
    other = trace.replace("7 6.600007 futex(", "7 6.600007 read(13<pipe:[1]>, ")
    assert not find_in(tmp_path, PHASE + other)


def test_others_that_could_not_run_are_spoken_of_where_there_are_any(tmp_path: Path) -> None:
    waits = "7 1.000002 futex(0x5562995bd630, FUTEX_WAIT_PRIVATE, 2, NULL) = ?\n"
    switches = HUB.format(0) + TEST.format(0)
    (alone,) = find_in(tmp_path, PHASE + waits)
    (beside_others,) = find_in(tmp_path, PHASE + switches + waits)
    assert alone.title == "greenthread 1:test was still in futex() when the recording ended"
    assert beside_others.title == f"{alone.title}, so that no other could run"


def find_in(directory: Path, trace: str) -> list[Finding]:
    path = directory / "strace.txt"
    path.write_text(trace)
    with open_log(path) as log:
        detection = Detection(About(), [Blocked])
        for _ in detection.watch(parse(log)):
            pass
    return list(detection.findings())


def test_a_call_in_which_a_hung_test_is_killed_is_told(record: Record) -> None:
    program = """
import os

def test_hung():
    listener = eventlet.listen(("127.0.0.1", 0))
    client = eventlet.connect(listener.getsockname())
    client.sendall(b"x")  # nobody reads it, so that the end of the process is a reset
    reader, writer = os.pipe()
    def fetch():
        os.read(reader, 1)
    eventlet.spawn(fetch).wait()
"""
    capture = ["--pcap"] if os.geteuid() == 0 else []
    options = ["--eventlet-timeout=4", *capture]
    (directory,) = record("import eventlet\n" + program, "epolls", *options)
    with open_log(directory / "strace.txt") as log:
        detection = Detection(About(), [Blocked])
        for _ in detection.watch(parse(log)):
            pass
    (found,) = detection.findings()
    assert ":fetch was still in read(" in found.title
    assert found.title.endswith(" when the recording ended, so that no other could run")
    finished = findings_file.read(directory)
    assert finished is not None
    assert [each.kind for each in finished.findings] == ["blocked"]


MARK = '7 {}.000000 access("/.eventlet-debug/greenlet/{}", F_OK) = -1 ENOENT (-) <0.000001>\n'
TEST, HUB, TICK = (MARK.format("{}", name) for name in ("1/test", "2/hub", "3/tick"))
TURN = HUB + TICK
READS = '7 {}.000000 read(5<pipe:[1]>, "x", 1) = 1 <0.300000>\n'
SLEEPS = "7 {}.000000 clock_nanosleep(CLOCK_MONOTONIC, 0, {{}}, NULL) = 0 <0.010000>\n"


def late(seconds: float) -> str:
    return HUB + MARK.format("{}", f"3/tick/{int(seconds * 1e9)}")


@pytest.mark.parametrize(
    ("trace", "count"),
    [
        # It was due 0.2 s before the call returned, which the marks are 1.7 s after.
        (TURN + HUB + TEST + READS + late(1.9), 1),
        # It was due only when the call had almost returned.
        (TURN + HUB + TEST + READS + late(1.75), 0),
        # Something has woken it since, such as what the test has put into a queue.
        (TURN + TURN + HUB + TEST + READS + TURN, 0),
        # It is an earlier test's.
        (TURN + HUB + TEST + READS + late(1.9).replace("tick", "tick (older)"), 0),
        # The hub had nobody to run then, and no listener.
        (TURN + TURN + HUB + TEST + READS + HUB + SLEEPS + late(3.9)[len(HUB) :], 0),
    ],
)
def test_who_was_not_to_run_yet_is_not_told_to_have_been_held_up(trace: str, count: int) -> None:
    phase = TICKS.splitlines(keepends=True)[0]
    detection = Detection(About(), [Blocked])
    for _ in detection.watch(parse((phase + trace.format(*range(11, 30))).splitlines(True))):
        pass
    assert len(list(detection.findings())) == count


TAKES = """
import time
import eventlet
from eventlet.queue import Queue

def test_takes():
    queue = Queue()
    taker = eventlet.spawn(lambda: [queue.get() for _ in range(4)])
    for number in range(3):
        queue.put(number)
        eventlet.sleep(0)
    time.sleep(0.3)
    queue.put(3)
    taker.wait()
"""

BEGINS = """
import time
import eventlet

def test_begins():
    begun = eventlet.spawn(int)
    time.sleep(0.3)
    begun.wait()
"""


@depends_on_speed
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_who_is_woken_after_the_call_was_not_held_up_but_who_was_to_begin_was(
    find_each: FindEach, hub: str
) -> None:
    woken, (begins,) = find_each([TAKES, BEGINS], Blocked, hub)
    assert woken == []
    assert begins.title.endswith(" in test_begins while 3:int was to run")
    assert begins.certainty == "certain"


@depends_on_speed
def test_who_was_to_begin_is_known_where_marks_are_calls(record: Record) -> None:
    (directory,) = record(BEGINS, "epolls", "--strace-args=-s 100")
    (found,) = findings_file.read(directory).findings  # type: ignore[union-attr]
    assert found.title.endswith(" in test_begins while 3:int was to run")


NONBLOCKING = "7 {}.000000 CALL <0.000001>\n"


@pytest.mark.parametrize(
    ("calls", "count"),
    [
        (["ioctl(5<pipe:[1]>, FIONBIO, [1]) = 0"], 0),
        (["ioctl(5<pipe:[1]>, FIONBIO, [1]) = 0", "ioctl(5<pipe:[1]>, FIONBIO, [0]) = 0"], 1),
        (["fcntl(5<pipe:[1]>, F_SETFL, O_RDONLY|O_NONBLOCK) = 0"], 0),
        (["fcntl(5<pipe:[1]>, F_SETFL, O_RDONLY) = 0"], 1),
        (["pipe2([5<pipe:[1]>, 6<pipe:[1]>], O_NONBLOCK|O_CLOEXEC) = 0"], 0),
        (["pipe2([4<pipe:[1]>, 6<pipe:[1]>], O_NONBLOCK|O_CLOEXEC) = 0"], 1),
        (["accept4(4<TCP:[1]>, {}, [16], SOCK_CLOEXEC|SOCK_NONBLOCK) = 5<TCP:[1->2]>"], 0),
        (["ioctl(4<pipe:[1]>, FIONBIO, [1]) = 0", "dup(4<pipe:[1]>) = 5<pipe:[1]>"], 0),
        (["ioctl(5<pipe:[1]>, FIONBIO, [1]) = 0", "close(5<pipe:[1]>) = 0"], 1),
        (["ioctl(5<pipe:[1]>, FIONBIO, [1]) = -1 EBADF (Bad file descriptor)"], 1),
    ],
)
def test_a_call_that_cannot_wait_does_not_hold_the_hub(calls: list[str], count: int) -> None:
    made = "".join(NONBLOCKING.replace("CALL", call) for call in calls)
    trace = TURN + TURN + made.replace("{}.", "15.").replace("{}, ", "{{}}, ") + HUB + TEST
    phase = TICKS.splitlines(keepends=True)[0]
    detection = Detection(About(), [Blocked])
    lines = phase + trace.format(*range(11, 30)) + (READS + late(1.9)).format(*range(20, 30))
    for _ in detection.watch(parse(lines.splitlines(True))):
        pass
    assert len(list(detection.findings())) == count


TICKS = """\
7 10.000000 access("/.eventlet-debug/phase/10/call/test_b", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000100 access("/.eventlet-debug/greenlet/3/tick", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000200 access("/.eventlet-debug/greenlet/2/hub", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000300 access("/.eventlet-debug/greenlet/3/tick", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000400 access("/.eventlet-debug/greenlet/4/fetch", F_OK) = -1 ENOENT (-) <0.000001>
9 10.000500 pread64(503</proc/7/task/7/schedstat>, "500 1000000000 9\\n", 99, 0) = 17 <0.000001>
7 10.001000 CALL <unfinished ...>
9 10.100000 pread64(503</proc/7/task/7/schedstat>, "500 1099000000 9\\n", 99, 0) = 17 <0.000001>
7 10.301000 <... RESUMED <0.300000>
7 10.301100 access("/.eventlet-debug/greenlet/2/hub", F_OK) = -1 ENOENT (-) <0.000001>
7 10.301200 access("/.eventlet-debug/greenlet/3/tick/290000000", F_OK) = -1 ENOENT (-) <0.000001>
7 10.301300 epoll_wait(5<anon_inode:[eventpoll]>, [], 1023, 10) = 0 <0.010000>
9 10.312000 pread64(503</proc/7/task/7/schedstat>, "500 DELAY 9\\n", 99, 0) = 17 <0.000001>
"""


@pytest.mark.parametrize(
    ("call", "resumed", "delay_ns", "count"),
    [
        ("recvfrom(5<TCP:[1->2]>, ", 'recvfrom resumed>"x", 1, 0, NULL, NULL) = 1', 1099000000, 1),
        ("recvfrom(5<TCP:[1->2]>, ", 'recvfrom resumed>"x", 1, 0, NULL, NULL) = 1', 1101000000, 0),
        ("connect(5<TCP:[9]>, {}, 16", "connect resumed>) = -1 EINPROGRESS (-)", 1000000000, 0),
        ("recvfrom(5<TCP:[1->2]>, ", "recvfrom resumed>0x7, 1) = -1 EAGAIN (-)", 1000000000, 0),
    ],
)
def test_time_without_a_cpu_is_not_time_in_the_kernel(
    call: str, resumed: str, delay_ns: int, count: int
) -> None:
    trace = TICKS.replace("CALL", call).replace("RESUMED", resumed)
    detection = Detection(About(), [Blocked])
    lines = trace.replace("DELAY", str(delay_ns)).splitlines(keepends=True)
    for _ in detection.watch(parse(lines)):
        pass
    assert len(list(detection.findings())) == count


def test_opening_a_fifo_that_nobody_writes_to_yet_names_its_path(find: Find) -> None:
    program = """
import os
import subprocess
import sys
import eventlet

def test_fifo(tmp_path):
    path = str(tmp_path / "control")
    os.mkfifo(path)
    done = []
    def tick():
        while not done:
            eventlet.sleep(0.01)
    def listen():
        eventlet.sleep(0.1)
        program = f"import time; time.sleep(0.5); open({path!r}, 'w')"
        child = subprocess.Popen([sys.executable, "-S", "-c", program])
        open(path).close()
        child.wait()
        done.append(True)
    eventlet.spawn(tick)
    eventlet.spawn(listen).wait()
"""
    (opened,) = (each for each in find(program, Blocked) if " in openat(" in each.title)
    assert re.search(
        r':listen held the hub for \d\.\d\d s in openat\("/\S+/control"\) at test_program\.py:\d+ '
        r"in listen while \d+:tick was to run",
        opened.title,
    )


SLICES = """
import socket
import eventlet
from eventlet import patcher

poll = patcher.original("select").poll
time = patcher.original("time")

def wait_as_a_library_does(sock, slices, pause=lambda: None):
    poller = poll()
    poller.register(sock, 1)
    for _ in range(slices):
        assert poller.poll(60) == []
        pause()

def test_slices():
    ours, theirs = eventlet.green.socket.socketpair()
    silent, other = socket.socketpair()
    reader = eventlet.spawn(theirs.recv, 1)
    eventlet.sleep(0)
    ours.sendall(b"x")
    WAIT
    assert reader.wait() == b"x"
"""


def of_slices(wait: str) -> str:
    return "import eventlet.green.socket\n" + SLICES.replace("WAIT", wait)


@depends_on_speed
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_short_waits_that_add_up_are_told_as_one(find: Find, hub: str) -> None:
    (found,) = find(of_slices("wait_as_a_library_does(silent, 6)"), Blocked, hub)
    assert re.search(
        r"greenthread 1:test held the hub for 0\.\d\d s in poll\(\d+<UNIX\S+\) x 6 at "
        r"test_program\.py:\d+ in wait_as_a_library_does while there was EPOLLIN on \d+<UNIX",
        found.title,
    )
    assert found.certainty == "certain"
    assert found.counts["seconds"] >= 0.36


@depends_on_speed
def test_sleeps_in_a_loop_are_told_as_one(find: Find) -> None:
    wait = "[time.sleep(0.06) for _ in range(6)]"
    (found,) = find(of_slices(wait), Blocked)
    assert re.search(r" in (?:clock_nanosleep\(\)|p?select6?\(0\)) x 6 at ", found.title)


def test_short_waits_that_hold_up_nobody_are_not_told(find_each: FindEach) -> None:
    waits = {
        "too short in all": "wait_as_a_library_does(silent, 2)",
        "the hub ran in between": "wait_as_a_library_does(silent, 6, lambda: eventlet.sleep(0))",
    }
    assert find_each(list(map(of_slices, waits.values())), Blocked) == [[], []]


def test_short_waits_in_which_a_hung_test_is_killed_are_told(record: Record) -> None:
    program = of_slices("wait_as_a_library_does(silent, 10**6)")
    (directory,) = record(program, "epolls", "--eventlet-timeout=4")
    (found,) = findings_file.read(directory).findings  # type: ignore[union-attr]
    assert re.search(
        r"greenthread 1:test was still in poll\(\d+<UNIX\S+\) x \d+ at test_program\.py:\d+ in "
        r"wait_as_a_library_does, for \d+\.\d\d s, when the recording ended, so that no other",
        found.title,
    )


SLICE = (
    "7 {} epoll_wait(15<anon_inode:[eventpoll]>, [], 100, 201) = 0 (Timeout) <0.201000>\n" * 2
).format("5.190000", "5.395000")
IMPORTS = '7 5.600006 openat(AT_FDCWD</tmp>, "/lib/python3.11/ast.py", O_RDONLY'


@pytest.mark.parametrize(
    ("trace", "until", "waits"),
    [
        # The handler ran between two waits, and what it opened is not what the test is in.
        (SLICE + ASKED + IMPORTS, 5.7, "epoll_wait(15<anon_inode:[eventpoll]>) x 2, for 0.40 s,"),
        (SLICE + ASKED + KILLED, None, "epoll_wait(15<anon_inode:[eventpoll]>) x 2, for 0.40 s,"),
        # It computed after these waits.
        (SLICE.replace("7 5.", "7 3.") + ASKED + IMPORTS, 5.7, None),
        (SLICE + "7 5.600001 read(3</tmp/fifo>, ", 8.0, "read(3</tmp/fifo>)"),
        # It had hardly begun.
        ("7 5.600001 read(3</tmp/fifo>, ", 5.7, None),
    ],
)
def test_what_a_test_that_hangs_waits_in_is_told_of_a_trace_that_goes_on(
    trace: str, until: float | None, waits: str | None
) -> None:
    until_ns = int(until * 1e9) if until is not None else None
    detection = Detection(About(until_ns=until_ns), [Blocked])
    for _ in detection.watch(parse((PHASE + trace).splitlines(keepends=True))):
        pass
    titles = [each.title for each in detection.findings()]
    end = "when the recording ended"
    assert titles == ([f"greenthread 1:test was still in {waits} {end}"] if waits else [])


LOOKUP = r"""
7 10.000000 access("/.eventlet-debug/phase/10/call/test_b", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000100 access("/.eventlet-debug/greenlet/3/tick", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000200 access("/.eventlet-debug/greenlet/2/hub", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000300 access("/.eventlet-debug/greenlet/3/tick", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000400 access("/.eventlet-debug/greenlet/4/report", F_OK) = -1 ENOENT (-) <0.000001>
7 10.000600 SEND <0.000030>
7 10.000700 poll([{fd=SOCKET, events=POLLIN}], 1, 500) = 0 (Timeout) <0.500123>
7 10.500900 close(SOCKET) = 0 <0.000034>
7 10.501100 access("/.eventlet-debug/greenlet/2/hub", F_OK) = -1 ENOENT (-) <0.000001>
7 10.501200 access("/.eventlet-debug/greenlet/3/tick/290000000", F_OK) = -1 ENOENT (-) <0.000001>
7 10.501300 epoll_wait(5<anon_inode:[eventpoll]>, [], 1023, 10) = 0 <0.010000>
"""
SOCKET = "16<UDP:[127.0.0.1:41302->127.0.0.1:53]>"
QUERY = r'"\332\337\1\0\0\1\0\0\0\0\0\0\6statsd\7example\3com\0\0\1\0\1"'
SIX = QUERY.replace(r"\0\1\0\1", r"\0\34\0\1")
MESSAGE = (
    "{msg_hdr={msg_name=NULL, msg_namelen=0, msg_iov=[{iov_base=%s, iov_len=36}]}, msg_len=36}"
)


@pytest.mark.parametrize(
    ("send", "name"),
    [
        (f"sendto({SOCKET}, {QUERY}, 36, MSG_NOSIGNAL, NULL, 0) = 36", "statsd.example.com"),
        (
            f"sendmmsg({SOCKET}, [{MESSAGE % QUERY}, {MESSAGE % SIX}], 2, MSG_NOSIGNAL) = 2",
            "statsd.example.com",
        ),
        (f'sendto({SOCKET}, "x", 1, MSG_NOSIGNAL, NULL, 0) = 1', None),
        (f"sendto({SOCKET.replace('16<', '17<')}, {QUERY}, 36, 0, NULL, 0) = 36", None),
    ],
)
def test_the_lookup_of_a_host_name_that_holds_the_hub_is_told(send: str, name: str | None) -> None:
    detection = Detection(About(), [Blocked])
    trace = LOOKUP.lstrip().replace("SEND", send).replace("SOCKET", SOCKET)
    for _ in detection.watch(parse(trace.splitlines(keepends=True))):
        pass
    (found,) = detection.findings()
    lookup = f", to look up {name}," if name else ""
    assert f" in poll({SOCKET}){lookup} while 3:tick was to run" in found.title
