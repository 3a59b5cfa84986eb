"""How the helper waits for several things at once, and answers when one of them has come."""

from __future__ import annotations

import _socket
from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import select
import time
from typing import Protocol

from pytest_eventlet_debug.helper.messages import answer_message


class Loop:
    """Calls a function when a descriptor can be read or when a time has come."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._alarms: dict[int, tuple[float, Callable[[], None]]] = {}
        self._next_alarm = 0
        self._stopped = False

    def watch(self, fd: int, handler: Callable[[], None]) -> None:
        """Call *handler* whenever the descriptor *fd* can be read or has ended."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Forget the descriptor *fd*; it may be closed then."""
        if self._handlers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def call_later(self, seconds: float, handler: Callable[[], None]) -> int:
        """Call *handler* once, after *seconds*; return the alarm's number."""
        self._next_alarm += 1
        self._alarms[self._next_alarm] = (time.monotonic() + seconds, handler)
        return self._next_alarm

    def cancel(self, alarm: int | None) -> None:
        """Forget the alarm of that number, if it is still to come."""
        if alarm is not None:
            self._alarms.pop(alarm, None)

    def stop(self) -> None:
        """Let :meth:`run` return."""
        self._stopped = True

    def run(self) -> None:
        """Serve until :meth:`stop`."""
        while not self._stopped:
            self.step()

    def step(self) -> None:
        """Wait for the next thing to happen and handle what is due."""
        timeout = None
        if self._alarms:
            first = min(when for when, _ in self._alarms.values())
            timeout = max(0.0, first - time.monotonic()) * 1000
        ready = [(fd, self._handlers[fd]) for fd, _ in self._poll.poll(timeout)]
        for fd, handler in ready:
            # One before it may have closed this descriptor, and another one has its number since.
            if self._handlers.get(fd) is handler:
                handler()
        now = time.monotonic()
        for number, (when, handler) in sorted(self._alarms.items()):
            if when <= now and self._alarms.pop(number, None) is not None:
                handler()


class Outbox:
    """Sends answers: those that are given while a message is served, in one message."""

    def __init__(self, control: _socket.socket) -> None:
        self._control = control
        self._answers: list[tuple[int, str | None, dict[str, object]]] = []
        self._is_held = False

    def put(self, sequence: int, error: str | None, values: dict[str, object]) -> None:
        """Send an answer, or have it sent soon."""
        self._answers.append((sequence, error, values))
        if not self._is_held:
            self._send()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Send what is put there meanwhile at the end."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
            self._send()

    def _send(self) -> None:
        answers, self._answers = self._answers, []
        if answers:
            with contextlib.suppress(OSError):  # the test process has gone; the loop hears of it
                self._control.send(answer_message(answers))


class Answer:
    """The answer that is due to one request; only the first one given is sent."""

    def __init__(self, outbox: Outbox, sequence: int) -> None:
        self._outbox = outbox
        self._sequence = sequence
        self._given = False

    def __call__(self, error: str | None = None, **values: object) -> None:
        """Send *values*, or the one-line *error*."""
        if self._given:
            return
        self._given = True
        if error is not None:
            error = " ".join(error.split())[:4000]
        self._outbox.put(self._sequence, error, values)


class Reply(Protocol):
    """Takes the values that were asked for, or a one-line error; whoever waits for them."""

    def __call__(self, error: str | None = None, **values: object) -> None: ...


class Complaint:
    """In the place of an answer that nobody waits for: only an error is kept."""

    def __init__(self, keep: Callable[[str], None]) -> None:
        self._keep = keep

    def __call__(self, error: str | None = None, **values: object) -> None:
        if error is not None:
            self._keep(" ".join(error.split())[:1000])
