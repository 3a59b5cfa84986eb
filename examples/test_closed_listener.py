"""An accept loop whose listening socket is closed by another greenthread.

This passes on the hubs epolls, poll and selects, and fails on asyncio.

The loop does what many servers do: an error of accept() is one bad connection,
so it goes on, until the listener is shut down, which makes accept() raise
EINVAL. On most hubs the loop learns of the shutdown as soon as the hub polls.
The asyncio hub queues the event behind the timers that are due, one of which
wakes the greenthread that closes the socket. When the loop gets to run, there
is no shut down listener any more but a closed one: EBADF, now and for ever.
"""

from __future__ import annotations

import errno
import socket
import time

import eventlet

# A real server would spin until somebody kills it.
SPIN_AT_MOST = 0.3  # seconds


def serve(listener: socket.socket, deadline: float) -> int:
    """Greet clients until *listener* is shut down; return how often accept() failed."""
    failed_accepts = 0
    while time.monotonic() < deadline:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            failed_accepts += 1
            if error.errno == errno.EINVAL:
                break
            continue
        connection.sendall(b"hello")
        connection.close()
    return failed_accepts


def stop(listener: socket.socket) -> None:
    """Shut *listener* down, let the server see it, then free the descriptor."""
    listener.shutdown(socket.SHUT_RDWR)
    eventlet.sleep(0)
    listener.close()


def test_server_ends_when_its_listener_is_closed() -> None:
    listener = eventlet.listen(("127.0.0.1", 0))
    server = eventlet.spawn(serve, listener, time.monotonic() + SPIN_AT_MOST)
    eventlet.sleep(0.01)  # the server waits in accept() from here on

    stop(listener)

    failed_accepts = server.wait()
    assert failed_accepts == 1, (
        f"server greenthread still accepting on a closed socket: {failed_accepts} accepts"
    )
