"""A server with a greenthread for each client, and several clients at once."""

from __future__ import annotations

from collections.abc import Iterator

import eventlet
from eventlet.green import socket
import pytest

Address = tuple[str, int]


def echo(connection: socket.socket, _address: Address) -> None:
    """Send back all that comes, until the client has said all it had to say."""
    while data := connection.recv(4096):
        connection.sendall(data)


@pytest.fixture
def server_address() -> Iterator[Address]:
    listener = eventlet.listen(("127.0.0.1", 0))
    server = eventlet.spawn(eventlet.serve, listener, echo)
    yield listener.getsockname()
    server.kill()
    listener.close()


def ask(address: Address, message: bytes) -> bytes:
    """Send *message*, say that this was all, and return the whole answer."""
    with socket.create_connection(address) as client:
        client.sendall(message)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(4096), b""))


@pytest.mark.parametrize("size", [1, 100_000])
def test_message_comes_back(server_address: Address, size: int) -> None:
    message = b"x" * size

    assert ask(server_address, message) == message


def test_clients_are_served_at_the_same_time(server_address: Address) -> None:
    messages = [f"client {number}".encode() for number in range(8)]
    pool = eventlet.GreenPool(size=len(messages))

    with socket.create_connection(server_address):  # a client that says nothing
        answers = list(pool.imap(lambda message: ask(server_address, message), messages))

    assert answers == messages
