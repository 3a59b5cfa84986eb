"""What is recorded of a test becomes one readable whole."""

from __future__ import annotations

from collections.abc import Callable
import json
import marshal
import os
from pathlib import Path
import shutil
import subprocess
import sys
import textwrap
from typing import Any

from needs import needs_root
from needs import needs_strace
import pytest

from pytest_eventlet_debug.artifact_records import FORMAT
from pytest_eventlet_debug.profiling import choice
from pytest_eventlet_debug.recordings import captures
from pytest_eventlet_debug.recordings import packets
from pytest_eventlet_debug.recordings import pcapng
from pytest_eventlet_debug.recordings import recorded
from pytest_eventlet_debug.recordings import timeline
from pytest_eventlet_debug.recordings.attribution import Attribution
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.finisher import finish
from pytest_eventlet_debug.recordings.found import findings_of
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Syscall

needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")

HTTP = """
    import eventlet
    from eventlet import wsgi

    def application(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"hello"]

    def test_http():
        listener = eventlet.listen(("127.0.0.1", 0))
        address = listener.getsockname()
        server = eventlet.spawn(wsgi.server, listener, application)
        for _ in range(5):
            client = eventlet.connect(address)
            client.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
            while client.recv(4096):
                pass
            client.close()
        server.kill()
        listener.close()
        try:
            eventlet.connect(address)
        except ConnectionRefusedError:
            pass
"""

ECHO = """
    import socket

    def test_echo():
        with socket.create_server(("127.0.0.1", 0)) as server:
            with socket.create_connection(server.getsockname()) as client:
                served, _ = server.accept()
                with served:
                    client.sendall(b"ping")
                    assert served.recv(9) == b"ping"
"""


