"""Measure what capturing around a short test costs, and whether packets are missing.

Usage (as root): python benchmarks/capture.py [RUNS] [MEBIBYTES]

Each run starts a recording, sends 20 datagrams over lo and stops it, as a test that lasts
a millisecond does. The same is done with tcpdump used right: immediate mode, a large
buffer, its ready line awaited, and a last packet awaited in its output before it is
stopped. Then MEBIBYTES are sent through one connection while recording.

Writing the captures is no part of the time: the finisher does that while the next test runs.
"""

from __future__ import annotations

from collections.abc import Callable
import os
from pathlib import Path
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from pytest_eventlet_debug.recordings import packets
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.pcap import Pcap
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import TracerError

PACKETS = 20
MARK = b"the last packet"


def say(sender: socket.socket, *words: bytes) -> None:
    for word in words:
        sender.send(word)
        sender.recv(100)


def found(path: Path, port: int) -> int:
    """Return how many of a run's datagrams are in a capture."""
    ends = (packets.dissect(packet) for packet in pcapng.packets(pcapng.read(path)))
    return sum(
        end is not None and end.source.port == port and end.payload != len(MARK) for end in ends
    )


def write_down(helper: Helper, directory: Path) -> None:
    """Have the captures in a directory written, as after a test."""
    helper.post("finish", b"", directory=str(directory), shared=False, ports=None)
    helper.request("finish-wait")


def ours(
    sender: socket.socket, directory: Path, helper: Helper, pcap: Pcap
) -> tuple[float, float, int]:
    began = time.perf_counter()
    pcap.start(Recording("a::b", directory))
    started = time.perf_counter() - began
    say(sender, *(b"%d" % number for number in range(PACKETS)))
    began = time.perf_counter()
    pcap.stop()
    stopped = time.perf_counter() - began
    write_down(helper, directory)
    port = sender.getsockname()[1]
    return started, stopped, PACKETS - found(directory / "capture.pcapng", port)


def tcpdump(sender: socket.socket, directory: Path) -> tuple[float, float, int]:
    path = directory / "tcpdump.pcap"
    options = ["--immediate-mode", "-U", "-B", "32768", "-Z", "root", "-i", "lo", "udp"]
    began = time.perf_counter()
    with subprocess.Popen(
        ["tcpdump", *options, "-w", str(path)], stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        while b"listening on" not in process.stderr.readline():
            pass
        started = time.perf_counter() - began
        say(sender, *(b"%d" % number for number in range(PACKETS)))
        began = time.perf_counter()
        say(sender, MARK)
        while MARK not in path.read_bytes() and time.perf_counter() - began < 3:
            os.sched_yield()
        process.send_signal(signal.SIGTERM)
        process.wait()
    stopped = time.perf_counter() - began
    command = ["tcpdump", "-n", "-r", str(path), f"src port {sender.getsockname()[1]}"]
    read = subprocess.run(command, capture_output=True, check=True)
    return started, stopped, PACKETS - (read.stdout.count(b"\n") - (MARK in path.read_bytes()))


def repeat(name: str, runs: int, run: Callable[[], tuple[float, float, int]]) -> None:
    results = [run() for _ in range(runs)]
    start, stop, missing = zip(*results, strict=True)
    lossy = sum(count != 0 for count in missing)
    print(
        f"{name}: start {statistics.median(start) * 1e3:.2f} ms, "
        f"stop {statistics.median(stop) * 1e3:.2f} ms (medians of {runs}); "
        f"{sum(missing)} of {runs * PACKETS} packets missing, in {lossy} runs",
        flush=True,
    )


def bulk(directory: Path, helper: Helper, pcap: Pcap, mebibytes: int) -> None:
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    served, _ = server.accept()
    whole = mebibytes << 20

    def receive() -> None:
        buffer = bytearray(1 << 20)
        left = whole
        while left:
            left -= served.recv_into(buffer)

    thread = threading.Thread(target=receive)
    pcap.start(Recording("a::b", directory))
    thread.start()
    began = time.perf_counter()
    block = bytes(1 << 16)
    for _ in range(whole // len(block)):
        client.sendall(block)
    thread.join()
    seconds = time.perf_counter() - began
    said = "nothing dropped"
    try:
        pcap.stop()
    except TracerError as error:
        said = str(error)
    write_down(helper, directory)
    kept = [
        packets.dissect(each) for each in pcapng.packets(pcapng.read(directory / "capture.pcapng"))
    ]
    got = {each.sequence: each.payload for each in kept if each is not None and each.payload}
    print(
        f"{mebibytes} MiB at {whole / seconds / 1e9:.2f} GB/s: {len(kept)} packets, "
        f"{sum(got.values()) / whole:.1%} of the bytes; {said}"
    )


def peak(pid: int) -> int:
    """Return how many KiB of memory a process has had at most, see proc(5)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    mebibytes = int(sys.argv[2]) if len(sys.argv) > 2 else 1024
    helper = Helper.start()
    pcap = Pcap(helper)
    pcap.check()
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind(("127.0.0.1", 0))
            sender.connect(sender.getsockname())
            repeat("--pcap", runs, lambda: ours(sender, directory, helper, pcap))
            if shutil.which("tcpdump"):
                repeat("tcpdump", max(runs // 5, 1), lambda: tcpdump(sender, directory))
        bulk(directory, helper, pcap, mebibytes)
        print(f"the helper had at most {peak(helper.pid) >> 10} MiB, its ring of 64 MiB included")
    helper.close()


if __name__ == "__main__":
    main()
