"""Greenthreads that hold the hub are told with their line, and healthy ones are not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
import re
import shutil
import subprocess
import sys

from needs import needs_strace
from programs import WITHOUT_PLUGINS
import pytest
from runs import assert_no_traceback_of_ours
from speed import depends_on_speed

from pytest_eventlet_debug.recordings.timeline import read_timeline

IS_COMPILED = importlib.util.find_spec("pytest_eventlet_debug.stalls._watcher") is not None

#: Somebody else who has something to do every 10 ms.
OTHERS = """
    import eventlet
    import pytest

    @pytest.fixture(autouse=True)
    def others(request):
        def tick():
            while True:
                eventlet.sleep(0.01)
        if "alone" in request.keywords:
            yield
            return
        greenthread = eventlet.spawn(tick)
        eventlet.sleep(0.02)
        yield
        greenthread.kill()
"""

STALLS = """
    import ctypes
    import fcntl
    import os
    import socket
    import subprocess
    import threading
    import time

    import eventlet
    from eventlet.hubs import get_hub
    from eventlet.patcher import original
    import pytest

    SECONDS = 0.15

    def held(function, *arguments):
        return eventlet.spawn(function, *arguments).wait()

    def test_sleep():
        held(time.sleep, SECONDS)

    def test_function():
        def fetch():
            time.sleep(SECONDS)  # HERE
        held(fetch)

    def test_native_code():
        def native():
            ctypes.CDLL(None).usleep(int(SECONDS * 1e6))  # HERE
        held(native)

    def test_native_code_that_keeps_the_gil():
        def native():
            ctypes.PyDLL(None).usleep(int(SECONDS * 1e6))  # HERE
        held(native)

    def test_python():
        def compute():
            end = time.thread_time() + SECONDS
            while time.thread_time() < end:  # HERE
                pass
        held(compute)

    def test_file(tmp_path):
        path = tmp_path / "fifo"
        os.mkfifo(path)
        writer = subprocess.Popen(["sh", "-c", f"sleep {SECONDS}; echo x > {path}"])
        def read():
            path.read_text()  # HERE
        held(read)
        writer.wait()

    def test_locked_file(tmp_path):
        path = tmp_path / "lock"
        path.touch()
        holder = subprocess.Popen(["flock", path, "sh", "-c", f"echo; sleep {SECONDS}"],
                                  stdout=subprocess.PIPE)
        holder.stdout.readline()
        def lock():
            with open(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX)  # HERE
        held(lock)
        holder.communicate()

    def test_child_process():
        def call():
            subprocess.Popen(["sleep", str(SECONDS)]).wait()  # HERE
        held(call)

    def test_output_of_a_child_process():
        def call():
            subprocess.run(["sleep", str(SECONDS)], capture_output=True)  # HERE
        held(call)

    def test_lock():
        lock = original("threading").Lock()
        lock.acquire()
        def acquire():
            lock.acquire(timeout=SECONDS)  # HERE
        held(acquire)

    def test_socket():
        one, other = socket.socketpair()
        one.settimeout(SECONDS)
        def receive():
            with pytest.raises(TimeoutError):
                one.recv(1)  # HERE
        held(receive)
        one.close(), other.close()

    def test_the_test_itself():
        time.sleep(SECONDS)  # HERE

    def test_fork():
        def fork():
            time.sleep(SECONDS)  # HERE
            names = [open(f"/proc/self/task/{each}/comm").read().strip()
                     for each in os.listdir("/proc/self/task")]
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
            assert "eventlet-debug" in names  # as children/evidence.py knows it
        held(fork)
        eventlet.sleep(1)

    @pytest.mark.alone
    def test_greenthread_that_is_to_begin():
        def begin():
            pass
        greenthread = eventlet.spawn(begin)
        time.sleep(SECONDS)  # HERE
        greenthread.wait()

    def test_call_of_the_hub():
        def call():
            time.sleep(SECONDS)  # HERE
        get_hub().schedule_call_global(0, call)
        eventlet.sleep(0.02)

    @pytest.mark.alone
    def test_ready_listener():
        one, other = map(eventlet.greenio.GreenSocket, socket.socketpair())
        reader = eventlet.spawn(one.recv, 1)
        eventlet.sleep(0)
        other.fd.send(b"x")
        time.sleep(SECONDS)  # HERE
        assert reader.wait() == b"x"
        one.close(), other.close()