def tshark(path: Path, *arguments: str) -> list[list[str]]:
    done = subprocess.run(
        ["tshark", "-r", str(path), "-Tfields", *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return [line.split("\t") for line in done.stdout.splitlines()]


def frame(port: int, payload: bytes) -> bytes:
    """Return a datagram from that port to the next one."""
    udp = b"".join(each.to_bytes(2, "big") for each in (port, port + 1, 8 + len(payload), 0))
    size = (20 + len(udp) + len(payload)).to_bytes(2, "big")
    ip = b"\x45\0" + size + bytes(5) + b"\x11\0\0" + b"\x7f\0\0\1" * 2
    return bytes(12) + b"\x08\0" + ip + udp + payload


def capture(directory: Path, *frames: bytes) -> None:
    whole = [pcapng.section("a::b", "us"), pcapng.interface("lo")]
    whole += [pcapng.packet(1000 + at, each, len(each)) for at, each in enumerate(frames)]
    (directory / "capture.pcapng").write_bytes(b"".join(whole) + pcapng.statistics(9000, 7, 2))


def payloads(path: Path) -> list[bytes]:
    return [each.data[42:] for each in pcapng.packets(pcapng.read(path))]


@pytest.mark.parametrize(
    ("shared", "ports", "kept"),
    [
        (True, [100], [b"ours", b"ours too"]),
        (True, [], []),
        (True, None, [b"ours", b"theirs", b"ours too"]),
        (False, [100], [b"ours", b"theirs", b"ours too"]),
    ],
)
def test_packets_of_other_programs_are_left_out_where_the_ports_tell(
    tmp_path: Path, shared: bool, ports: list[int] | None, kept: list[bytes]
) -> None:
    capture(tmp_path, frame(100, b"ours"), frame(200, b"theirs"), frame(99, b"ours too"))
    finish(tmp_path, shared=shared, ports=ports)
    assert payloads(tmp_path / "capture.pcapng") == kept
    blocks = list(pcapng.read(tmp_path / "capture.pcapng"))
    assert blocks[0] == pcapng.Section("a::b", "us")
    assert blocks[-1] == pcapng.Statistics(7, 2)
    left_out = f"{3 - len(kept)} packets of other programs are left out".encode()
    assert left_out in (tmp_path / "capture.pcapng").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["capture.pcapng", "findings.json", "report.js"]


def test_a_trace_tells_the_ports_by_itself(tmp_path: Path) -> None:
    capture(tmp_path, frame(100, b"ours"), frame(200, b"theirs"))
    (tmp_path / "strace.txt").write_text(
        '7 1.000000 bind(3<UDP:[9]>, NULL, 0) = 0\n7 1.0 write(3<UDP:[127.0.0.1:100]>, "", 0) = 0\n'
    )
    finish(tmp_path, shared=True, ports=None)
    assert payloads(tmp_path / "capture.pcapng") == [b"ours"]


def test_a_capture_that_breaks_off_keeps_what_is_there(tmp_path: Path) -> None:
    capture(tmp_path, frame(1, b"a"), frame(1, b"b"))
    raw = (tmp_path / "capture.pcapng").read_bytes()
    (tmp_path / "capture.pcapng").write_bytes(raw[: raw.index(frame(1, b"b")) + 9])
    finish(tmp_path)
    assert payloads(tmp_path / "capture.pcapng") == [b"a"]


@pytest.mark.fault("hostile-test-json")
@pytest.mark.parametrize("time_ns", [-1, 1 << 63, 10**400], ids=["negative", "large", "huge"])
def test_a_record_with_times_that_no_clock_shows_is_none_of_ours(
    tmp_path: Path, time_ns: int
) -> None:
    capture(tmp_path, frame(1, b"a"))
    phases = {"call": [time_ns, time_ns]}
    record = {"format": FORMAT, "nodeid": "a::b", "phases": phases}
    (tmp_path / "test.json").write_text(json.dumps(record))
    finish(tmp_path)
    assert payloads(tmp_path / "capture.pcapng") == [b"a"]
    assert json.loads((tmp_path / "test.json").read_text()) == record


@pytest.mark.fault("hostile-recording")
def test_a_trace_with_times_that_no_clock_shows_goes_into_a_capture(tmp_path: Path) -> None:
    capture(tmp_path, frame(1, b"a"))
    (tmp_path / "strace.txt").write_text(
        "7 8999999999.999999 pause() = 0\n7 999999999999.000000 pause() = 0\n"
    )
    finish(tmp_path)
    raw = (tmp_path / "capture.pcapng").read_bytes()
    assert b"MESSAGE=7 pause() = 0 (line 1)" in raw
    assert payloads(tmp_path / "capture.pcapng") == [b"a"]


def test_a_capture_without_packets_stays_as_it_is(tmp_path: Path) -> None:
    capture(tmp_path)
    before = (tmp_path / "capture.pcapng").stat()
    (tmp_path / "strace.txt").write_text(STORM)
    finish(tmp_path, shared=True, ports=[100])
    after = (tmp_path / "capture.pcapng").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    found = findings_file.read(tmp_path)
    assert found is not None
    assert [each.kind for each in found.findings] == ["storm"]


STORM = "".join(
    f"7 1.{number * 2:03}000 accept4(-1, NULL, NULL, 0) = -1 EBADF (Bad descriptor) <0.000010>\n"
    for number in range(200)
)


def test_what_is_found_in_a_trace_and_in_those_of_its_blocks_is_written_beside_it(
    tmp_path: Path,
) -> None:
    facts = {"format": "pytest-eventlet-debug", "nodeid": "a::b[poll]", "hub": "poll"}
    (tmp_path / "test.json").write_text(json.dumps(facts))
    (tmp_path / "strace.txt").write_text(STORM)
    (tmp_path / "block-1").mkdir()
    (tmp_path / "block-1" / "strace.txt").write_text(STORM)
    finish(tmp_path)
    found = findings_file.read(tmp_path)
    assert found is not None
    assert [
        (each.kind, each.nodeid, each.hub, each.block, each.place) for each in found.findings
    ] == [
        ("storm", "a::b[poll]", "poll", None, "strace.txt line 1"),
        ("storm", "a::b[poll]", "poll", "block-1", "block-1/strace.txt line 1"),
    ]
    assert "accept4(-1) = -1 EBADF x 200" in found.findings[0].title
    assert "findings.json" in json.loads((tmp_path / "test.json").read_text())["artifacts"]


@pytest.mark.parametrize("content", [b"", b"garbage", marshal.dumps({"parts": [()]}), None])
def test_what_is_no_profile_is_said_once_all_else_is_complete(
    tmp_path: Path, content: bytes | None
) -> None:
    (tmp_path / "test.json").write_text('{"format": "pytest-eventlet-debug", "nodeid": "a::b"}')
    (tmp_path / "strace.txt").write_text(STORM)
    if content is None:
        os.mkfifo(tmp_path / "profile.counts")
    else:
        (tmp_path / "profile.counts").write_bytes(content)
    with pytest.raises((ValueError, LookupError, OSError)):
        finish(tmp_path)
    found = findings_file.read(tmp_path)
    assert found is not None
    assert [each.kind for each in found.findings] == ["storm"]


def test_a_long_trace_is_packed_and_can_be_completed_once_more(tmp_path: Path) -> None:
    (tmp_path / "strace.txt").write_text(STORM * 70)
    finish(tmp_path)
    first = findings_file.read(tmp_path)
    assert first is not None
    assert [(each.kind, each.place) for each in first.findings] == [
        ("storm", "strace.txt.gz line 1")
    ]
    assert sorted(os.listdir(tmp_path)) == ["findings.json", "report.js", "strace.txt.gz"]
    (tmp_path / "findings.json").unlink()
    found = findings_of(tmp_path)
    assert found is not None
    assert found.findings == first.findings
    finish(tmp_path)
    assert findings_file.read(tmp_path) == first


def test_a_trace_that_nobody_completed_shows_what_it_holds_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "strace.txt").write_text(STORM)
    found = recorded.find(tmp_path)
    assert [each.kind for each in found.findings] == ["storm"]
    assert os.listdir(tmp_path) == ["strace.txt"]


def test_drafts_of_one_that_was_killed_are_removed(tmp_path: Path) -> None:
    ours = ("strace.txt", "capture.pcapng", "profile.callgrind", "findings.json", "report.js")
    for name in (*ours, "of the test"):
        (tmp_path / f".{name}.4711").touch()
    finish(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".of the test.4711"]


def test_a_trace_that_shows_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "strace.txt").write_text("7 1.0 getpid() = 7 <0.1>\n")
    finish(tmp_path)
    found = findings_file.read(tmp_path)
    assert found is not None
    assert (found.findings, found.problems) == ((), ())


