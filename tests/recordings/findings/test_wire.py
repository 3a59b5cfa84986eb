"""What packets tell, in recordings of real runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import re

from needs import needs_root
from needs import needs_strace
import pytest

from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings.http_stream import HttpStream
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.wire import Wire
from pytest_eventlet_debug.recordings.packets import dissected
from pytest_eventlet_debug.recordings.pcapng import read
from pytest_eventlet_debug.recordings.timeline import in_order
from pytest_eventlet_debug.recordings.timeline import read_trace

pytestmark = [
    needs_strace,
    needs_root,
]

Record = Callable[..., list[Path]]

SERVER = """
import eventlet

def test_server():
    listener = eventlet.listen(("127.0.0.1", 0))
    def serve():
        connection, _ = listener.accept()
        SERVE
        connection.close()
    def fetch():
        client = eventlet.connect(listener.getsockname())
        client.sendall(b"GET /slow HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        try:
            client.recv(100)
        except OSError:
            pass
        client.close()
    server = eventlet.spawn(serve)
    eventlet.spawn(fetch).wait()
    server.wait()
"""


@pytest.fixture
def wire(record: Record) -> Callable[[str], list[Finding]]:
    """Return what the packets of a program's one test tell."""

    def run(program: str) -> list[Finding]:
        (directory,) = record(program, "epolls", "--pcap")
        wire = Wire(read_trace(directory).calls)
        for packet, segment in in_order(dissected(read(directory / "capture.pcapng"))):
            wire.see(packet, segment)
        return wire.findings()

    return run


def test_closing_without_an_answer_names_the_request_and_who_closed(
    wire: Callable[[str], list[Finding]],
) -> None:
    (found,) = wire(SERVER.replace("SERVE", "connection.recv(100)"))
    assert re.fullmatch(
        r"127\.0\.0\.1:\d+ closed without an answer to GET /slow, \d+(?: us|\.\d\d ms) after it: "
        r"close\(\d+\) by greenthread \d+:serve, trace line \d+",
        found.title,
    )
    assert found.evidence[0].file == "capture.pcapng"


def test_closing_with_unread_data_is_a_reset_with_the_request_unanswered(
    wire: Callable[[str], list[Finding]],
) -> None:
    (found,) = wire(SERVER.replace("SERVE", "eventlet.sleep(0.1); connection.recv(3)"))
    assert " reset the connection to 127.0.0.1:" in found.title
    assert ", GET /slow unanswered: close(" in found.title
    assert ":serve, trace line " in found.title


def test_an_answer_after_more_than_a_second_is_told_with_the_call_that_gave_it(
    wire: Callable[[str], list[Finding]],
) -> None:
    answer = "connection.recv(100); eventlet.sleep(1.1); connection.sendall(b'HTTP/1.1 200 OK')"
    (found,) = wire(SERVER.replace("SERVE", answer))
    assert found.title.startswith("GET /slow was answered after 1.")
    assert ": sendto(" in found.title


def test_a_refused_connection_says_that_nobody_listened(
    wire: Callable[[str], list[Finding]],
) -> None:
    program = """
import socket
import eventlet

def test_refused():
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))
    try:
        eventlet.connect(closed.getsockname())
    except ConnectionRefusedError:
        pass
"""
    (found,) = wire(program)
    assert found.title.endswith(" refused a connection: nobody listened there")


def test_connections_that_are_refused_until_somebody_listens_are_told_together(
    wire: Callable[[str], list[Finding]],
) -> None:
    program = """
import socket
import eventlet

def test_retries():
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    for number in range(4):
        if number == 3:
            listener.listen()
        try:
            client = eventlet.connect(listener.getsockname())
        except ConnectionRefusedError:
            pass
    server, _ = listener.accept()
    client.close()
    server.close()
"""
    (found,) = wire(program)
    until = r"nobody listened there until it accepted one [\d.]+ (?:us|ms|s) after the first"
    assert re.search(rf" refused 3 connections: {until}$", found.title)


AT_ONCE = r"""
    HEAD, GET = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    bare = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n"
    for requests, answers in (
        ((HEAD, GET), bare + bare + b"four"),
        ((GET + HEAD,), bare + b"four" + bare),
    ):
        listener = eventlet.listen(("127.0.0.1", 0))
        client = eventlet.connect(listener.getsockname())
        connection, _ = listener.accept()
        for each in requests:
            client.sendall(each)
        asked = b""
        while asked.count(b"\r\n\r\n") < 2:
            asked += connection.recv(100)
        connection.sendall(answers)
        connection.close()
        while client.recv(200):
            pass
"""


def test_a_request_that_is_answered_is_no_finding(wire: Callable[[str], list[Finding]]) -> None:
    answer = "connection.recv(100); connection.sendall(b'HTTP/1.1 200 OK')"
    # As the servers in swift's tests do, which know the request that will come.
    ahead = """connection.sendall(b'HTTP/1.1 204 OK\\r\\nContent-Length: 0\\r\\n\\r\\n')
        connection.recv(100)
        connection.close()
        connection, _ = listener.accept()"""
    program = SERVER.replace("SERVE", f"{ahead}; {answer}")
    program = program.replace("eventlet.spawn(fetch)", "fetch(); eventlet.spawn(fetch)")
    # And two requests at once, one of which is for an answer without a body.
    assert wire(program + AT_ONCE) == []


ANSWER = """connection.recv(100)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nHEAD\\r\\n\\r\\nBODY")"""


def test_an_answer_that_contradicts_itself_says_how(
    wire: Callable[[str], list[Finding]],
) -> None:
    bodies = [
        ("Content-Length: 10", "four"),
        ("Transfer-Encoding: chunked", "4\\r\\nfour\\r\\n"),
        ("Content-Length: 4", "four and more"),
        ("Transfer-Encoding: chunked", "four\\r\\n"),
        ("Content-Length: 4", "four"),
        ("Transfer-Encoding: chunked", "4\\r\\nfour\\r\\n0\\r\\n\\r\\n"),
    ]
    server = SERVER.partition("    def serve():")[2]
    program = SERVER.partition("    def serve():")[0]
    for head, body in bodies:
        answer = ANSWER.replace("HEAD", head).replace("BODY", body)
        program += "    def serve():" + server.replace("SERVE", answer)
    titles = [re.sub(r"127\.0\.0\.1:\d+", "server", each.title) for each in wire(program)]
    assert [title.partition(" by greenthread")[0].rpartition("(")[0] for title in titles] == [
        "the answer 200 says Content-Length: 10, and 4 bytes came before server closed: close",
        "the answer 200 is chunked, and no last chunk came before server closed: close",
        "server: the answer 200 says Content-Length: 4, and 9 bytes more came: sendto",
        r"server: the answer 200 is chunked, and a chunk's size is 'four\r': sendto",
    ]


@pytest.mark.parametrize(
    ("begun", "lost"),
    [
        *((begun, False) for begun in (b"G", b"GET", b"GET /x HT", b"HTTP", b"HTTP/1.1 20")),
        *((begun, True) for begun in (b"x", b"get /", b"AMQP\0", b"*1", b"SSH-2.0", b"\x16\x03")),
    ],
)
def test_bytes_that_begin_no_http_message_are_not_kept_for_more(begun: bytes, lost: bool) -> None:
    # Else a stream of another protocol would be searched anew with each packet of it.
    stream = HttpStream()
    assert stream.feed(begun) is None
    assert stream.lost == lost


@pytest.mark.parametrize(
    ("method", "pieces"),
    [
        ("GET", [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", b"\x81\5hello"]),
        ("GET", [b"HTTP/1.1 200 OK\r\n\r\n", b"all until", b"the end"]),
        ("CONNECT", [b"HTTP/1.1 200 OK\r\n\r\n", b"\x16\3\1"]),
        ("GET", [b"HTTP/1.1 200 OK\r\nContent-", b"Length: 4\r\n\r", b"\nfo", b"ur"]),
        (
            "GET",
            [
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0",
                b"4\r\nfo",
                b"ur\r\n0\r",
                b"\n\r\n",
            ],
        ),
    ],
)
def test_pieces_that_may_be_right_are_no_contradiction(method: str, pieces: list[bytes]) -> None:
    stream = HttpStream()
    assert [stream.feed(piece, method) for piece in pieces] == [None] * len(pieces)
    assert stream.broken_off() is None


def test_a_peer_that_reads_nothing_for_long_has_a_window_of_zero(
    wire: Callable[[str], list[Finding]],
) -> None:
    # What the client can keep fits into the server's window, which so is zero only once.
    program = """
import time
import eventlet
from eventlet.green import socket

def test_full():
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 10_000)
    client.connect(listener.getsockname())
    connection, _ = listener.accept()
    sent = 0
    def send():
        nonlocal sent
        while True:
            sent += client.send(bytes(10_000))
    began = time.monotonic()
    sender = eventlet.spawn(send)
    eventlet.sleep(2)  # a busy machine takes its time until the window is zero
    sender.kill()
    while sent:
        sent -= len(connection.recv(1_000_000))
    with open("seconds", "w") as file:
        print(time.monotonic() - began, file=file)
"""
    (found,) = [each for each in wire(program) if "window" in each.title]
    told = re.fullmatch(
        r"127\.0\.0\.1:\d+ \(fd \d+\) accepted no data for (\d+\.\d\d) s, while "
        r"127\.0\.0\.1:\d+ had more to send: nobody read, so its window was zero",
        found.title,
    )
    assert told is not None
    assert 1 <= float(told[1]) <= float(Path("seconds").read_text())


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (
            "500",
            r"GET /slow was answered with 500: ValueError: no such thing: sendto\(\d+\) by "
            r"greenthread \d+:serve, trace line \d+",
        ),
        ("200", None),
    ],
)
def test_a_server_error_with_a_traceback_says_what_was_raised(
    wire: Callable[[str], list[Finding]], status: str, told: str | None
) -> None:
    body = (
        r"Traceback (most recent call last):\n  File \'app.py\', line 1, in app\n    raise\n"
        r"ValueError: no such thing\n"
    )
    answer = (
        f"connection.recv(100); body = b'{body}'; connection.sendall(b'HTTP/1.1 {status} No\\r\\n'"
        r"b'Content-Length: %d\r\n\r\n' % len(body) + body)"
    )
    found = wire(SERVER.replace("SERVE", answer).replace("recv(100)\n", "recv(1000)\n"))
    if told is None:
        assert found == []
    else:
        (finding,) = found
        assert re.fullmatch(told, finding.title)


DNS = """
import dns.message
import eventlet
from eventlet.green import socket

def exchange(client, server):
    for name in ("first.test", "second.test"):
        query = dns.message.make_query(name, "A")
        client.sendto(query.to_wire(), server.getsockname())
        data, peer = server.recvfrom(2000)
        yield dns.message.make_response(dns.message.from_wire(data)), peer

def test_dns():
    client, server, other = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(3))
    for each in (client, server, other):
        each.bind(("127.0.0.1", 0))
    for answer, peer in exchange(client, server):
        ANSWER
"""


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (
            "answer.id ^= 1; server.sendto(answer.to_wire(), peer)",
            r"with the id \d+ instead of \d+",
        ),
        (
            "other.sendto(answer.to_wire(), peer)",
            r"which had been sent to 127\.0\.0\.1:\d+",
        ),
        (
            "answer.question = dns.message.make_query('other.test', 'A').question; "
            "server.sendto(answer.to_wire(), peer)",
            r"with the question other\.test A",
        ),
    ],
)
def test_a_dns_answer_that_is_not_the_querys_says_in_what(
    wire: Callable[[str], list[Finding]], answer: str, told: str
) -> None:
    found = wire(DNS.replace("ANSWER", answer))
    assert len(found) == 2
    for finding, name in zip(found, ("first", "second"), strict=True):
        assert re.fullmatch(
            rf"127\.0\.0\.1:\d+ answered the DNS query for {name}\.test A,? {told}: "
            r"sendto\(\d+\) by greenthread 1:test, trace line \d+",
            finding.title,
        )
        assert finding.place.startswith("capture.pcapng packet ")


