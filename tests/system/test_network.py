"""A network and process ids of the run's own, for root and for an ordinary user."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import errno
from importlib.util import find_spec
import os
from pathlib import Path
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time

from needs import needs_strace
from programs import TAKES_MEMORY
from programs import WITHOUT_PLUGINS
import pytest
from runs import failure_of

from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.system import network as isolation

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="becoming an ordinary user needs Linux, root and setpriv",
)

USER = 54321
BOTH = "--eventlet-hub=epolls,asyncio"

#: One hub in a process of its own; longer than a busy machine takes to start a pytest.
CHILD = ("--eventlet-hub=epolls", "--eventlet-timeout=60")

TESTS = """
    import os
    import socket

    import pytest

    def test_rights():
        with open("/proc/thread-self/status") as file:
            status = dict(line.split(":", 1) for line in file)
        assert os.getuid() == os.geteuid() == os.getgid() == 54321
        held = [int(status[kind], 16) for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb")]
        assert held == [0, 0, 0, 0]
        assert [name for _, name in socket.if_nameindex()] == ["lo"]
        with socket.socket() as server, pytest.raises(PermissionError):
            server.bind(("127.0.0.1", 80))

    @pytest.mark.parametrize("number", range(3))
    def test_echo(number):
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()) as client:
                served, _ = server.accept()
                with served:
                    client.sendall(b"ping")
                    assert served.recv(9) == b"ping"