def test_a_trace_that_cannot_be_read_is_a_problem_of_the_findings(tmp_path: Path) -> None:
    (tmp_path / "strace.txt").mkdir()
    finish(tmp_path)
    found = findings_file.read(tmp_path)
    assert found is not None
    assert [problem.partition(": ")[0] for problem in found.problems] == ["strace.txt"]


def test_a_trace_is_parsed_and_a_packet_dissected_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture(tmp_path, frame(100, b"one"), frame(100, b"two"))
    (tmp_path / "strace.txt").write_text("7 1.0 getpid() = 7 <0.1>\n")
    seen = []

    def count(name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def counted(argument: Any) -> Any:
            seen.append(name)
            return function(argument)

        return counted

    monkeypatch.setattr(timeline, "parse", count("parse", parse))
    monkeypatch.setattr(packets, "dissect", count("dissect", packets.dissect))
    monkeypatch.setattr(captures, "dissect", packets.dissect)
    finish(tmp_path, shared=True, ports=[100])
    assert sorted(seen) == ["dissect", "dissect", "parse"]


@needs_root
@needs_strace
@needs_tshark
@pytest.mark.parametrize("hub", ["epolls", "asyncio"])
def test_wireshark_shows_calls_and_packets_on_one_clock(
    pytester: pytest.Pytester, hub: str
) -> None:
    pytester.makepyfile(HTTP)
    done = pytester.runpytest(f"--eventlet-hub={hub}", "--strace", "--pcap")
    done.assert_outcomes(passed=1)
    (directory,) = (pytester.path / "eventlet-debug").glob("*-*")
    facts = json.loads((directory / "test.json").read_text())
    files = ["capture.pcapng", "findings.json", "report.js", "strace.txt"]
    assert facts["artifacts"] == files

    path = directory / "capture.pcapng"
    fields = ("frame.time_epoch", "_ws.col.Protocol", "frame.comment", "tcp.len", "_ws.col.Info")
    rows = tshark(path, *(f"-e{name}" for name in fields))
    times = [float(row[0]) for row in rows]
    assert times == sorted(times)
    phases = [row[4] for row in rows if row[4].endswith(("begins", "ended"))]
    assert [phase.split()[0].rstrip(":") for phase in phases] == [
        *("setup", "setup", "call", "call", "teardown", "teardown")
    ]
    assert any("sendto(" in row[4] and "[" in row[4] for row in rows)
    data = [row for row in rows if row[3] not in ("", "0")]
    told = [row for row in data if row[2].startswith("sent by sendto(fd ")]
    assert len(data) >= 10
    assert len(told) >= 0.95 * len(data)
    assert all(", greenthread " in row[2] and ", trace line " in row[2] for row in told)
    # By itself the kernel refuses the last connection.
    unsaid = [row[4] for row in rows if row[3] and not row[2]]
    assert ["RST" in info for info in unsaid] == [True]

    # As the documentation names the filters.
    sent = 'systemd_journal.comm == "1:test" && systemd_journal.message contains "sendto("'
    if choice.native_engine() is not None:
        sent += ' && systemd_journal.code_func == "test_http"'
    assert len(tshark(path, "-Y", sent, "-esystemd_journal.message")) == 5

    numbers = tshark(path, "-Ytcp", "-eframe.number")
    assert [[str(each.number)] for each in pcapng.packets(pcapng.read(path))] == numbers
    resets = tshark(path, "-Ytcp.flags.reset==1", "-eframe.number")
    found = findings_file.read(directory)
    assert found is not None
    refused = [each for each in found.findings if "refused a connection" in each.title]
    assert [each.place for each in refused] == [f"capture.pcapng packet {resets[-1][0]}"]

    with open_log(directory / "strace.txt") as log:
        calls = Attribution(event for event in parse(log) if type(event) is Syscall)
    for packet in pcapng.packets(pcapng.read(path)):
        segment = packets.dissect(packet)
        assert segment is not None
        call = calls.sender(segment, packet.time_ns)
        if call is not None:
            assert call.start_ns <= packet.time_ns


@needs_root
@needs_strace
def test_a_block_is_completed_as_the_test_is(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import socket

        def test_block(eventlet_trace):
            with eventlet_trace("strace", "pcap"):
                with socket.create_server(("127.0.0.1", 0)) as server:
                    socket.create_connection(server.getsockname()).close()
        """
    )
    pytester.runpytest().assert_outcomes(passed=1)
    (directory,) = (pytester.path / "eventlet-debug").glob("*-*")
    assert sorted(os.listdir(directory / "block-1")) == [
        *("capture.pcapng", "report.js", "strace.txt")
    ]
    assert (directory / "findings.json").exists()
    facts = json.loads((directory / "test.json").read_text())
    assert "block-1/capture.pcapng" in facts["artifacts"]
    whole = (directory / "block-1" / "capture.pcapng").read_bytes()
    assert b"sent by connect(fd " in whole


@pytest.mark.fault("crash-recorded")
@needs_root
@needs_strace
def test_a_test_that_kills_its_process_is_completed_as_others_are(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile(
        ECHO + "\n\n    def test_end():\n        test_echo()\n"
        "        import os\n        os.abort()\n"
    )
    done = pytester.runpytest(
        "--eventlet-hub=epolls", "--eventlet-timeout=60", "--strace", "--pcap"
    )
    done.assert_outcomes(passed=1, failed=1)
    for name in ("test_echo", "test_end"):
        (directory,) = (pytester.path / "eventlet-debug").glob(f"*{name}-*")
        files = sorted(os.listdir(directory))
        assert set(files) >= {"capture.pcapng", "findings.json", "strace.txt"}
        assert not [file for file in files if file.startswith(".")]
        assert b"sent by sendto(fd " in (directory / "capture.pcapng").read_bytes()


@needs_root
@needs_strace
def test_what_is_not_kept_is_not_completed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(ECHO)
    done = pytester.runpytest("--strace", "--pcap", "--eventlet-keep=failed")
    done.assert_outcomes(passed=1)
    assert not list((pytester.path / "eventlet-debug").glob("*/test.json"))


@needs_root
@needs_strace
def test_foreign_packets_are_left_out_without_a_trace_too(pytester: pytest.Pytester) -> None:
    ready = pytester.path / "ready"
    os.mkfifo(ready)
    pytester.makepyfile(
        f"""
        import socket

        def test_echo():
            open({str(ready)!r}, "w").close()  # the other program is running
            open({str(ready)!r}).close()  # and has sent
            with socket.create_server(("127.0.0.1", 0)) as server:
                with socket.create_connection(server.getsockname()) as client:
                    client.sendall(b"our ping")
        """
    )
    text = f"""
        import socket
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sender.bind(("127.0.0.1", 0))
        open({str(ready)!r}).close()
        sender.sendto(b"their ping", sender.getsockname())
        open({str(ready)!r}, "w").close()
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(text)]):
        pytester.runpytest("--pcap").assert_outcomes(passed=1)
    (directory,) = (pytester.path / "eventlet-debug").glob("*-*")
    raw = (directory / "capture.pcapng").read_bytes()
    assert b"our ping" in raw
    assert b"their ping" not in raw


