"""pcap around a test: all of its packets, however short it is."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import errno
import json
import os
from pathlib import Path
import posix
import re
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import time

from programs import TICKER
import pytest

from pytest_eventlet_debug.helper import packet_ring
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.pcap import Pcap
from pytest_eventlet_debug.tracers.pcap import judge
from pytest_eventlet_debug.tracers.protocol import Recording
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.protocol import TracerUnavailable

ROOT = Path(__file__).parent.parent.parent

LINUX = sys.platform == "linux"

pytestmark = pytest.mark.skipif(
    not LINUX or os.geteuid() != 0, reason="capturing needs Linux and root"
)


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    helper = Helper.start()
    yield helper
    helper.close()


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """Return a datagram socket that is connected to itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        sender.connect(sender.getsockname())
        yield sender


def write_down(helper: Helper, directory: Path) -> None:
    """Have the capture of a directory written, as after a test."""
    assert problems_of_writing(helper, directory) == []


@contextlib.contextmanager
def recorded(helper: Helper, directory: Path, nodeid: str = "a::b") -> Iterator[Pcap]:
    """Have what is sent meanwhile recorded, and written into a directory as after a test."""
    pcap = Pcap(helper)
    pcap.start(Recording(nodeid, directory))
    yield pcap
    pcap.stop()
    write_down(helper, directory)


def problems_of_writing(
    helper: Helper, directory: Path, *, shared: bool = False, ports: tuple[int, ...] | None = None
) -> list[str]:
    helper.post("finish", b"", directory=str(directory), shared=shared, ports=ports)
    problems = helper.request("finish-wait")["problems"]
    assert isinstance(problems, list)
    return problems


def ready(pcap: Pcap) -> None:
    try:
        pcap.check()
    except TracerUnavailable as error:
        if "there is no libpcap" in str(error):
            pytest.skip("libpcap is not installed")
        raise


def say(sender: socket.socket, *words: bytes) -> None:
    for word in words:
        sender.send(word)
        assert sender.recv(len(word)) == word


def read_pcapng(path: Path) -> tuple[list[tuple[int, bytes]], list[tuple[int, bytes]]]:
    """Read packets and, as (type, body), the other blocks of a pcapng file."""
    with packing.open_to_read(path) as file:
        raw = file.read()
    packets, others, at = [], [], 0
    while at < len(raw):
        kind, total = struct.unpack_from("<II", raw, at)
        assert struct.unpack_from("<I", raw, at + total - 4) == (total,)
        body = raw[at + 8 : at + total - 4]
        if kind == 6:
            _, high, low, captured, _ = struct.unpack_from("<5I", body)
            packets.append((high << 32 | low, body[20 : 20 + captured]))
        else:
            others.append((kind, body))
        at += total
    assert at == len(raw)
    return packets, others


def payloads(directory: Path, port: int) -> list[bytes]:
    """Return the UDP payloads sent to *port*."""
    packets, _ = read_pcapng(directory / "capture.pcapng")
    to_port = struct.pack("!H", port)
    return [frame[42:] for _, frame in packets if frame[36:38] == to_port]


