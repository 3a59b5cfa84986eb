"""A WSGI application behind eventlet's server, asked with a green HTTP client."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import io
from typing import Any

import eventlet
from eventlet.green.http import client
import eventlet.wsgi
import pytest


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer GET with the path and POST with the length of what was sent."""
    if environ["PATH_INFO"] == "/missing":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not here"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["REQUEST_METHOD"] == "POST":
        return [str(len(environ["wsgi.input"].read())).encode()]
    return [environ["PATH_INFO"].encode()]


@pytest.fixture
def connection() -> Iterator[client.HTTPConnection]:
    listener = eventlet.listen(("127.0.0.1", 0))
    server = eventlet.spawn(eventlet.wsgi.server, listener, application, log=io.StringIO())
    connection = client.HTTPConnection(*listener.getsockname())
    yield connection
    connection.close()
    server.kill()
    listener.close()


@pytest.mark.parametrize(("path", "status"), [("/", 200), ("/missing", 404)])
def test_get(connection: client.HTTPConnection, path: str, status: int) -> None:
    connection.request("GET", path)

    assert connection.getresponse().status == status


def test_requests_share_one_connection(connection: client.HTTPConnection) -> None:
    answers = []
    for body in (b"", b"short", b"long" * 10_000):
        connection.request("POST", "/length", body=body)
        answers.append(connection.getresponse().read())

    assert answers == [b"0", b"5", b"40000"]