TLS = """
    import socket, ssl, threading

    def test_tls():
        server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_side.load_cert_chain("cert.pem", "key.pem")
        client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client_side.check_hostname = False
        client_side.verify_mode = ssl.CERT_NONE
        assert client_side.keylog_filename is None
        with socket.create_server(("127.0.0.1", 0)) as server:
            def serve():
                with server_side.wrap_socket(server.accept()[0], server_side=True) as served:
                    served.recv(100)
                    served.sendall(b"HTTP/1.0 200 OK\\r\\n\\r\\nsecret words")
            thread = threading.Thread(target=serve)
            thread.start()
            with socket.create_connection(server.getsockname()) as raw:
                with client_side.wrap_socket(raw) as client:
                    client.sendall(b"GET /inside HTTP/1.0\\r\\n\\r\\n")
                    while client.recv(100):
                        pass
            thread.join()
"""


@needs_root
@needs_strace
@needs_tshark
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_tls_of_a_test_is_readable_in_tshark(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(TLS)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=localhost", "-keyout", "key.pem", "-out", "cert.pem"),
        ],
        cwd=pytester.path,
        check=True,
        capture_output=True,
    )
    pytester.runpytest("--strace", "--pcap").assert_outcomes(passed=1)
    (directory,) = (pytester.path / "eventlet-debug").glob("*-*")
    requests = tshark(directory / "capture.pcapng", "-Yhttp.request", "-ehttp.request.uri")
    port = tshark(directory / "capture.pcapng", "-Ytcp.flags.syn==1", "-etcp.dstport")[0][0]
    decoded = tshark(
        directory / "capture.pcapng",
        *("-d", f"tcp.port=={port},tls", "-d", f"tls.port=={port},http"),
        *("-Yhttp.request", "-ehttp.request.uri"),
    )
    assert ["/inside"] in requests + decoded
    keys = directory / "tls-keys.txt"
    assert keys.stat().st_mode & 0o777 == 0o600
    lines = keys.read_text().splitlines()
    assert len(lines) == len(set(lines)) >= 4