"""

HEALTHY = """
    import os
    import signal
    import subprocess
    import time
    import warnings

    import eventlet
    import pytest

    @pytest.mark.eventlet_blocks
    def test_allowed():
        time.sleep(0.15)

    @pytest.mark.eventlet_blocks(0.4)
    def test_allowed_for_so_long():
        time.sleep(0.15)

    def test_idle():
        eventlet.sleep(0.3)

    @pytest.mark.alone
    def test_with_nobody_else():
        time.sleep(0.15)

    @pytest.mark.alone
    def test_with_others_that_have_nothing_to_do():
        greenthread = eventlet.spawn(eventlet.sleep, 60)
        eventlet.sleep(0)
        time.sleep(0.15)
        greenthread.kill()

    @pytest.mark.alone
    def test_leaves_a_timer():
        eventlet.spawn_after(0.01, lambda: None)

    @pytest.mark.alone
    def test_that_does_not_use_eventlet():
        time.sleep(0.15)

    # On a busy machine, the start of a process alone takes longer than 0.1 s.
    @pytest.mark.eventlet_blocks(1)
    def test_stopped():
        # Stopped as by Ctrl-Z while a greenthread has just begun to run.
        pid = os.getpid()
        subprocess.Popen(["sh", "-c", f"kill -STOP {pid}; sleep 1.5; kill -CONT {pid}"]).wait()

    def test_switching():
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            eventlet.sleep(0)

    def test_nothing_of_it_shows():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", "Using fork")
            pid = os.fork()
        if pid == 0:
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
"""


def blocked(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the tests of the present directory, with somebody else in each."""
    pytester.makeconftest(OTHERS)
    pytester.makeini("[pytest]\nmarkers = alone\n")
    return pytester.runpytest("-q", "--eventlet-blocked", *WITHOUT_PLUGINS.split(), *arguments)


def found(directory: Path) -> dict[str, list[str]]:
    """Return the titles of the findings of each test."""
    titles: dict[str, list[str]] = {}
    for path in directory.glob("eventlet-debug/*/findings.json"):
        for finding in json.loads(path.read_text())["findings"]:
            assert finding["kind"] == "stall", finding
            titles.setdefault(finding["nodeid"].partition("::")[2], []).append(finding["title"])
    return titles


def lines_here(path: Path) -> dict[str, str]:
    """Return the places that are marked in a test file, by test."""
    places: dict[str, str] = {}
    test = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        test = match[1] if (match := re.match(r"def (test_\w+)", line)) else test
        if line.endswith("# HERE"):
            places[test] = f"{path.name}:{number} in"
    return places


@depends_on_speed
@pytest.mark.skipif(not IS_COMPILED, reason="the watcher in C is not compiled")
def test_a_stall_is_told_with_its_line_whatever_it_waits_in(pytester: pytest.Pytester) -> None:
    path = pytester.makepyfile(test_stalls=STALLS)
    # On a busy machine the watcher wakes late: 0.05 s leaves it a tenth of a second for that.
    result = blocked(pytester, "--eventlet-blocked=0.05", "--eventlet-hub=epolls,asyncio")
    result.assert_outcomes(passed=32)
    titles, places = found(pytester.path), lines_here(path)
    assert len(places) == 15
    places["test_sleep"] = "eventlet/greenthread.py"  # there is no frame but eventlet's own
    the_test = ("test_the_test_itself", "test_ready_listener", "test_greenthread_that_is_to_begin")
    who = {"test_call_of_the_hub": "a call that the hub made", "test_sleep": "a greenthread"}
    who |= dict.fromkeys(the_test, "the test")
    for hub in ("epolls", "asyncio"):
        for test, place in places.items():
            (title,) = (each for each in titles[f"{test}[{hub}]"] if place in each)
            # After a fork there is no thread to watch, and what goes on after it is no stall.
            most = 1 if test == "test_fork" else 5
            assert 0.05 < float(re.search(r"for ([\d.]+) s", title)[1]) < most  # type: ignore[index]
            # Up to Python 3.10 code does not know which function it is nested in.
            assert title.startswith(who.get(test, "greenthread "))
            waits = {"test_ready_listener": " ready", the_test[2]: ".begin was to start"}
            assert waits.get(test, " due") in title


