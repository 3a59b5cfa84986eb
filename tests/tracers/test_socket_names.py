"""What strace calls a TCP socket, where a library that is preloaded answers for the kernel."""

from __future__ import annotations

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from needs import needs_strace
import pytest

from pytest_eventlet_debug.helper.strace_process import environment

pytestmark = [
    needs_strace,
    pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler"),
]

#: Each socket says on standard output what strace is to call it.
PROGRAM = """
import os, socket, threading
LOOPBACK_6 = f"{1:032x}"
def show(sock, text):
    os.write(1, f"{sock.fileno()} {text}\\n".encode())
def told(address):
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
def use(family, name, host):
    server = socket.create_server((host, 0), family=family)
    server.setblocking(False)
    show(server, f"{name}:[{told(server.getsockname())}]")
    bound = socket.socket(family)
    bound.bind((host, 0))
    bound.setblocking(False)
    client = socket.socket(family)
    client.connect(server.getsockname())
    for sock in (client, server.accept()[0]):
        sock.setblocking(False)
        show(sock, f"{name}:[{told(sock.getsockname())}->{told(sock.getpeername())}]")
    bound.connect_ex(server.getsockname())
    show(bound, f"{name}:[{told(bound.getsockname())}->{told(server.getsockname())}]")
use(socket.AF_INET, "TCP", "127.0.0.1")
if socket.has_ipv6 and LOOPBACK_6 in open("/proc/net/if_inet6").read():
    use(socket.AF_INET6, "TCPv6", "::1")
full = socket.create_server(("127.0.0.1", 0), backlog=0)
clients = [socket.socket() for _ in range(3)]
for sock in clients:
    sock.setblocking(False)
    sock.connect_ex(full.getsockname())
sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
show(sock, f"TCP:[{told(sock.getsockname())}->{told(full.getsockname())}]")
thread = threading.Thread(target=use, args=(socket.AF_INET, "TCP", "127.0.0.1"))
thread.start()
thread.join()
"""


def takes_threads() -> bool:
    """Say whether this kernel gives a pidfd for a thread."""
    try:
        os.close(os.pidfd_open(os.getpid(), os.O_EXCL))
    except OSError:
        return False
    return True


def test_sockets_are_named_without_asking_the_kernel_for_all_of_them(tmp_path: Path) -> None:
    trace, questions = tmp_path / "trace", tmp_path / "questions"
    watched = ["strace", "-e", "trace=sendmsg", "-e", "signal=none", "-o", str(questions)]
    strace = ["strace", "-f", "-yy", "-s", "256", "-E", "LD_PRELOAD", "-o", str(trace)]
    strace += ["-e", "trace=connect,getsockname,getsockopt,ioctl,write"]
    subprocess.run(
        [*watched, *strace, sys.executable, "-I", "-S", "-c", PROGRAM],
        env=environment(),
        stdout=subprocess.DEVNULL,
        check=True,
    )
    text = trace.read_text()
    written = re.findall(r' write\(1<.*?>, "(\d+) (.+)\\n"', text)
    assert len(written) >= 9
    for number, name in written:
        assert f"({number}<{name}>" in text, name
    # The kernel is asked for those that are just being connected.
    asked = questions.read_text().count("sendmsg(")
    assert 0 < asked <= 3 or not takes_threads()