@needs_root
@needs_strace
def test_warnings_of_ssl_still_name_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import ssl
        import warnings

        def test_warning():
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                ssl.SSLContext(ssl.PROTOCOL_TLS)
                ssl.SSLContext(ssl.PROTOCOL_TLSv1)
            assert caught
            assert {warning.filename for warning in caught} == {__file__}
        """
    )
    pytester.runpytest("--pcap").assert_outcomes(passed=1)


def test_learning_the_ports_of_a_process_shows_nowhere() -> None:
    text = """
        import socket
        from pytest_eventlet_debug.tracers import ports
        assert ports.used() is None
        ports.install()
        ports.begin()
        server = socket.create_server(("127.0.0.1", 0))
        client = socket.create_connection(server.getsockname())
        expected = {server.getsockname()[1], 53}  # it asks for the address
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", 0))
        udp.sendto(b"", ("127.0.0.1", 9))
        expected |= {udp.getsockname()[1], 9}
        import _socket
        raw = _socket.socket()
        raw.bind(("127.0.0.1", 0))  # has no weak references in some Pythons
        socket.socket(socket.AF_UNIX).bind("\\0name")
        gone = socket.socket()
        gone.bind(("127.0.0.1", 0))
        del gone
        unknown = {raw.getsockname()[1]}
        assert set(ports.used()) - unknown == expected, (ports.used(), expected)
        import subprocess
        subprocess.run(["true"])
        assert ports.used() is None
        ports.begin()
        assert set(ports.used()) - unknown == expected
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert (done.returncode, done.stderr) == (0, "")