def test_who_may_block_or_harms_nobody_is_not_told(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_healthy=HEALTHY)
    result = blocked(pytester, "--eventlet-hub=epolls,asyncio", "-rA")
    result.assert_outcomes(passed=20)
    assert not found(pytester.path)


@pytest.mark.parametrize("seconds", ["1e12", "1e300", "float('inf')"])
def test_a_marker_may_have_any_large_number(pytester: pytest.Pytester, seconds: str) -> None:
    pytester.makepyfile(
        test_x=f"""
        import time
        import eventlet
        import pytest

        @pytest.mark.eventlet_blocks({seconds})
        def test_holds_the_hub():
            eventlet.spawn(time.sleep, 0.3)
            eventlet.spawn_after(0.01, int)
            eventlet.sleep(0)
        """
    )
    blocked(pytester).assert_outcomes(passed=1)
    assert not found(pytester.path)


def test_a_marker_that_cannot_be_used_is_named_in_one_line(pytester: pytest.Pytester) -> None:
    markers = ("'abc'", "[1]", "1, 2", "second=2", "float('nan')", "seconds=1", "None")
    tests = (
        f"@pytest.mark.eventlet_blocks({marker})\ndef test_{number}(): pass\n"
        for number, marker in enumerate(markers)
    )
    pytester.makepyfile(test_x="import pytest\n" + "".join(tests))
    result = blocked(pytester)
    result.assert_outcomes(passed=2, errors=5)
    must = "marker eventlet_blocks: must have a number of seconds, or nothing, not "
    said = [line.removeprefix(must) for line in result.outlines if line.startswith(must)]
    assert said == ["'abc'", "[1]", "1, 2", "second=2", "nan"]
    assert_no_traceback_of_ours(result.stdout.str())
    result.stdout.no_fnmatch_line("*full-trace*")


@pytest.mark.parametrize("compiled", [True, False])
def test_a_loop_of_asyncio_holds_up_only_what_its_own_test_left(
    pytester: pytest.Pytester, compiled: bool
) -> None:
    pytester.makepyfile(
        test_x=f"""
        import sys
        if not {compiled}:
            sys.modules["pytest_eventlet_debug.stalls._watcher"] = None
        import asyncio
        import eventlet
        import pytest

        pytestmark = pytest.mark.alone

        def test_leaves_a_timer():
            eventlet.spawn_after(0.01, int)

        def test_without_eventlet():
            asyncio.run(asyncio.sleep(0.5))

        def test_with_eventlet():
            greenthread = eventlet.spawn_after(0.01, int)
            asyncio.run(asyncio.sleep(0.5))  # HERE
            greenthread.wait()
        """
    )
    blocked(pytester, "--eventlet-hub=epolls").assert_outcomes(passed=3)
    ((test, (title,)),) = found(pytester.path).items()
    assert test == "test_with_eventlet[epolls]"
    if compiled and IS_COMPILED:
        assert lines_here(pytester.path / "test_x.py")["test_with_eventlet"] in title


@pytest.mark.parametrize("compiled", [True, False])
def test_stalls_fail_tests_on_wish_and_are_noticed_without_the_watcher_in_c(
    pytester: pytest.Pytester, compiled: bool
) -> None:
    pytester.makepyfile(
        test_x="""
        import sys
        import time
        import eventlet
        from tests_of_ours import hide

        def test_stall():
            def fetch():
                time.sleep(0.5)
                eventlet.sleep(0)
            eventlet.spawn(fetch).wait()

        def begun():
            pass

        def test_failure():
            eventlet.spawn(begun)
            time.sleep(0.5)
            assert not "failed"

        def test_healthy():
            eventlet.sleep(0.5)
        """,
        tests_of_ours=(
            "import sys\nhide = None\n"
            + ("" if compiled else "sys.modules['pytest_eventlet_debug.stalls._watcher'] = None")
        ),
    )
    result = blocked(pytester, "--eventlet-blocked-fail")
    result.assert_outcomes(passed=2, failed=1, errors=2)
    text = result.stdout.str()
    assert "Hub held" in text
    if compiled and IS_COMPILED:
        result.stdout.fnmatch_lines(["*greenthread *fetch held the hub for * at test_x.py:8 in *"])
    else:
        result.stdout.fnmatch_lines(
            ["*held the hub for * before it switched at eventlet/*, called from test_x.py:9 in *"]
        )
    result.stdout.fnmatch_lines(["*the test held the hub for *, while begun was to start*"])
    assert not result.stdout.no_fnmatch_line("*test_healthy*held*")