def test_dns_answers_that_match_a_query_are_no_findings(
    wire: Callable[[str], list[Finding]],
) -> None:
    twice = "[server.sendto(answer.to_wire(), peer) for _ in range(2)]; server.sendto(b'?', peer)"
    assert wire(DNS.replace("ANSWER", twice)) == []


UNBOUND = """
import dns.message
from eventlet.green import socket

def test_dns():
    client, server = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    server.bind(("127.0.0.1", 0))
    address = server.getsockname()
    server.close()
    for number in range(COUNT):
        client.sendto(dns.message.make_query(f"n{number}.test", "AAAA").to_wire(), address)
    client.sendto(b"no query", address)
"""


@pytest.mark.parametrize(
    ("count", "told"), [(0, ""), (1, "the DNS query for n0.test AAAA"), (3, "3 DNS queries")]
)
def test_dns_queries_that_no_socket_takes_are_told_and_other_datagrams_not(
    wire: Callable[[str], list[Finding]], count: int, told: str
) -> None:
    found = wire(UNBOUND.replace("COUNT", str(count)))
    assert len(found) == bool(count)
    for finding in found:
        assert re.fullmatch(rf"no socket took {told} at 127\.0\.0\.1:\d+", finding.title)
        assert finding.place.startswith("capture.pcapng packet ")


