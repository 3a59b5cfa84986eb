"""Measure how fast recordings are read, beside other readers where they are installed.

Usage: python benchmarks/analysis.py [COUNT]

COUNT lines of strace and as many packets are made, a million by default. Each reader runs
in a process of its own, which prints how many it read in a second of CPU time and how
much memory it took at most. Slow readers get a part of the input, and it says so. The
others: ``pip install strace-parser stracetools dpkt scapy``, and tshark.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import os
from pathlib import Path
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time

LINES = (
    '{pid} {time} recvfrom(5<TCP:[127.0.0.1:1000->127.0.0.1:2000]>, "GET / HTTP/1.1\\r\\n", 8192,'
    " 0, NULL, NULL) = 16 <0.000011>",
    "{pid} {time} epoll_wait(4<anon_inode:[eventpoll]>, [], 1023, 0) = 0 <0.000009>",
    "{pid} {time} accept4(3<TCP:[127.0.0.1:2000]>, 0x7ffd2b4132d0, [16], SOCK_CLOEXEC) = -1 EAGAIN"
    " (Resource temporarily unavailable) <0.000008>",
    '{pid} {time} write(5<TCP:[127.0.0.1:1000->127.0.0.1:2000]>, "HTTP/1.1 200 OK\\r\\n", 17) = 17'
    " <0.000031>",
    '{pid} {time} newfstatat(AT_FDCWD</tmp>, "/etc/hosts", {{st_mode=S_IFREG|0644, st_size=1,'
    " ...}}, 0) = 0 <0.000010>",
)


def strace_log(path: Path) -> int:
    from pytest_eventlet_debug.recordings.strace_log import open_log
    from pytest_eventlet_debug.recordings.strace_log import parse

    with open_log(path) as log:
        return sum(1 for _ in parse(log))


def timeline(path: Path) -> int:
    from pytest_eventlet_debug.recordings.strace_log import open_log
    from pytest_eventlet_debug.recordings.strace_log import parse
    from pytest_eventlet_debug.recordings.timeline import Trace

    trace = Trace()
    with open_log(path) as log:
        trace.take(parse(log))
    return len(trace.rows()) + trace.left_out


def findings(path: Path) -> int:
    from pytest_eventlet_debug.recordings.findings.detection import Detection
    from pytest_eventlet_debug.recordings.findings.protocol import About
    from pytest_eventlet_debug.recordings.strace_log import open_log
    from pytest_eventlet_debug.recordings.strace_log import parse

    detection = Detection(About())
    with open_log(path) as log:
        count = sum(1 for _ in detection.watch(parse(log)))
    detection.findings()
    return count


def strace_parser(path: Path) -> int:
    from strace_parser.parser import get_parser

    # It knows no column of process ids and no descriptors' names.
    text = "".join(_plain(line).partition(" ")[2] for line in path.open())
    return len(get_parser().parse(text).children)


def stracetools(path: Path) -> int:
    from stracetools import StraceParser

    # It knows the time of day alone, as -tt writes it, and no descriptors' names.
    plain = path.with_suffix(".plain")
    plain.write_text(
        "".join(
            re.sub(r" \d+\.(\d{6}) ", r" 12:00:00.\1 ", _plain(line), count=1)
            for line in path.open()
        )
    )
    return len(StraceParser().parse_file(str(plain)))


def _plain(line: str) -> str:
    return re.sub(r"(\d|AT_FDCWD)<.*?>(?=[,)])", r"\1", line)


def read(path: Path) -> int:
    from pytest_eventlet_debug.recordings import pcapng

    return sum(1 for _ in pcapng.packets(pcapng.read(path)))


def dissect(path: Path) -> int:
    from pytest_eventlet_debug.recordings import packets
    from pytest_eventlet_debug.recordings import pcapng

    every = pcapng.packets(pcapng.read(path))
    return sum(packets.dissect(packet) is not None for packet in every)


def dpkt(path: Path) -> int:
    import dpkt

    with open(path, "rb") as file:
        return sum(1 for _ in dpkt.pcapng.Reader(file))


def dpkt_dissect(path: Path) -> int:
    import dpkt

    with open(path, "rb") as file:
        return sum(bool(dpkt.ethernet.Ethernet(data).data) for _, data in dpkt.pcapng.Reader(file))


def scapy(path: Path) -> int:
    from scapy.utils import RawPcapNgReader

    return sum(1 for _ in RawPcapNgReader(str(path)))


def scapy_dissect(path: Path) -> int:
    from scapy.utils import PcapNgReader

    return sum(1 for _ in PcapNgReader(str(path)))


def tshark(path: Path) -> int:
    if not shutil.which("tshark"):
        raise ImportError("tshark")
    command = ["tshark", "-n", "-r", str(path), "-Tfields", "-eframe.number"]
    done = subprocess.run(command, capture_output=True, check=True)
    return done.stdout.count(b"\n")


#: Reader, what it reads, and by what the input is made smaller for it.
READERS: dict[str, tuple[Callable[[Path], int], str, int]] = {
    "recordings.strace_log": (strace_log, "lines", 1),
    "recordings.findings": (findings, "lines", 1),
    "recordings.timeline": (timeline, "lines", 1),
    "stracetools": (stracetools, "lines", 20),
    "strace-parser": (strace_parser, "lines", 2000),
    "recordings.packets": (read, "packets", 1),
    "recordings.packets with headers": (dissect, "packets", 1),
    "dpkt": (dpkt, "packets", 5),
    "dpkt with headers": (dpkt_dissect, "packets", 10),
    "scapy raw": (scapy, "packets", 5),
    "scapy": (scapy_dissect, "packets", 200),
    "tshark": (tshark, "packets", 20),
}


def make(directory: Path, kind: str, count: int) -> Path:
    from pytest_eventlet_debug.recordings import pcapng

    path = directory / f"{kind}-{count}"
    if path.exists():
        return path
    with open(path, "wb") as file:
        if kind == "lines":
            for number in range(count):
                line = LINES[number % len(LINES)]
                seconds, rest = divmod(number * 37, 10**6)
                text = line.format(pid=4711, time=f"17954{seconds:05}.{rest:06}")
                file.write(text.encode() + b"\n")
        else:
            file.write(pcapng.section("a::b", "us") + pcapng.interface("lo"))
            for number in range(count):
                tcp = b"\x03\xe8\x07\xd0" + number.to_bytes(4, "big") + bytes(4) + b"\x50\x10"
                tcp += bytes(6) + b"x" * 60
                size = (20 + len(tcp)).to_bytes(2, "big")
                ip = b"\x45\0" + size + bytes(4) + b"\x40\6\0\0" + b"\x7f\0\0\1" * 2
                data = bytes(12) + b"\x08\0" + ip + tcp
                file.write(pcapng.packet(10**18 + number * 1000, data, len(data)))
    return path


def measure(name: str, path: Path) -> None:
    reader, kind, _ = READERS[name]
    began = time.process_time()
    try:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            count = reader(path)
    except ImportError:
        print(f"{name}: not installed")
        return
    except Exception as error:
        print(f"{name}: cannot read this ({type(error).__name__})")
        return
    seconds = time.process_time() - began
    seconds += sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    peak = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    rate = count / seconds
    print(f"{name}: {rate:,.0f} {kind}/s of {count:,} read, {peak // 1024} MiB at most")


def main() -> None:
    if len(sys.argv) == 3:
        measure(sys.argv[1], Path(sys.argv[2]))
        return
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with tempfile.TemporaryDirectory() as scratch:
        for name, (_, kind, divisor) in READERS.items():
            path = make(Path(scratch), kind, max(count // divisor, 1))
            command = [sys.executable, __file__, name, str(path)]  # its own memory
            subprocess.run(command, env=environment, check=False)


if __name__ == "__main__":
    main()
