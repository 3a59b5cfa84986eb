"""Lines of Python in a trace: the right ones, and out of the test's sight."""

from __future__ import annotations

from collections import Counter
import json
import os
from pathlib import Path
import pstats
import re
import subprocess
import sys
import sysconfig

from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.story import is_runners
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.tracers import lines

pytest.importorskip("pytest_eventlet_debug.profiling._native")
pytestmark = needs_strace

SUITE = """
import os, socket, sys, time
import eventlet

def serve(listener):
    connection, _ = listener.accept()
    connection.sendall(connection.recv(10))
    connection.close()

def test_echo():
    listener = eventlet.listen(("127.0.0.1", 0))
    server = eventlet.spawn(serve, listener)
    client = eventlet.connect(listener.getsockname())
    client.sendall(b"hello")
    assert client.recv(10) == b"hello"
    server.wait()
    listener.close()
    client.close()

def twice(write, data):
    return write(data)  # first of Python, then of C

def nothing(data):
    return len(data)

class Writer:
    def __init__(self, fd):
        self.fd = fd
    def write(self, data):
        return os.write(self.fd, data)

def duck(writer):
    writer.write(b"duck")

def test_places():
    ours, theirs = socket.socketpair()
    for _ in range(3):
        twice(nothing, b"x")
    twice(ours.send, b"by name")
    duck(Writer(ours.fileno()))
    with open(ours.fileno(), "wb", buffering=0, closefd=False) as file:
        duck(file)
    for _ in range(50):
        os.stat("/")
    socket.getaddrinfo("127.0.0.1", 80)  # the resolver's sockets are this line's, others are not
    socket.socket().close()
    import wave  # nobody has it yet
    kept = bytearray(1 << 22)  # the allocator's call is no line's
    del kept
    ours.close()
    theirs.close()

def accept_for_long(listener):
    turns, until = 0, time.time() + 0.4
    while time.time() < until or turns < 1000:  # a busy machine may leave little of that time
        turns += 1
        try:
            listener.fd.accept()
        except OSError:
            eventlet.sleep(0)

def test_storm():
    listener = eventlet.listen(("127.0.0.1", 0))
    listener.fd.close()
    eventlet.spawn(accept_for_long, listener).wait()

def test_profilers_of_its_own():
    seen = []
    def profiler(frame, event, argument):
        seen.append(event)
    before = sys.getprofile()
    sys.setprofile(before)  # as a library puts back what it found
    os.stat("/dev")
    sys.setprofile(profiler)
    os.stat("/proc")
    sys.setprofile(before)
    os.stat("/etc")
    assert "c_call" in seen
    for number in (0, 1, 2, 3):
        if sys.version_info >= (3, 12):
            sys.monitoring.use_tool_id(number, "mine")
            sys.monitoring.free_tool_id(number)

def test_after():
    os.stat("/usr")
"""


def calls(pytester: pytest.Pytester, test: str) -> list[Syscall]:
    (trace,) = (pytester.path / "art").glob(f"*{test}*/strace.txt")
    with open_log(trace) as log:
        return [event for event in parse(log) if isinstance(event, Syscall)]


def line(part: str) -> int:
    """Return the number of the line that holds a part, in the file that is run."""
    return next(n for n, text in enumerate(SUITE.strip().splitlines(), 1) if part in text)


def test_each_call_says_which_line_made_it_and_no_test_notices(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_lines=SUITE)
    result = pytester.runpytest(
        "--strace", "--cprofile", "--eventlet-hub=epolls", "--eventlet-artifacts=art", "-Wignore"
    )
    result.assert_outcomes(passed=5)

    made = {(call.name, call.at) for call in calls(pytester, "test_echo")}
    lines = {(name, re.sub(r".*, from |\S+/", "", at)) for name, at in made if at is not None}
    serve = line("connection.sendall")
    assert {
        ("accept4", f"test_lines.py:{line('listener.accept')} in serve"),
        ("recvfrom", f"test_lines.py:{serve} in serve"),
        ("sendto", f"test_lines.py:{serve} in serve"),
        ("sendto", f"test_lines.py:{line('client.sendall')} in test_echo"),
        ("close", f"test_lines.py:{line('client.close')} in test_echo"),
        ("epoll_wait", "epolls.py:31 in do_poll"),
    } <= lines

    places = calls(pytester, "test_places")
    writes = [(call.at, call.args) for call in places if call.name in ("sendto", "write")]
    assert any(
        at == f"test_lines.py:{line('return write')} in twice" and "by name" in args
        for at, args in writes
    )
    at_duck = [at for at, args in writes if '"duck"' in args]
    assert at_duck == [
        f"test_lines.py:{line('return os.write')} in write",
        f"test_lines.py:{line('writer.write')} in duck",
    ]
    stats = Counter(call.at for call in places if '"/"' in call.args)
    assert stats == {f"test_lines.py:{line('os.stat(')} in test_places": 50}
    (made,) = (call for call in places if call.name == "socket" and "SOCK_STREAM" in call.args)
    assert made.at is not None
    assert made.at.endswith(f":{line('socket.socket()')} in test_places")
    importing = {call.at for call in places if call.name == "openat" and "/wave" in call.args}
    assert importing == {f"test_lines.py:{line('import wave')} in test_places (import)"}
    assert all(call.at is None for call in places if call.name in ("mmap", "munmap", "brk"))
    (trace,) = (pytester.path / "art").glob("*test_places*/strace.txt")
    assert trace.read_text().count("posix.stat/test_lines.py") == 1

    (storms,) = (pytester.path / "art").glob("*test_storm*")
    found = findings_file.read(storms)
    assert found is not None
    at = rf"in accept, from test_lines\.py:{line('listener.fd.accept')} in accept_for_long by "
    assert any(re.search(at, each.title) for each in found.findings if each.kind == "storm")

    own = {
        call.args.split('"')[1]: call.at
        for call in calls(pytester, "profilers_of_its_own")
        if '"/dev"' in call.args or '"/etc"' in call.args
    }
    assert own == {
        "/dev": f"test_lines.py:{line('/dev')} in test_profilers_of_its_own",
        "/etc": f"test_lines.py:{line('/etc')} in test_profilers_of_its_own",
    }
    assert [call.at for call in calls(pytester, "test_after") if '"/usr"' in call.args] == [
        f"test_lines.py:{line('/usr')} in test_after"
    ]

    # Both listen to the same calls, up to Python 3.11 in the same place.
    (profile,) = (pytester.path / "art").glob("*test_echo*/profile.cprof")
    entries = pstats.Stats(str(profile)).stats  # type: ignore[attr-defined]
    (callers,) = (entry[4] for function, entry in entries.items() if function[2] == "serve")
    assert [caller[2].partition(" ")[0] for caller in callers] == ["main"]
    (facts,) = (pytester.path / "art").glob("*test_echo*/profile.json")
    assert json.loads(facts.read_text())["incomplete"] == ""


