"""What is noticed of stalls where the watcher in C is not there."""

from __future__ import annotations

import pytest


def test_who_waits_to_read_is_ready_though_another_one_waits_to_write(
    pytester: pytest.Pytester,
) -> None:
    pytester.makepyfile("""
        import socket

        import eventlet
        from eventlet.hubs import get_hub, trampoline

        from pytest_eventlet_debug.stalls import fallback

        def test_it():
            near, far = socket.socketpair()
            near.setblocking(False)
            try:
                while True:
                    near.send(b"x" * 4096)
            except BlockingIOError:
                pass
            for what in ("read", "write"):
                eventlet.spawn(trampoline, near, **{what: True})
            eventlet.sleep(0)
            ready = [fallback._ready(get_hub(), eventlet.getcurrent())]
            far.send(b"x")
            ready.append(fallback._ready(get_hub(), eventlet.getcurrent()))
            far.close()
            ready.append(fallback._ready(get_hub(), eventlet.getcurrent()))
            assert ready == [0, 1, 2]
    """)
    pytester.runpytest("--eventlet-hub=poll").assert_outcomes(passed=1)
