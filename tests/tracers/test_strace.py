"""strace around a test: complete, labelled, and out of the test's sight."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shutil
import signal
import subprocess
import sys
import textwrap

from needs import needs_root
from needs import needs_strace
from programs import TICKER
from programs import wait_until_gone
import psutil
import pytest

from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import Unparsed
from pytest_eventlet_debug.tracers.strace_program import keep_marks

pytestmark = needs_strace

ROOT = Path(__file__).parent.parent.parent

PROLOGUE = """
import os, posix, signal, sys, threading
from pathlib import Path
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import Recording, TracerError, TracerUnavailable
from pytest_eventlet_debug.tracers.strace import Strace
directory = Path(sys.argv[1])
recording = Recording("tests/test_x.py::test_y[epolls]", directory)
helper = Helper.start()
strace = Strace(helper)
"""


def command(directory: Path, text: str, prologue: str = PROLOGUE) -> list[str]:
    text = prologue + textwrap.dedent(text)
    return [sys.executable, "-W", "ignore", "-c", text, str(directory)]


def run(
    directory: Path,
    text: str,
    *,
    prologue: str = PROLOGUE,
    outer: tuple[str, ...] = (),
    **environment: str,
) -> str:
    done = subprocess.run(
        [*outer, *command(directory, text, prologue)],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_and_the_last_system_call_are_recorded_every_time(tmp_path: Path) -> None:
    text = """
        for number in range(20):
            strace.start(recording)
            posix.access("/first", 0)
            posix.access("/last", 0)
            strace.stop()
            lines = (recording.directory / "strace.txt").read_text()
            assert lines.count('access("/first"') == lines.count('access("/last"') == 1, lines
            assert lines.endswith("\\n")
    """
    assert run(tmp_path, text) == ""


def test_threads_and_children_are_followed(tmp_path: Path) -> None:
    text = """
        ready, go = threading.Event(), threading.Event()
        def early():
            ready.set()
            go.wait()
            posix.access("/early-thread", 0)
        thread = threading.Thread(target=early)
        thread.start()
        ready.wait()
        strace.start(recording)
        go.set()
        thread.join()
        late = threading.Thread(target=posix.access, args=("/late-thread", 0))
        late.start()
        late.join()
        if not os.fork():
            posix.access("/child", 0)
            os._exit(7)
        os.wait()
        strace.stop()
    """
    run(tmp_path, text)
    trace = (tmp_path / "strace.txt").read_text()
    who = {
        name: line.split()[0]
        for line in trace.splitlines()
        for name in re.findall(r'access\("/(early-thread|late-thread|child)"', line)
    }
    assert len(set(who.values())) == 3, trace
    assert "+++ exited with 7 +++" in trace


def test_every_line_is_in_the_format_that_the_analysis_reads(tmp_path: Path) -> None:
    run(tmp_path, "strace.start(recording); os.stat('/'); os.read(os.pipe()[0], 0); strace.stop()")
    lines = (tmp_path / "strace.txt").read_text().splitlines()
    assert lines
    for line in lines:
        assert re.match(r"\d+ +\d{10}\.\d{6} (\w+\(.*|<\.\.\. .*)$", line), line
    assert any(re.search(r"read\(\d+<pipe:\[\d+\]>, .*= 0 <0\.\d{6}>$", line) for line in lines)


def test_phases_are_marked_with_their_time_and_the_node_id(tmp_path: Path) -> None:
    text = """
        from time import time_ns
        strace.start(recording)
        began = time_ns()
        for phase in ("setup", "call", "teardown"):
            strace.mark(phase)
        print(began, time_ns())
        strace.stop()
    """
    began, ended = map(int, run(tmp_path, text).split())
    trace = (tmp_path / "strace.txt").read_text()
    marks = re.findall(
        r' (\d+\.\d+) access\("/\.eventlet-debug/phase/(\d+)/(\w+)/(.*)", F_OK', trace
    )
    assert [mark[2] for mark in marks] == ["setup", "call", "teardown"]
    for seconds, nanoseconds, _, nodeid in marks:
        assert nodeid == "tests/test_x.py::test_y[epolls]"
        microseconds = int(nanoseconds) // 1000, int(seconds.replace(".", ""))
        assert began // 1000 <= microseconds[0] <= microseconds[1] <= ended // 1000


@pytest.mark.fault("hostile-id")
@pytest.mark.parametrize("nodeid", ["x" * 9000, "a\\0b", "\\udc80", "é"])
def test_any_node_id_can_be_marked(tmp_path: Path, nodeid: str) -> None:
    text = f"""
        strace.start(Recording("{nodeid}", directory))
        strace.mark("call")
        strace.stop()
    """
    run(tmp_path, text)
    assert 'access("/.eventlet-debug/phase/' in (tmp_path / "strace.txt").read_text()


def test_each_switch_of_greenlets_is_labelled_from_the_start_on(tmp_path: Path) -> None:
    text = """
        import eventlet, greenlet
        def serve():
            posix.access("/in-serve", 0)
        strace.start(recording)
        posix.access("/in-test", 0)
        eventlet.spawn(serve).wait()
        posix.access("/in-test-again", 0)
        strace.stop()
        assert greenlet.gettrace() is None
    """
    run(tmp_path, text)
    trace = (tmp_path / "strace.txt").read_text()
    looks = re.findall(r'access\("/([^"]*)"', trace)
    labels = {}
    label = ""
    for look in looks:
        if look.startswith(".eventlet-debug/greenlet/"):
            label = look.removeprefix(".eventlet-debug/greenlet/")
        else:
            labels[look] = label
    assert labels == {"in-test": "1/test", "in-serve": "3/serve", "in-test-again": "1/test"}
    assert ".eventlet-debug/greenlet/2/hub" in looks


@pytest.mark.usefixtures("unmeasured")
def test_greenlets_imported_after_the_start_are_labelled_from_the_next_phase_on(
    tmp_path: Path,
) -> None:
    text = """
        strace.start(recording)
        assert "greenlet" not in sys.modules
        import greenlet
        strace.mark("call")
        greenlet.greenlet(lambda: None).switch()
        strace.stop()
    """
    run(tmp_path, text)
    trace = (tmp_path / "strace.txt").read_text()
    marks = re.findall(r'"/\.eventlet-debug/greenlet/([^"]*)"', trace)
    assert marks == ["1/test", "2/greenlet", "1/test"]


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
@pytest.mark.parametrize("order", ["before", "after"])
def test_start_and_stop_switch_no_greenthread(tmp_path: Path, hub: str, order: str) -> None:
    prologue = TICKER + PROLOGUE if order == "before" else PROLOGUE + TICKER
    text = """
        strace.check()
        before = ticks
        for _ in range(5):
            strace.start(recording)
            strace.mark("call")
            strace.pause()
            strace.resume()
            strace.stop()
        print(ticks - before)
    """
    assert run(tmp_path, text, prologue=prologue, EVENTLET_HUB=hub) == "0\n"


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_it_can_be_started_and_stopped_inside_the_hub(tmp_path: Path, hub: str) -> None:
    text = """
        done = eventlet.event.Event()
        def in_hub():
            assert eventlet.getcurrent() is eventlet.hubs.get_hub().greenlet
            before = ticks
            strace.start(recording)
            strace.stop()
            done.send(ticks - before)
        eventlet.hubs.get_hub().schedule_call_global(0, in_hub)
        print(done.wait())
    """
    prologue = TICKER + "import eventlet.event, eventlet.hubs\n" + PROLOGUE
    assert run(tmp_path, text, prologue=prologue, EVENTLET_HUB=hub) == "0\n"
    assert "greenlet/1/hub" in (tmp_path / "strace.txt").read_text()


@pytest.mark.fault("sigchld")
def test_the_test_gets_no_sigchld_and_has_no_child_to_wait_for(tmp_path: Path) -> None:
    text = """
        seen = []
        signal.signal(signal.SIGCHLD, lambda *arguments: seen.append(arguments))
        strace.start(recording)
        try:
            os.wait()
        except ChildProcessError:
            print("ECHILD")
        strace.stop()
        print(seen)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        strace.start(recording)
        strace.stop()
    """
    assert run(tmp_path, text) == "ECHILD\n[]\n"


def test_a_pause_is_a_gap_in_one_file(tmp_path: Path) -> None:
    text = """
        strace.start(recording)
        posix.access("/before", 0)
        strace.pause()
        posix.access("/debugger", 0)
        strace.mark("call")
        strace.resume()
        posix.access("/after", 0)
        strace.stop()
        print(os.listdir(directory))
    """
    assert run(tmp_path, text) == "['strace.txt']\n"
    trace = (tmp_path / "strace.txt").read_text()
    assert trace.index('"/before"') < trace.index('"/after"')
    assert "/debugger" not in trace


def test_the_cpus_are_given_back_to_the_test_its_threads_and_children(tmp_path: Path) -> None:
    text = """
        before = os.sched_getaffinity(0)
        go = threading.Event()
        strace.start(recording)
        during = os.sched_getaffinity(0)
        thread = threading.Thread(target=go.wait, daemon=True)
        thread.start()
        ready, running = os.pipe()
        child = os.fork()
        if not child:
            os.write(running, b"x")
            signal.pause()
        os.read(ready, 1)
        strace.stop()
        assert len(during) == 1
        assert os.sched_getaffinity(0) == before
        assert os.sched_getaffinity(thread.native_id) == before
        assert os.sched_getaffinity(child) == before
        go.set()
        os.kill(child, signal.SIGKILL)
    """
    run(tmp_path, text)


def test_more_threads_than_fit_into_a_pipe_do_not_freeze_the_test(tmp_path: Path) -> None:
    text = """
        strace.start(recording)
        for _ in range(2150):
            thread = threading.Thread(target=int)
            thread.start()
            thread.join()
        strace.stop()
        print("ended")
    """
    assert run(tmp_path, text) == "ended\n"


@pytest.mark.fault("strace-killed")
def test_a_strace_that_is_killed_is_noticed_and_the_next_test_is_recorded(tmp_path: Path) -> None:
    text = """
        def tracer():
            status = Path("/proc/self/status").read_text()
            return int(status.partition("TracerPid:")[2].split()[0])
        strace.start(recording)
        os.kill(tracer(), signal.SIGKILL)
        while tracer():
            pass
        try:
            strace.stop()
        except TracerError as error:
            print(error)
        strace.start(recording)
        posix.access("/again", 0)
        strace.stop()
        assert '"/again"' in (recording.directory / "strace.txt").read_text()
    """
    expected = "strace ended before the test did (SIGKILL); strace.txt is incomplete\n"
    assert run(tmp_path, text) == expected


@pytest.mark.fault("strace-slow")
def test_a_strace_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    text = """
        strace = Strace(helper, ("-I", "never"))
        strace.start(recording)
        try:
            strace.stop()
        except TracerError as error:
            print(error)
        try:
            Strace(helper).start(recording)
        except TracerError as error:
            print(error)
    """
    first, second = run(tmp_path, text).splitlines()
    assert first == second  # at once, and one line of the summary
    assert first.startswith(
        "strace did not end within 2 s of SIGTERM and was killed; strace.txt is incomplete; "
        "no test after this one is traced"
    )


@pytest.mark.fault("run-killed")
@pytest.mark.parametrize("victim", ["test", "helper"])
def test_nothing_is_left_behind_when_somebody_is_killed(tmp_path: Path, victim: str) -> None:
    text = """
        strace.start(recording)
        if not os.fork():
            signal.pause()
        status = Path("/proc/self/status").read_text()
        print(helper.pid, status.partition("TracerPid:")[2].split()[0], flush=True)
        sys.stdin.readline()
        try:
            strace.stop()
        except TracerError:
            print("TracerError", flush=True)
        signal.pause()
    """
    process = subprocess.Popen(
        command(tmp_path, text), cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    helper, tracer = map(int, process.stdout.readline().split())
    (child,) = psutil.Process(process.pid).children()
    if victim == "test":
        process.kill()
    else:
        os.kill(helper, signal.SIGKILL)
        wait_until_gone(helper)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "TracerError\n"
    wait_until_gone(tracer)
    wait_until_gone(helper)
    child.kill()
    process.kill()
    process.communicate()


def test_a_full_stop_of_the_helper_ends_strace_too(tmp_path: Path) -> None:
    text = """
        strace.start(recording)
        status = Path("/proc/self/status").read_text()
        tracer = int(status.partition("TracerPid:")[2].split()[0])
        helper.close()
        print("TracerPid:\\t0\\n" in Path("/proc/self/status").read_text(), tracer > 0)
        strace.close()
    """
    assert run(tmp_path, text) == "True True\n"


def test_the_check_knows_the_version(tmp_path: Path) -> None:
    version = subprocess.run(["strace", "-V"], capture_output=True, text=True).stdout.split()[3]
    text = """
        strace.check()
        print(strace.version, os.listdir(os.environ["TMPDIR"]))
    """
    assert run(tmp_path, text, TMPDIR=str(tmp_path)) == f"{version} []\n"


REFUSED = """
strace = Strace(helper, tuple(sys.argv[2:]))
try:
    strace.check()
    strace.confirm()