def test_what_the_kernel_resets_as_the_process_dies_is_not_told(record: Record) -> None:
    program = """
import os, eventlet

def test_dies():
    listener = eventlet.listen(("127.0.0.1", 0))
    def request(path):
        client = eventlet.connect(listener.getsockname())
        client.sendall(b"GET /" + path + b" HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
        return client, listener.accept()[0]
    closed = request(b"closed")
    closed[1].close()
    kept = request(b"kept")
    os._exit(3)
"""
    (directory,) = record(program, "epolls", "--pcap", "--eventlet-timeout=60")
    found = findings_file.read(directory)
    assert found is not None
    (told,) = (each.title for each in found.findings if each.kind == "wire")
    assert ", GET /closed unanswered: close(" in told


MISSING = """
import eventlet

def exchange(sent, wait):
    listener = eventlet.listen(("127.0.0.1", 0))
    client = eventlet.connect(listener.getsockname())
    client.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    server = listener.accept()[0]
    server.recv(100)
    server.sendall(b"HTTP/1.1 200 OK\\r\\n" + sent)
    eventlet.sleep(wait)
    return client, server

def test_short():
    kept = exchange(b"Content-Length: 5\\r\\n\\r\\nabc", 0.6)
    assert False

def test_whole():
    kept = exchange(b"Content-Length: 3\\r\\n\\r\\nabc", 0.6)
    assert False

def test_stream():
    kept = exchange(b"Transfer-Encoding: chunked\\r\\n\\r\\n3\\r\\nabc\\r\\n", 0.6)
    assert False

def test_under_way():
    kept = exchange(b"Content-Length: 5\\r\\n\\r\\nabc", 0.1)
    assert False

def test_passes():
    kept = exchange(b"Content-Length: 5\\r\\n\\r\\nabc", 0.6)
"""


def test_what_was_missing_of_a_message_as_the_test_failed_is_told(record: Record) -> None:
    told = {}
    for each in record(MISSING, "epolls", "--pcap"):
        found = findings_file.read(each)
        assert found is not None
        titles = [
            finding.title for finding in found.findings if " the test failed" in finding.title
        ]
        told[each.name.partition("-epolls")[0]] = titles
    ((title,),) = filter(None, told.values())
    assert told["test_program.py-test_short"] == [title]
    assert re.fullmatch(
        r"127\.0\.0\.1:\d+: the answer 200 says Content-Length: 5, and 3 bytes came, the last "
        r"6\d\d\.\d\d ms before the test failed",
        title,
    )