@pytest.mark.parametrize(
    "options",
    [
        ["--strace-lines=off"],
        pytest.param(
            ["--cprofile", "--cprofile-engine=plain"],
            marks=pytest.mark.skipif(sys.version_info >= (3, 12), reason="there are many places"),
        ),
    ],
)
def test_nothing_is_marked_where_it_is_not_wanted_or_would_be_in_the_way(
    pytester: pytest.Pytester, options: list[str]
) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_stat():
            assert "_native" not in str(sys.getprofile())
            open("/etc/passwd").close()
        """
    )
    result = pytester.runpytest("--strace", "--eventlet-artifacts=art", *options)
    result.assert_outcomes(passed=1)
    trace = next(Path(pytester.path, "art").glob("*/strace.txt")).read_text()
    assert "/etc/passwd" in trace
    assert "/.eventlet-debug/line/" not in trace


def test_what_pytest_does_around_a_phase_is_told_from_the_tests_own(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        """
        import ctypes

        import pytest

        libc = ctypes.CDLL(None)

        @pytest.fixture
        def numbers():
            libc.dup2(2, 91)  # of which nothing says which line makes it
            yield
            libc.dup2(2, 93)

        def test_dup(numbers):
            libc.dup2(2, 92)
            libc.dup2(2, 92)
        """
    )
    done = pytester.runpytest_subprocess("--strace", "--capture=fd", "--eventlet-artifacts=art")
    done.assert_outcomes(passed=1)
    made = [call for call in calls(pytester, "test_dup") if call.name.startswith("dup")]
    own = [call for call in made if "</" in call.args and re.search(r", 9\d", call.args)]
    assert len(own) == 4
    assert {call.at for call in own} == {None}
    others = [call for call in made if call not in own]
    assert len(others) >= 12  # output is captured, and is not, in each phase
    assert all(is_runners(f"{call.name}({call.args}", call.at) for call in others)
    assert not any(is_runners(f"{call.name}({call.args}", call.at) for call in own)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no sys.monitoring")
def test_between_two_tests_python_goes_on_telling_of_calls_and_after_the_last_no_more(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeconftest(
        """
        import sys

        def tell(when):
            tools = [sys.monitoring.get_tool(number) for number in range(6)]
            print(when, "lines" in str(tools))

        def pytest_runtest_logfinish(nodeid):
            tell(nodeid.partition("::")[2])

        def pytest_sessionfinish():
            tell("end")
        """
    )
    pytester.makepyfile(
        test_x="""
        import os

        def test_a(): os.listdir("/usr")

        def test_b(): os.listdir("/usr")

        def test_c(): os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "0.3")  # strace is ended with it

        def test_d(): os.listdir("/usr")
        """
    )
    result = pytester.runpytest("--strace", "--eventlet-artifacts=art", "-s")
    result.assert_outcomes(passed=4)
    told = [each for each in result.outlines if each.endswith((" True", " False"))]
    assert [each.rpartition(".")[2] for each in told] == [
        "test_a True",
        "test_b True",
        "test_c False",
        "test_d True",
        "end False",
    ]
    for test in ("test_a", "test_b", "test_d"):
        places = {each.at for each in calls(pytester, test) if each.name == "openat"}
        assert any(place is not None and place.endswith(f" in {test}") for place in places)


def test_whose_code_it_is_goes_by_where_python_installs_things(tmp_path: Path) -> None:
    whose = {prefix: own for prefix, _, own in lines._places(tmp_path)}
    assert whose[os.path.join(tmp_path, "")] is True
    for name in ("stdlib", "purelib", "platlib", "scripts"):
        assert whose[os.path.join(sysconfig.get_path(name), "")] is False


def test_how_python_was_built_is_not_read_for_that() -> None:
    program = (
        "import sys; from pathlib import Path; before = set(sys.modules)\n"
        "from pytest_eventlet_debug.tracers.lines import LineMarks; LineMarks(Path('/'))\n"
        "print([name for name in set(sys.modules) - before if 'sysconfig' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