@needs_strace
def test_a_stall_and_its_system_call_are_one_finding(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import os
        import subprocess
        import eventlet
        import pytest

        turns = []

        def tick():
            while True:
                turns.append(1)
                eventlet.sleep(0.01)

        # Until the child runs, nobody else has anything to do: on a busy machine its start alone
        # would be a stall. It begins to sleep when it is asked to.
        @pytest.mark.alone
        def test_pipe():
            sleep = ["sh", "-c", "read word; sleep 0.4"]
            child = subprocess.Popen(sleep, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            other = eventlet.spawn(tick)
            while len(turns) < 3:  # who has run once only is not known to have been held up
                eventlet.sleep(0.01)
            def read():
                os.write(child.stdin.fileno(), b"now\\n")
                os.read(child.stdout.fileno(), 1)  # HERE
            eventlet.spawn(read).wait()
            other.kill()
            child.communicate()
        """
    )
    (line,) = lines_here(next(pytester.path.glob("test_*.py"))).values()
    blocked(pytester, "--strace").assert_outcomes(passed=1)
    ((title,),) = found(pytester.path).values()
    assert re.search(rf"at {line} \S+, while 1 timer was due: in read\(\d+<pipe", title)
    # The thread that watched is in strace's file, and left out of what is made of it.
    (trace,) = pytester.path.glob("eventlet-debug/*/strace.txt")
    (own,) = set(re.findall(r"/\.eventlet-debug/watcher/(\d+)", trace.read_text(), re.MULTILINE))
    pids = {row.pid for row in read_timeline(trace.parent).rows}
    assert pids
    assert int(own) not in pids


def resolver() -> list[str] | None:
    """Return a command that runs others where a name server takes long, if that works here."""
    apart = ["unshare", "--mount", "--net"]
    if shutil.which("unshare") is None:
        return None
    tried = subprocess.run([*apart, "ip", "link", "set", "lo", "up"], capture_output=True)
    return apart if tried.returncode == 0 else None


@pytest.mark.skipif(resolver() is None, reason="needs the right to have a network of its own")
def test_a_name_that_is_looked_up_in_the_hub_is_a_stall(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(OTHERS)
    pytester.makeini("[pytest]\nmarkers = alone\n")
    pytester.makepyfile(
        """
        import socket
        import threading
        import time
        import eventlet

        def test_name():
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind(("127.0.0.1", 53))
            def serve():
                for _ in range(2):
                    query, client = server.recvfrom(512)
                    time.sleep(0.5)  # longer than a busy machine may overlook
                    server.sendto(query[:2] + bytes([0x81, 0x83]) + query[4:], client)
            threading.Thread(target=serve, daemon=True).start()
            def look_up():
                try:
                    socket.getaddrinfo("example.test.", 80, socket.AF_INET)  # HERE
                except OSError:
                    pass
            eventlet.spawn(look_up).wait()
        """
    )
    command = (
        "ip link set lo up; echo nameserver 127.0.0.1 > resolv.conf; "
        'mount --bind resolv.conf /etc/resolv.conf; exec "$@"'
    )
    pytest_call = ["python", "-m", "pytest", "-q", "--eventlet-blocked"]
    words = [*(resolver() or []), "sh", "-c", command, "sh", *pytest_call]
    words += WITHOUT_PLUGINS.split()
    words[words.index("python")] = sys.executable
    pytester.run(*words).assert_outcomes(passed=1)
    ((title,),) = found(pytester.path).values()
    assert "called from test_a_name" in title or ":18 in" in title