def test_no_packet_of_a_test_of_a_millisecond_is_missing(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    pcap = Pcap(helper)
    port = sender.getsockname()[1]
    for number in range(50):
        words = [b"%d-%d" % (number, each) for each in range(20)]
        say(sender, b"before")
        pcap.start(Recording("a::b[x]", tmp_path))
        say(sender, *words)
        pcap.stop()
        say(sender, b"after")
        write_down(helper, tmp_path)
        assert payloads(tmp_path, port) == words


def test_the_times_lie_between_the_clock_before_and_after(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    with recorded(helper, tmp_path, "a::b[x]"):
        before = time.time_ns()
        say(sender, b"tick")
        after = time.time_ns()
    ((when, _),) = [
        each for each in read_pcapng(tmp_path / "capture.pcapng")[0] if b"tick" in each[1]
    ]
    assert before <= when <= after


def test_the_file_names_its_test_its_interface_and_counts_its_packets(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    with recorded(helper, tmp_path, "tests/é.py::test[epolls]"):
        say(sender, b"1", b"2", b"3")
    packets, others = read_pcapng(tmp_path / "capture.pcapng")
    (section, head), (interface, link), (statistics, counts) = others
    assert (section, interface, statistics) == (0x0A0D0D0A, 1, 5)
    assert "tests/é.py::test[epolls]".encode() in head
    assert b"lo\0\0" in link
    received, dropped = struct.unpack_from("<4xQ4xQ", counts, 12)
    assert received >= len(packets) >= 3
    assert dropped == 0


def test_a_packet_of_64_kib_is_recorded_whole(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    with recorded(helper, tmp_path):
        words = [os.urandom(65507) for _ in range(8)]
        say(sender, *words)
    assert payloads(tmp_path, sender.getsockname()[1]) == words


def test_each_packet_is_there_once_and_tcp_is_complete(helper: Helper, tmp_path: Path) -> None:
    data = os.urandom(4 << 20)
    pcap = Pcap(helper)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        pcap.start(Recording("a::b", tmp_path))
        child = os.fork()
        if not child:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(data)
            os._exit(0)
        connection, _ = server.accept()
        with connection:
            received = 0
            while part := connection.recv(1 << 20):
                received += len(part)
        os.waitpid(child, 0)
        pcap.stop()
        write_down(helper, tmp_path)
    segments = []
    seen = set()
    for _, frame in read_pcapng(tmp_path / "capture.pcapng")[0]:
        if frame[23] == 6 and frame[36:38] == struct.pack("!H", port):
            (sequence,) = struct.unpack_from("!I", frame, 38)
            header = 34 + (frame[46] >> 4) * 4
            if frame[47] & 2:  # SYN, which counts as a byte
                first = sequence + 1
            elif frame[header:]:
                # TCP itself may send a part again, but under a new IP identification.
                assert frame[:header] not in seen
                seen.add(frame[:header])
                segments.append(((sequence - first) % 2**32, frame[header:]))
    stream = bytearray()
    for at, payload in sorted(segments):
        assert at <= len(stream), "a packet is missing"
        stream += payload[len(stream) - at :]
    assert received == len(data)
    assert stream == data


def test_a_block_can_be_recorded_while_the_test_is(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "whole" / "block-1"
    part.mkdir(parents=True)
    outer, inner = Pcap(helper), Pcap(helper)
    outer.start(Recording("a::b", whole))
    say(sender, b"1")
    inner.start(Recording("a::b block", part))
    say(sender, b"2")
    inner.stop()
    say(sender, b"3")
    outer.stop()
    write_down(helper, tmp_path / "whole")
    port = sender.getsockname()[1]
    assert payloads(whole, port) == [b"1", b"2", b"3"]
    assert payloads(part, port) == [b"2"]


def test_a_pause_is_a_gap(helper: Helper, sender: socket.socket, tmp_path: Path) -> None:
    with recorded(helper, tmp_path) as pcap:
        say(sender, b"1")
        pcap.pause()
        say(sender, b"2")
        pcap.resume()
        say(sender, b"3")
    assert payloads(tmp_path, sender.getsockname()[1]) == [b"1", b"3"]


def test_where_nothing_of_the_test_was_sent_there_is_no_file(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    pcap = Pcap(helper)
    pcap.start(Recording("a::b", tmp_path))
    say(sender, b"another program's")
    pcap.stop()
    assert problems_of_writing(helper, tmp_path, shared=True, ports=(1,)) == []
    assert [path.name for path in tmp_path.iterdir()] == ["test.json"]


def test_packets_are_in_a_file_before_a_long_test_ends(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    with recorded(helper, tmp_path):
        say(sender, b"1")
        until = time.monotonic() + 20
        while not (tmp_path / "capture.pcapng").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        say(sender, b"2")
    assert payloads(tmp_path, sender.getsockname()[1]) == [b"1", b"2"]


@pytest.mark.fault("packet-storm")
def test_of_a_storm_the_beginning_and_the_end_are_kept(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    pcap = Pcap(helper, limit=8_000_000)
    pcap.start(Recording("a::b", tmp_path))
    words = [b"%d" % number + bytes(60_000) for number in range(500)]
    say(sender, *words)
    with pytest.raises(TracerError) as caught:
        pcap.stop()
    write_down(helper, tmp_path)
    kept = payloads(tmp_path, sender.getsockname()[1])
    missing = re.fullmatch(
        r"capture\.pcapng lacks (\d+) packets in its middle: it is longer than --pcap-limit",
        str(caught.value),
    )
    assert missing
    assert len(kept) >= 500 - int(missing[1])
    assert 7_000_000 < packing.size(tmp_path / "capture.pcapng") < 10_000_000
    half = next(number for number, word in enumerate(kept) if word != words[number])
    assert kept[half:] == words[half - len(kept) :]
    assert min(half, len(kept) - half) > len(kept) // 3


@pytest.mark.fault("packets-dropped")
def test_packets_that_the_kernel_dropped_are_counted_and_reported(
    sender: socket.socket, tmp_path: Path
) -> None:
    helper = Helper.start()
    # What other tests send meanwhile is dropped, too.
    pcap = Pcap(helper, expression=f"udp port {sender.getsockname()[1]}")
    ready(pcap)
    pcap.start(Recording("a::b", tmp_path))
    os.kill(helper.pid, 19)  # SIGSTOP: nobody reads the ring
    word = bytes(65507)
    sent = packet_ring.BLOCKS + 100
    for _ in range(sent):
        say(sender, word)
    os.kill(helper.pid, 18)
    with pytest.raises(TracerError) as caught:
        pcap.stop()
    write_down(helper, tmp_path)
    packets, others = read_pcapng(tmp_path / "capture.pcapng")
    dropped = struct.unpack_from("<Q", others[-1][1], 12 + 16)[0]
    assert str(caught.value) == f"capture.pcapng lacks {dropped} packets the kernel dropped"
    assert dropped > 0
    assert len(packets) + dropped == sent
    pcap.start(Recording("a::b", tmp_path))
    say(sender, b"again")
    pcap.stop()
    write_down(helper, tmp_path)
    assert payloads(tmp_path, sender.getsockname()[1]) == [b"again"]
    helper.close()


def test_a_directory_that_is_gone_is_an_error_and_the_next_test_is_recorded(
    helper: Helper, sender: socket.socket, tmp_path: Path
) -> None:
    pcap = Pcap(helper)
    pcap.start(Recording("a::b", tmp_path / "gone"))
    say(sender, b"lost")
    pcap.stop()
    assert "No such file or directory" in str(problems_of_writing(helper, tmp_path / "gone"))
    pcap.start(Recording("a::b", tmp_path))
    say(sender, b"again")
    pcap.stop()
    write_down(helper, tmp_path)
    assert payloads(tmp_path, sender.getsockname()[1]) == [b"again"]


@pytest.mark.fault("hostile-id")
@pytest.mark.parametrize("nodeid", ["x" * 200_000, "a\0b", "\udc80", "\U0001f40d" * 9000])
def test_any_node_id_can_be_written(
    helper: Helper, sender: socket.socket, tmp_path: Path, nodeid: str
) -> None:
    with recorded(helper, tmp_path, nodeid):
        say(sender, b"1")
    _, others = read_pcapng(tmp_path / "capture.pcapng")
    assert len(others) == 3


@pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
def test_tshark_reads_the_file(helper: Helper, sender: socket.socket, tmp_path: Path) -> None:
    with recorded(helper, tmp_path):
        say(sender, b"one", b"two")
    arguments = ["tshark", "-r", str(tmp_path / "capture.pcapng"), "-Tjson", "-eudp.payload"]
    done = subprocess.run(
        [*arguments, f"-Yudp.port=={sender.getsockname()[1]}"], capture_output=True
    )
    layers = [packet["_source"]["layers"] for packet in json.loads(done.stdout)]
    assert [bytes.fromhex(each["udp.payload"][0]) for each in layers] == [b"one", b"two"]


@pytest.mark.fault("no-right-to-capture")
@pytest.mark.parametrize("isolated", [False, True])
def test_root_without_the_right_to_capture_is_told_the_remedy(isolated: bool) -> None:
    if not shutil.which("setpriv") or os.geteuid() != 0:
        pytest.skip("giving up a capability needs root and setpriv")
    text = f"""
        from pytest_eventlet_debug.tracers.helper_client import Helper
        from pytest_eventlet_debug.tracers.pcap import Pcap
        from pytest_eventlet_debug.tracers.protocol import TracerUnavailable
        try:
            Pcap(Helper.start(), isolated={isolated}).check()
        except TracerUnavailable as error:
            print(error)
    """
    done = subprocess.run(
        ["setpriv", "--bounding-set=-net_raw", sys.executable, "-c", textwrap.dedent(text)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert "CAP_NET_RAW" in done.stdout, done.stderr
    assert "run as another user, with --eventlet-isolate" in done.stdout
    assert "--cap-add NET_RAW" in done.stdout
    assert "run as root" not in done.stdout


@pytest.mark.fault("no-right-to-capture")
def test_others_without_the_right_to_capture_are_told_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: 1000)
    with pytest.raises(TracerUnavailable) as raised:
        judge({"errno": errno.EPERM, "words": ""}, "lo", None, isolated=False)
    for remedy in ("--eventlet-isolate", "run as root", "setcap cap_net_raw+ep /"):
        assert remedy in str(raised.value)


def test_the_check_passes_where_capturing_works(helper: Helper) -> None:
    try:
        Pcap(helper).check()
    except TracerUnavailable as error:
        pytest.fail(str(error))


def test_a_filter_lets_through_what_it_names_and_nothing_else(
    sender: socket.socket, tmp_path: Path
) -> None:
    helper = Helper.start()
    port = sender.getsockname()[1]
    pcap = Pcap(helper, expression=f"udp port {port} and udp[8] = 0x61")
    ready(pcap)
    for _ in range(3):
        pcap.start(Recording("a::b", tmp_path))
        say(sender, b"a1", b"b2", b"a3")
        pcap.stop()
        write_down(helper, tmp_path)
        packets = read_pcapng(tmp_path / "capture.pcapng")[0]
        assert [frame[42:] for _, frame in packets] == [b"a1", b"a3"]
    helper.close()


def test_a_filter_that_is_none_is_refused_in_libpcaps_words() -> None:
    helper = Helper.start()
    with pytest.raises(TracerUnavailable, match=r"^--pcap-filter: 'tpc port 80': .+"):
        Pcap(helper, expression="tpc port 80").check()
    helper.close()


def test_an_interface_that_is_none_is_refused_with_those_that_are() -> None:
    helper = Helper.start()
    with pytest.raises(TracerUnavailable) as caught:
        Pcap(helper, "eth99").check()
    assert str(caught.value).startswith("--pcap-interface: 'eth99' cannot be captured on (")
    assert re.search(r"Interfaces here: (\S+, )*lo[.,]", str(caught.value))
    helper.close()


@pytest.mark.skipif(not shutil.which("ip"), reason="iproute2 is not installed")
def test_another_interface_than_lo_is_captured_in_both_directions(tmp_path: Path) -> None:
    text = r"""
        import os, socket, subprocess, sys
        from pathlib import Path
        from pytest_eventlet_debug.tracers.helper_client import Helper
        from pytest_eventlet_debug.tracers.pcap import Pcap
        from pytest_eventlet_debug.tracers.protocol import Recording

        def ip(*words):
            subprocess.run(["ip", *words], check=True)

        ip("link", "add", "left", "type", "veth", "peer", "name", "right")
        ip("address", "add", "10.9.0.1/24", "dev", "left")
        ip("link", "set", "left", "up")
        ip("link", "set", "right", "up")
        helper = Helper.start()
        pcap = Pcap(helper, "left")
        pcap.start(Recording("a::b", Path(sys.argv[1])))
        there = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)
        there.bind(("right", 3))
        here = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        here.bind(("left", 0))
        here.send(b"\xff" * 12 + b"\x88\xb5there")
        there.send(b"\xff" * 12 + b"\x88\xb5back")
        pcap.stop()
        helper.post("finish", b"", directory=sys.argv[1], shared=False, ports=None)
        helper.request("finish-wait")
    """
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", textwrap.dedent(text), str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if "Unknown device type" in done.stderr or "not supported" in done.stderr:
        pytest.skip("this kernel has no veth")
    assert done.returncode == 0, done.stderr
    frames = [frame for _, frame in read_pcapng(tmp_path / "capture.pcapng")[0]]
    ours = [frame[14:] for frame in frames if frame[12:14] == b"\x88\xb5"]
    assert ours == [b"there", b"back"]


@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_start_and_stop_switch_no_greenthread(tmp_path: Path, hub: str) -> None:
    text = """
        import sys
        from pathlib import Path
        from pytest_eventlet_debug.tracers.helper_client import Helper
        from pytest_eventlet_debug.tracers.pcap import Pcap
        from pytest_eventlet_debug.tracers.protocol import Recording
        before = ticks
        pcap = Pcap(Helper.start())
        for _ in range(20):
            pcap.start(Recording("a::b", Path(sys.argv[1])))
            pcap.stop()
        print(ticks - before)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", TICKER + textwrap.dedent(text), str(tmp_path)],
        env={**os.environ, "EVENTLET_HUB": hub},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0\n", done.stderr