except TracerUnavailable as error:
    print(error)
"""


@pytest.mark.fault("strace-missing")
def test_the_check_says_that_strace_is_missing(tmp_path: Path) -> None:
    assert run(tmp_path, REFUSED, PATH="").startswith(
        "there is no strace on PATH: install it (`apt install strace`"
    )


@pytest.mark.fault("traced-already")
def test_the_check_names_the_program_that_traces_this_process_already(tmp_path: Path) -> None:
    outer = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=none")
    words = run(tmp_path, REFUSED, outer=outer)
    assert re.match(r"strace cannot trace this process: strace \(process \d+\) traces it", words)


@pytest.mark.fault("strace-options")
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--no-such-option"], "unrecognized option '--no-such-option'"),
        (["-e", "trace=nonsense"], "invalid system call 'nonsense'"),
        (["-ff"], "-ff among its options asks for several files"),
    ],
)
def test_the_check_quotes_what_strace_says_of_bad_options(
    tmp_path: Path, options: list[str], words: str
) -> None:
    done = subprocess.run(
        [*command(tmp_path, REFUSED), *options], cwd=ROOT, capture_output=True, text=True
    )
    assert words in done.stdout, done.stderr
    assert " ".join(options) in done.stdout
    assert done.stdout.count("\n") == 1


@pytest.mark.fault("not-dumpable")
@pytest.mark.usefixtures("unmeasured")
@needs_root
def test_the_check_explains_a_process_that_is_not_dumpable(tmp_path: Path) -> None:
    if not shutil.which("setpriv"):
        pytest.skip("setpriv is not installed")
    text = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)\n" + REFUSED
    outer = ("setpriv", "--bounding-set=-sys_ptrace", "--inh-caps=-sys_ptrace")
    assert "this process is not dumpable" in run(tmp_path, text, outer=outer)


@pytest.mark.usefixtures("unmeasured")
def test_extra_options_reach_strace_and_the_marks_pass_its_filter(tmp_path: Path) -> None:
    text = """
        strace = Strace(helper, ("-e", "trace=getppid"))
        strace.start(recording)
        strace.mark("call")
        os.getppid()
        os.getpid()
        strace.stop()
    """
    run(tmp_path, text)
    calls = re.findall(r"\d+\.\d+ (\w+)\(", (tmp_path / "strace.txt").read_text())
    assert calls == ["access", "getppid"]


MARKS = "?access,?faccessat,?faccessat2"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((), ()),
        (("-e", "trace=network"), ("-e", f"trace=network,{MARKS}")),
        (("-e", "network"), ("-e", f"network,{MARKS}")),
        (("-etrace=%net",), (f"-etrace=%net,{MARKS}",)),
        (("--trace=read",), (f"--trace=read,{MARKS}",)),
        (("--trace", "read"), ("--trace", f"read,{MARKS}")),
        (("-e", "trace=none"), ("-e", f"trace={MARKS}")),
        (("-e", "trace=!read"), ("-e", "trace=!read")),
        (("-e", "trace=all"), ("-e", "trace=all")),
        (("-e", "signal=none"), ("-e", "signal=none")),
        (("-e", "inject=read:error=EIO"), ("-e", "inject=read:error=EIO")),
        (("-v", "-s", "99"), ("-v", "-s", "99")),
    ],
)
def test_a_filter_lets_the_marks_pass(given: tuple[str, ...], kept: tuple[str, ...]) -> None:
    assert keep_marks(given) == kept


STAYS = PROLOGUE.replace("Strace(helper)", "Strace(helper, stay=True)")


def test_it_stays_attached_from_test_to_test_and_each_has_its_own_calls(tmp_path: Path) -> None:
    text = """
    def tracer():
        return Path("/proc/self/status").read_text().partition("TracerPid:")[2].split()[0]
    tracers = []
    for name in ("one", "two", "three"):
        (directory / name).mkdir()
        strace.start(Recording(f"test_x.py::{name}", directory / name))
        strace.mark("call")
        posix.access(f"/made/by/{name}", 0)
        tracers.append(tracer())
        strace.stop()
        posix.access(f"/made/between", 0)
    block = Recording("test_x.py::three", directory / "block", is_block=True)
    block.directory.mkdir()
    strace.start(block)
    posix.access("/made/by/block", 0)
    strace.stop()
    print("block" if "/made/by/block" in (block.directory / "strace.txt").read_text() else "late")
    print(tracer())
    strace.close()
    helper.close()
    print(*tracers)
    """
    block, resting, tracers = run(tmp_path, text, prologue=STAYS).splitlines()
    assert block == "block"
    assert resting == "0"
    assert len(set(tracers.split())) == 1 != "0"
    for name in ("one", "two", "three", "block"):
        with open_log(tmp_path / name / "strace.txt") as log:
            text = log.read()
        assert set(re.findall(r"/made/\w+/?\w*", text)) == {f"/made/by/{name}"}
        assert text.endswith("\n")
        assert not [event for event in parse(text.splitlines(True)) if type(event) is Unparsed]


@pytest.mark.fault("crash-recorded")
def test_a_test_whose_process_has_ended_before_the_helper_comes_to_it_has_its_calls(
    tmp_path: Path,
) -> None:
    text = """
    for name in ("one", "two"):
        (directory / name).mkdir()
    strace.start(Recording("test_x.py::one", directory / "one"))
    strace.stop()
    posix.access("/made/between", 0)
    os.kill(helper.pid, signal.SIGSTOP)
    strace.start(Recording("test_x.py::two", directory / "two"))
    posix.access("/made/by/two", 0)
    print(helper.pid, flush=True)
    os._exit(0)
    """
    helper = int(run(tmp_path, text, prologue=STAYS))
    os.kill(helper, signal.SIGCONT)
    wait_until_gone(helper)
    with open_log(tmp_path / "two" / "strace.txt") as log:
        trace = log.read()
    assert re.findall(r'"/made/([^"]*)"', trace) == ["by/two"]
    assert "+++ exited with 0 +++" in trace


def test_it_does_not_stay_with_a_child_that_outlives_its_test(tmp_path: Path) -> None:
    text = """
    import subprocess
    child = None
    for name in ("one", "two"):
        (directory / name).mkdir()
        strace.start(Recording(f"test_x.py::{name}", directory / name))
        if child is None:
            code = "import time\\nwhile True: time.sleep(0.001)"
            child = subprocess.Popen([sys.executable, "-c", code])
            import time
            time.sleep(0.2)
        strace.stop()
    strace.close()
    helper.close()
    child.kill()
    print(child.pid)
    """
    child = run(tmp_path, text, prologue=STAYS).strip()
    first, second = ((tmp_path / name / "strace.txt").read_text() for name in ("one", "two"))
    assert re.search(rf"^{child} ", first, re.MULTILINE)
    assert not re.search(rf"^{child} ", second, re.MULTILINE)


def test_what_a_test_does_is_on_the_disk_while_it_goes_on(tmp_path: Path) -> None:
    text = """
    import time
    strace.start(Recording("test_x.py::hangs", directory))
    posix.access("/made/by/it", 0)
    path, until = directory / "strace.txt", time.monotonic() + 20
    while "/made/by/it" not in path.read_text() and time.monotonic() < until:
        time.sleep(0.01)
    print(time.monotonic() < until)
    strace.stop()
    strace.close()
    helper.close()
    """
    assert run(tmp_path, text, prologue=STAYS).strip() == "True"


def test_marks_in_memory_stand_before_the_calls_that_they_are_about(tmp_path: Path) -> None:
    text = """
        import threading
        ended = threading.Event()
        def others():
            while not ended.is_set():
                posix.access("/other", 0)
        threads = [threading.Thread(target=others) for _ in range(2)]
        strace.start(recording)
        make = strace._make_mark
        assert strace._marking.memory is not None
        for thread in threads:
            thread.start()
        for number in range(300):
            make(f"/.eventlet-debug/greenlet/{number}/n\\u00fcmber".encode())
            posix.access(f"/call/{number}", 0)
        ended.set()
        for thread in threads:
            thread.join()
        for number in range(300, 30000):  # more than there is room for
            make(b"/.eventlet-debug/greenlet/%d/number" % number)
        posix.access("/call/29999", 0)
        elsewhere = threading.Thread(target=lambda: make(b"/.eventlet-debug/greenlet/1/elsewhere"))
        elsewhere.start()
        elsewhere.join()
        child = os.fork()
        make(b"/.eventlet-debug/greenlet/0/after")
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        strace.stop()
        print(os.getpid(), child)
    """
    pid, child = map(int, run(tmp_path, text).split())
    with open_log(tmp_path / "strace.txt") as log:
        lines = list(log)
    events = list(parse(lines))
    assert not [event for event in events if type(event) is Unparsed]
    calls = {
        int(event.args.split('"')[1].rpartition("/")[2]): event.greenthread
        for event in events
        if type(event) is Syscall and event.pid == pid and '"/call/' in event.args
    }
    assert calls == {number: f"{number}:nümber" for number in range(300)} | {29999: "29999:number"}
    found = re.findall(rf"^{pid} .*/greenlet/(\d+)/n", "".join(lines), re.MULTILINE)
    assert found == [str(number) for number in range(30000)]
    marked = re.findall(r"^(\d+) .*/(elsewhere|after)\"", "".join(lines), re.MULTILINE)
    assert sorted(who == str(pid) for who, name in marked if name == "after") == [False, True]
    assert {int(who) for who, name in marked if name == "after"} == {pid, child}
    (thread,) = (int(who) for who, name in marked if name == "elsewhere")
    assert thread != pid