"""


class User:
    """Runs pytest as root, or as a user without any right.

    Where that user cannot reach the interpreter, below /root perhaps, it is put there for it, in
    a mount namespace that ends with the run.

    :param masks: whether a part of /proc is covered, as containers do it.
    """

    def __init__(self, home: Path, uid: int) -> None:
        self.home = home
        self.uid = uid
        self.masks = False
        self.prefix = (
            []
            if uid == 0
            else [
                *("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
                *("--inh-caps=-all", "--bounding-set=-all"),
            ]
        )
        # The coverage of a run by root lies where others cannot write.
        kept = {name: text for name, text in os.environ.items() if not name.startswith("COVERAGE_")}
        self.environment = {
            **(kept if uid else os.environ),
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PYTEST_ADDOPTS": WITHOUT_PLUGINS,
        }

    def command(self, *arguments: str) -> list[str]:
        words = [*self.prefix, sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        words += ["-W", "ignore", f"--basetemp={self.home / 'tmp'}", *arguments]
        steps = ["mount -t tmpfs none /proc/fs"] if self.masks else []
        if self.uid:
            steps += self._open()
        if not steps:
            return words
        script = " && ".join([*steps, 'exec "$@"'])
        return ["unshare", "--mount", "sh", "-c", script, "sh", *words]

    def _open(self) -> list[str]:
        """Return what puts other directories in the place of those that are closed to the user."""
        kept: dict[Path, Path] = {}
        closed: set[Path] = set()
        for path in {Path(sys.base_prefix), Path(sys.prefix), ROOT}:
            above = [each for each in path.parents if not each.stat().st_mode & 1]
            if above:
                closed.add(above[-1])
                kept[path] = self.home.parent / f"kept-{len(kept)}"
                kept[path].mkdir(exist_ok=True)
        return [
            *(f"mount --bind {path} {keep}" for path, keep in kept.items()),
            *(f"mount -t tmpfs -o mode=755 none {path}" for path in closed),
            *(f"mkdir -p {path} && mount --bind {keep} {path}" for path, keep in kept.items()),
            f"cd {self.home}",
        ]

    def write(self, text: str) -> None:
        (self.home / "test_net.py").write_text(textwrap.dedent(text))

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.home,
            env=self.environment,
            capture_output=True,
            text=True,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a run in a session of its own."""
        return subprocess.Popen(
            self.command(*arguments),
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def recorded(self, name: str, test: str = "") -> list[bytes]:
        """Return what the files of a name hold that the recordings of tests consist of."""
        found = sorted((self.home / "eventlet-debug").glob(f"*{test}*/{name}"))
        return [path.read_bytes() for path in found]


@pytest.fixture
def home() -> Iterator[Path]:
    # Not below pytest's own directory, which every run of root's closes to others.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        home = Path(directory, "home")
        home.mkdir()
        (home / "test_net.py").write_text(textwrap.dedent(TESTS))
        (home / "pytest.ini").write_text("[pytest]\n")
        yield home


@pytest.fixture
def ordinary(home: Path) -> User:
    os.chown(home, USER, USER)
    user = User(home, USER)
    allowed = subprocess.run(
        [*user.prefix, "unshare", "--user", "--net", "true"], capture_output=True
    )
    if allowed.returncode:
        pytest.skip("user namespaces are not allowed here")
    return user


@pytest.fixture(params=["root", "ordinary"])
def user(request: pytest.FixtureRequest, home: Path) -> User:
    """Return root, or an ordinary user, where the kernel allows them a /proc of their own."""
    ordinary: User = request.getfixturevalue("ordinary") if request.param == "ordinary" else None
    user = ordinary or User(home, 0)
    unshare = ["unshare", *(["--user"] if user.uid else []), "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*user.prefix, *unshare, "true"], capture_output=True).returncode:
        pytest.skip("a /proc of its own is not allowed here")
    return user


@needs_strace
@pytest.mark.parametrize(
    "arguments",
    [[], [BOTH], ["-n2"], [BOTH, "-n2"]],
    ids=["one hub", "two hubs", "xdist", "two hubs and xdist"],
)
def test_an_ordinary_user_records_without_any_right(ordinary: User, arguments: list[str]) -> None:
    done = ordinary.run("--eventlet-isolate", "--strace", "--pcap", *arguments)
    count = 8 if BOTH in arguments else 4
    assert f"{count} passed" in done.stdout, done.stdout + done.stderr
    captures = ordinary.recorded("capture.pcapng", "test_echo")
    assert len(captures) == count * 3 // 4
    for raw in captures:
        assert b"sent by sendto(fd " in raw
        assert b"0 packets of other programs are left out" in raw


@pytest.mark.parametrize(
    "arguments",
    [["-nauto", "--pdb"], ["-n0"], ["-n2", "--collect-only"], ["-d", "--tx=2*popen"]],
    ids=["pdb", "no worker", "collecting", "tx"],
)
def test_no_process_that_runs_tests_keeps_a_right_however_workers_are_asked_for(
    ordinary: User, arguments: list[str]
) -> None:
    (ordinary.home / "conftest.py").write_text(textwrap.dedent(NO_RIGHTS))
    done = ordinary.run("--eventlet-isolate", "-k", "rights", "--max-worker-restart=1", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert ("1 passed" in done.stdout) == ("--collect-only" not in arguments)


def test_rights_kept_for_workers_go_where_there_turn_out_to_be_none(
    ordinary: User,
) -> None:
    ordinary.environment["PYTEST_XDIST_AUTO_NUM_WORKERS"] = "0"
    done = ordinary.run("--eventlet-isolate", "-nauto", "-k", "rights")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_workers_that_nobody_could_foresee_are_a_usage_error(ordinary: User) -> None:
    (ordinary.home / "conftest.py").write_text(
        "def pytest_cmdline_main(config):\n"
        "    config.option.dist, config.option.tx = 'load', ['popen']\n"
    )
    done = ordinary.run("--eventlet-isolate")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "pytest-xdist was switched on too late" in done.stderr
    assert "use -n on the command line" in done.stderr


def test_workers_have_a_network_each(ordinary: User) -> None:
    (ordinary.home / "test_net.py").write_text(
        "import os\n"
        "import pytest\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        "def test_network(number):\n"
        "    with open('networks', 'a') as file:\n"
        "        print(os.environ['PYTEST_XDIST_WORKER'],\n"
        "              os.readlink('/proc/thread-self/ns/net'), file=file)\n"
    )
    done = ordinary.run("--eventlet-isolate", "-n2", "--dist=each")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = set((ordinary.home / "networks").read_text().splitlines())
    assert len(seen) == len({line.split()[0] for line in seen}) == 2
    assert len({line.split()[1] for line in seen}) == 2
    assert not any(os.readlink("/proc/self/ns/net") in line for line in seen)


@pytest.mark.fault("no-right-to-capture")
def test_without_it_an_ordinary_user_is_told_what_is_missing(ordinary: User) -> None:
    done = ordinary.run("--pcap")
    assert "CAP_NET_RAW" in done.stderr
    assert "--eventlet-isolate" in done.stderr


NO_RIGHTS = """
    def pytest_collection_finish(session):
        if session.config.pluginmanager.hasplugin("dsession"):
            return  # starts workers, and runs no test
        with open("/proc/thread-self/status") as file:
            held = [line.split()[1] for line in file if line.startswith("CapEff")]
        assert held == ["0000000000000000"], held
"""

THREAD = """
    import threading

    started = threading.Event()
    threading.Thread(target=started.wait, daemon=True).start()
"""


def test_a_process_with_threads_is_told_so_in_one_line(ordinary: User) -> None:
    (ordinary.home / "with_thread.py").write_text(textwrap.dedent(THREAD))
    done = ordinary.run("-p", "with_thread", "--eventlet-isolate")
    assert done.returncode == 4
    assert done.stderr.count("\n") <= 2
    assert "has several threads already (" in done.stderr


@pytest.mark.parametrize(
    ("number", "uid", "words"),
    [
        (errno.ENOSPC, 1000, "sysctl user.max_user_namespaces=10000"),
        (errno.EPERM, 1000, "run as root"),
        (errno.EPERM, 0, "run as another user, or with --cap-add=SYS_ADMIN"),
        (errno.ENOSYS, 1000, "run as root on Linux, or without --eventlet-isolate"),
    ],
)
def test_each_cause_has_its_remedy(
    number: int, uid: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "_IS_ROOT", uid == 0)
    line = isolation.explain(OSError(number, os.strerror(number)))
    assert line.startswith("--eventlet-isolate cannot give the tests a network of their own: ")
    assert words in line
    assert "\n" not in line


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="giving up capabilities needs root and setpriv",
)
def test_root_without_capabilities_is_not_advised_to_run_as_root() -> None:
    code = "from pytest_eventlet_debug.system import network; network.check()"
    done = subprocess.run(
        ["setpriv", "--bounding-set=-all", "--inh-caps=-all", sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if "sysctl" in done.stderr or "seccomp" in done.stderr:
        pytest.skip("user namespaces are forbidden here, whatever the capabilities")
    assert done.stderr.endswith("run as another user, or with --cap-add=SYS_ADMIN\n"), done.stderr


def test_root_needs_no_user_namespace(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(
        """
        import os
        import socket

        def test_network():
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
            assert os.readlink("/proc/self/ns/user") == os.environ["THEIRS"]
            with socket.create_server(("127.0.0.1", 80)) as server:
                socket.create_connection(server.getsockname()).close()
        """
    )
    monkeypatch.setenv("THEIRS", os.readlink("/proc/self/ns/user"))
    done = pytester.runpytest("--eventlet-isolate", "--pcap")
    done.assert_outcomes(passed=1)
    done.stdout.fnmatch_lines(["*isolated network*"])
    (path,) = (pytester.path / "eventlet-debug").glob("*/capture.pcapng")
    captured = [block for block in pcapng.read(path) if isinstance(block, pcapng.Packet)]
    assert len(captured) >= 3


# -- process ids of the run's own


PIDS = """
    import os
    import psutil

    def rights(pid):
        with open(f"/proc/{pid}/status") as file:
            return [line for line in file if line.startswith("Cap")]

    def test_pids(eventlet_hub):
        assert (os.getpid(), os.getppid(), os.getpgrp()) == (2, 1, 2)
        shown = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
        assert shown == psutil.pids()
        assert shown[:2] == [1, 2]
        assert shown[2:] < [100]  # the helper
        assert psutil.Process().children(recursive=True) == []
        assert os.readlink("/proc/self") == "2"
        assert rights(1) == rights(2)
"""


def test_pids_are_small_and_nobody_elses(user: User) -> None:
    user.write(PIDS)
    done = user.run("--eventlet-isolate", BOTH)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "; isolated network and pids" in done.stdout


def test_where_a_part_of_proc_is_covered_the_network_alone_is_isolated(ordinary: User) -> None:
    ordinary.masks = True
    ordinary.write(
        """
        import os, socket
        import psutil

        def test_network(eventlet_hub):
            assert [name for _, name in socket.if_nameindex()] == ["lo"]
            # /proc and the process ids belong together.
            assert os.readlink("/proc/self") == str(os.getpid())
            assert os.getpid() > 2
            assert psutil.pid_exists(os.getppid())
        """
    )
    done = ordinary.run("--eventlet-isolate", "--pcap", BOTH)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "; isolated network;" in done.stdout


ENDS = """
    import os, signal, socket
    import pytest

    DEEDS = {deeds}

    @pytest.mark.parametrize("number", range(len(DEEDS)))
    def test_ends(eventlet_hub, number):
        assert os.getpid() == 2
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname()).sendall(b"ping")
        print("to stdout", flush=True)
        os.write(2, b"last words\\n")
        exec(DEEDS[number])

    def test_rest(): pass
"""


def test_a_process_that_ends_in_a_test_ends_as_without(user: User) -> None:
    ends = {
        "os.kill(os.getpid(), signal.SIGSEGV)": "killed by SIGSEGV",
        "os.kill(os.getpid(), signal.SIGTERM)": "killed by SIGTERM",
        "os.killpg(0, signal.SIGKILL)": "killed by SIGKILL",
        "os._exit(3)": "ended with exit status 3",
    }
    # What stands in for init is out of reach.
    harmless = "os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGTERM)"
    user.write(ENDS.format(deeds=[*ends, harmless]))
    done = user.run("--eventlet-isolate", *CHILD)
    assert "4 failed, 2 passed" in done.stdout, done.stdout
    for number, says in enumerate(ends.values()):
        shown = failure_of(f"test_ends[{number}-epolls]", done.stdout.splitlines())
        captured = ["Captured stdout:", "  to stdout", "", "Captured stderr:", "  last words"]
        assert (shown[0], shown[-5:]) == (says, captured)


@needs_strace
def test_the_recording_of_a_test_that_ends_its_process_is_completed(user: User) -> None:
    user.write(ENDS.format(deeds=["os._exit(3)"]))
    done = user.run("--eventlet-isolate", "--strace", "--pcap", *CHILD)
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    # The run does not wait for it.
    deadline = time.monotonic() + 30
    while not user.recorded("findings.json", "test_ends"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert b"ping" in user.recorded("strace.txt", "test_ends")[0]
    assert b"sent by sendto(fd " in user.recorded("capture.pcapng", "test_ends")[0]


@needs_strace
@pytest.mark.parametrize("workers", [[], ["-n2"]], ids=["alone", "xdist"])
def test_a_recording_has_the_pids_that_the_test_has(user: User, workers: list[str]) -> None:
    user.write(
        """
        import os, socket
        import pytest

        @pytest.mark.parametrize("number", range(2))
        def test_echo(number):
            with open(f"pid-{os.getpid()}", "w"):
                pass
            with socket.create_server(("127.0.0.1", 0)) as server:
                with socket.create_connection(server.getsockname()) as client:
                    client.sendall(b"ping")
        """
    )
    done = user.run("--eventlet-isolate", "--strace", "--pcap", BOTH, *workers)
    assert "4 passed" in done.stdout, done.stdout + done.stderr
    traces = user.recorded("strace.txt")
    assert len(traces) == 4
    for trace in traces:
        traced = {line.split()[0] for line in trace.splitlines()}
        (pid,) = (pid for pid in traced if b'pid-%s"' % pid in trace)
        assert int(pid) < 100
    for raw in user.recorded("capture.pcapng"):
        assert b"sent by sendto(fd " in raw
        assert b"0 packets of other programs are left out" in raw


#: A test that leaves a process that nothing but its pid namespace holds.
LEAVES = """
    import os, signal, sys

    def test_leaves():
        alive = os.open("alive", os.O_WRONLY)
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.closerange(0, 3)
                signal.alarm(90)
                while True:
                    signal.pause()
            os._exit(0)
        os.wait()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        os.write(alive, b"begun")
        print("to stdout", flush=True)
        while {waits}:
            signal.pause()
"""


class Left:
    """What a test has left that is run as :data:`LEAVES`."""

    def __init__(self, user: User, *arguments: str, waits: bool) -> None:
        user.write(LEAVES.format(waits=waits))
        path = user.home / "alive"
        os.mkfifo(path)
        os.chown(path, user.uid, user.uid)
        self.run = user.start("--eventlet-isolate", *arguments)
        self._alive = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        begun, _, _ = select.select([self._alive], [], [], 200)
        if not begun:
            os.killpg(self.run.pid, signal.SIGKILL)
            pytest.fail(f"the tests have not begun:\n{self.run.communicate()[0]}")
        assert os.read(self._alive, 5) == b"begun"

    def lives(self, seconds: float) -> bool:
        """Say whether after so long there is still a process that has the file open."""
        readable, _, _ = select.select([self._alive], [], [], seconds)
        assert not readable or os.read(self._alive, 1) == b""
        return not readable

    def close(self) -> None:
        os.close(self._alive)
        self.run.kill()
        self.run.communicate()


def interrupt_twice(run: subprocess.Popen[str]) -> None:
    os.killpg(run.pid, signal.SIGINT)
    assert run.stdout is not None
    while not (line := run.stdout.readline()).startswith("Ctrl-C: "):
        assert line, "it has ended"
    os.killpg(run.pid, signal.SIGINT)


@pytest.mark.fault("left-running")
@pytest.mark.parametrize(
    ("arguments", "end"),
    [
        ([BOTH], interrupt_twice),
        ([BOTH, "-s"], interrupt_twice),
        ([BOTH, "--eventlet-jobs=2"], lambda run: run.terminate()),
        ([BOTH, "-s"], lambda run: run.terminate()),
        (["--eventlet-timeout=6"], lambda run: None),
        ([*CHILD, "-n2"], lambda run: run.terminate()),
    ],
    ids=[
        "Ctrl-C twice",
        "Ctrl-C twice with -s",
        "SIGTERM",
        "SIGTERM with -s",
        "hang",
        "SIGTERM with xdist",
    ],
)
def test_nothing_that_a_test_started_outlives_a_run_that_is_ended(
    user: User, arguments: list[str], end: Callable[[subprocess.Popen[str]], None]
) -> None:
    left = Left(user, *arguments, "-k", "not asyncio", waits=True)
    try:
        end(left.run)
        out, _ = left.run.communicate(timeout=60)
        assert not left.lives(0), out
        assert "Traceback" not in out
    finally:
        left.close()


#: A process that dies slowly, while another one is awaited.
DIES_SLOWLY = (
    TAKES_MEMORY
    + """
import os, signal, subprocess, sys
from pytest_eventlet_debug.system import pids

pids.enter(os.getppid(), awaited="sleep")
subprocess.Popen(["sleep", "20"], start_new_session=True)
begun, alive = os.pipe()
if os.fork() == 0:
    take_memory()
    os.write(alive, b"x")
    signal.pause()
os.read(begun, 1)
os._exit(7)
"""
)


@pytest.mark.fault("left-running")
def test_what_dies_slowly_is_dead_when_the_wrapper_ends() -> None:
    reading, writing = os.pipe()
    program = [sys.executable, "-c", DIES_SLOWLY]
    with subprocess.Popen(program, cwd=ROOT, pass_fds=[writing]) as wrapper:
        os.close(writing)
        assert wrapper.wait() == 7  # with a timeout, it would look only now and then
        ended, _, _ = select.select([reading], [], [], 0)
    assert ended
    assert os.read(reading, 1) == b""
    os.close(reading)


@pytest.mark.fault("left-running")
def test_nothing_that_a_test_started_outlives_the_run(user: User) -> None:
    left = Left(user, *CHILD, waits=False)
    try:
        out, _ = left.run.communicate(timeout=60)
        assert "1 passed" in out
        assert not left.lives(0)
    finally:
        left.close()


@needs_strace
@pytest.mark.parametrize("arguments", [[], ["--strace", "--pcap"], ["-s"]], ids=" ".join)
def test_nothing_is_left_when_the_process_that_was_started_is_killed(
    user: User, arguments: list[str]
) -> None:
    left = Left(user, *CHILD, *arguments, waits=True)
    try:
        left.run.kill()
        assert not left.lives(30)
    finally:
        left.close()


def test_a_hang_is_shown_though_the_pids_are_others(user: User) -> None:
    user.write(
        """
        import os, signal

        def test_hangs():
            assert os.getpid() == 2
            print("to stdout", flush=True)
            os.write(2, b"last words\\n")
            while True:
                signal.pause()

        def test_rest(): pass
        """
    )
    done = user.run("--eventlet-isolate", "--eventlet-hub=asyncio", "--eventlet-timeout=6")
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert lines[lines.index("What it was doing:") + 1].startswith("its process waits, ")
    alive = lines[lines.index("What is alive:") :]
    assert any("test_net.py" in line and "in test_hangs" in line for line in alive)
    for title, text in ("Captured stdout:", "to stdout"), ("Captured stderr:", "last words"):
        assert lines[lines.index(title) + 1] == text
    if shutil.which("strace"):
        calls = lines[lines.index("Its last system calls:") :]
        assert any("pause(" in line for line in calls)


# -- the terminal

needs_pty = pytest.mark.skipif(find_spec("pexpect") is None, reason="pexpect is not installed")

WAITS = """
    import os, signal
    import pytest

    def test_stops(eventlet_hub):
        breakpoint()

    @pytest.fixture
    def resource():
        yield
        print("torn down")

    def test_waits(resource):
        print("it waits as", os.getpid(), flush=True)
        while True:
            signal.pause()
"""


@needs_pty
@pytest.mark.usefixtures("unmeasured")
def test_the_terminal_is_given_back_by_a_debugger_that_cannot_name_who_had_it(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(test_x=WAITS)
    run = pytester.spawn_pytest(f"{BOTH} --eventlet-isolate -v -p no:cacheprovider", 60.0)
    run.expect(r"\(Pdb\)")
    run.sendline("import os; print('pid', os.getpid())")
    run.expect(r"pid 2\r")
    run.sendline("c")
    run.expect(r"::test_waits\[epolls\]")
    # To the process that reports, which was at the terminal before.
    run.sendintr()
    run.expect("Ctrl-C: tests have 10 s to tear down")
    run.expect("! KeyboardInterrupt !")
    run.read()
    run.wait()
    assert run.exitstatus == pytest.ExitCode.INTERRUPTED


@needs_pty
@pytest.mark.usefixtures("unmeasured")
def test_with_s_the_terminal_and_its_ctrl_c_are_the_tests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_x=WAITS)
    arguments = f"{BOTH} --eventlet-isolate -s -p no:cacheprovider"
    run = pytester.spawn_pytest(f"{arguments} -k waits", 60.0)
    run.expect("it waits as 2\r")
    run.sendintr()
    run.expect("torn down")
    run.expect("! KeyboardInterrupt !")
    rest = run.read().decode()
    run.wait()
    assert run.exitstatus == pytest.ExitCode.INTERRUPTED
    assert re.search(r"test_x\.py:\d+: KeyboardInterrupt", rest)
    assert "Traceback" not in pytester.path.joinpath("spawn.out").read_text()


def test_what_is_tried_apart_is_known_where_ended_children_are_not_kept() -> None:
    program = """
        import functools, os, signal
        from pytest_eventlet_debug.system import network, pids
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as some that start a run do
        print(network.run_apart(lambda: "network"))
        print(network.run_apart(os.getpid, functools.partial(pids.enter, os.getpid())))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["network", "2"], "")
