"""A network of the run's own, for root and for an ordinary user."""

from __future__ import annotations

from collections.abc import Iterator
import errno
import os
from pathlib import Path
import shutil
import subprocess
import sys
import tempfile
import textwrap

import pytest

from pytest_eventlet_debug import isolation
from pytest_eventlet_debug.analysis import packets

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("setpriv"),
    reason="becoming an ordinary user needs Linux, root and setpriv",
)
needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

USER = 54321

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


class Ordinary:
    """Runs pytest as a user without any right.

    Where that user cannot reach the interpreter below /root, it is put there for it, in a
    mount namespace that ends with the run.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.prefix = [
            *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
            *("--inh-caps=-all", "--bounding-set=-all"),
        ]
        self._environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}

    def command(self, *arguments: str) -> list[str]:
        words = [*self.prefix, sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
        words += ["-W", "ignore", f"--basetemp={self.home / 'tmp'}", *arguments]
        hidden = Path("/root").stat().st_mode & 1 == 0
        if not hidden or not os.path.realpath(sys.executable).startswith("/root/"):
            return words
        below = Path(*Path(os.path.realpath(sys.executable)).parts[:3])
        keep = self.home.parent / "interpreter"
        keep.mkdir(exist_ok=True)
        script = (
            f"mount --bind {below} {keep} && mount -t tmpfs -o mode=755 none /root && "
            f'mkdir {below} && mount --bind {keep} {below} && cd {self.home} && exec "$@"'
        )
        return ["unshare", "--mount", "sh", "-c", script, "sh", *words]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.home,
            env=self._environment,
            capture_output=True,
            text=True,
        )

    def captures(self) -> list[bytes]:
        found = sorted((self.home / "eventlet-debug").glob("*test_echo*/capture.pcapng"))
        return [path.read_bytes() for path in found]


@pytest.fixture
def ordinary() -> Iterator[Ordinary]:
    # Not below pytest's own directory, which every run of root's closes to others.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        home = Path(directory, "home")
        home.mkdir()
        (home / "test_net.py").write_text(textwrap.dedent(TESTS))
        (home / "pytest.ini").write_text("[pytest]\n")
        os.chown(home, USER, USER)
        user = Ordinary(home)
        allowed = subprocess.run(
            [*user.prefix, "unshare", "--user", "--net", "true"], capture_output=True
        )
        if allowed.returncode:
            pytest.skip("user namespaces are not allowed here")
        yield user


@needs_strace
@pytest.mark.parametrize(
    "arguments",
    [[], ["--eventlet-hub=epolls,asyncio"], ["-n2"]],
    ids=["one hub", "two hubs", "xdist"],
)
def test_an_ordinary_user_records_without_any_right(
    ordinary: Ordinary, arguments: list[str]
) -> None:
    done = ordinary.run("--eventlet-isolate", "--strace", "--pcap", *arguments)
    count = 8 if "--eventlet-hub=epolls,asyncio" in arguments else 4
    assert f"{count} passed" in done.stdout, done.stdout + done.stderr
    captures = ordinary.captures()
    assert len(captures) == count * 3 // 4
    for raw in captures:
        assert b"sent by sendto(fd " in raw
        assert b"0 packets of other programs are left out" in raw


def test_workers_have_a_network_each(ordinary: Ordinary) -> None:
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


def test_without_it_an_ordinary_user_is_told_what_is_missing(ordinary: Ordinary) -> None:
    done = ordinary.run("--pcap")
    assert "CAP_NET_RAW" in done.stderr
    assert "--eventlet-isolate" in done.stderr


THREAD = """
    import threading

    started = threading.Event()
    threading.Thread(target=started.wait, daemon=True).start()
"""


def test_a_process_with_threads_is_told_so_in_one_line(ordinary: Ordinary) -> None:
    (ordinary.home / "with_thread.py").write_text(textwrap.dedent(THREAD))
    done = ordinary.run("-p", "with_thread", "--eventlet-isolate")
    assert done.returncode == 4
    assert done.stderr.count("\n") <= 2
    assert "has several threads already (" in done.stderr


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "sysctl user.max_user_namespaces=10000"),
        (errno.EPERM, "run as root"),
        (errno.ENOSYS, "run as root on Linux, or without --eventlet-isolate"),
    ],
)
def test_each_cause_has_its_remedy(number: int, words: str) -> None:
    line = isolation._explain(OSError(number, os.strerror(number)))
    assert line.startswith("--eventlet-isolate cannot give the tests a network of their own: ")
    assert words in line
    assert "\n" not in line


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
    assert len(list(packets.packets(packets.read(path)))) >= 3
