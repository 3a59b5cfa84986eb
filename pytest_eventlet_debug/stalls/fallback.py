"""Notice stalls at the switch that ends them, where the watcher in C is not there."""

from __future__ import annotations

import types
from typing import Any

from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import function_name
from pytest_eventlet_debug.stalls.model import Stall
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system import unpatched

_POLL = {"read": unpatched.select.POLLIN, "write": unpatched.select.POLLOUT}
_HANGUP = unpatched.select.POLLHUP


class SwitchWatch:
    """Measures from switch to switch in this thread; costs about 0.5 us each."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._since = 0.0
        self._delay = 0.0
        self._hubs: dict[str, Any] = {}
        self._found: list[Stall] = []
        self._is_armed = False
        self._left_over: set[int] = set()
        self._has_switched = False

    @property
    def descriptors(self) -> set[int]:
        """The descriptors that it has open."""
        return set()

    def start(self) -> None:
        """Do nothing: there is no thread to make."""

    def arm(self, seconds: float, hubs: dict[str, Any] | None, is_new: bool) -> None:
        """Watch from now on; see :class:`~.native.NativeWatch`."""
        self._seconds, self._hubs = seconds, hubs if hubs is not None else {}
        switches.subscribe(self._switched)
        self._delay = _run_delay()
        self._since = unpatched.monotonic()
        if is_new:
            self._left_over, self._has_switched = timers_of(hubs), False
        self._is_armed = True

    def disarm(self) -> list[Stall]:
        """Watch no more; return what was seen since."""
        if self._is_armed:
            self._judge(None, unpatched.monotonic() - self._since)
            switches.unsubscribe(self._switched)
        self._is_armed = False
        found, self._found = self._found, []
        return found

    def stop(self) -> None:
        """Leave ``greenlet.settrace()`` to others."""
        switches.unsubscribe(self._switched)

    def _switched(self, event: str, arguments: tuple[Any, Any]) -> None:
        now = unpatched.monotonic()
        held = now - self._since
        if held >= self._seconds and self._is_armed:
            self._judge(arguments[0], held)
            now = unpatched.monotonic()
        self._since, self._has_switched = now, True

    def _judge(self, origin: Any, held: float) -> None:
        """Keep what ran until now if it is a stall.

        :param origin: the greenlet; ``None`` for the one that still runs.
        """
        if held < self._seconds:
            return
        delay = _run_delay()
        # All that there was since the last time may have been now.
        held -= delay - self._delay
        self._delay = delay
        hub = self._hubs.get("hub")
        if held < self._seconds or hub is None or origin is getattr(hub, "greenlet", None):
            return
        frame = getattr(origin, "gr_frame", None)
        due = _due(hub, origin, set() if self._has_switched else self._left_over)
        ready = _ready(hub, origin) if self._has_switched else 0
        if due or ready:
            began_ns = unpatched.time_ns() - int(held * 1e9)
            starts = next(filter(None, map(_started_by, due)), None)
            stall = Stall(held, began_ns, _frames(frame), len(due), ready, starts, is_over=True)
            self._found.append(stall)


def _run_delay() -> float:
    """Return how many seconds this thread has been ready and had no CPU; see ``proc(5)``."""
    try:
        return int(unpatched.read_file("/proc/thread-self/schedstat").split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def timers_of(hubs: dict[str, Any] | None) -> set[int]:
    """Return the ids of all timers of this thread's hub."""
    hub = hubs.get("hub") if hubs is not None else None
    lists = (getattr(hub, "timers", ()), getattr(hub, "next_timers", ()))
    return {id(timer) for each in lists for _, timer in each}


def _due(hub: Any, origin: Any, left_out: set[int]) -> list[Any]:
    """Return the timers that others than *origin* have and that are due, but for some ids."""
    now = hub.clock()
    return [
        timer
        for when, timer in [*hub.timers, *hub.next_timers]
        if when <= now
        and id(timer) not in left_out
        and not timer.called
        and _is_of_other(timer, origin)
    ]


def _started_by(timer: Any) -> str | None:
    """Return the function that a timer starts in a new greenthread, as ``spawn()`` makes them."""
    match getattr(timer, "tpl", None):
        case (types.BuiltinMethodType(), (function, tuple(), dict()), _):
            name = getattr(function, "__qualname__", None)
            return name if isinstance(name, str) else None
    return None


def _ready(hub: Any, origin: Any) -> int:
    """Count the listeners of others than *origin* for which an event is there."""
    waited_for = [
        (fd, _POLL[event])
        for event, listeners in hub.listeners.items()
        for fd, listener in list(listeners.items())
        if event in _POLL and _is_of_other(listener, origin)
    ]
    # One may wait to read and another one to write, and poll() has one entry for a descriptor.
    asked: dict[int, int] = {}
    for fd, event in waited_for:
        asked[fd] = asked.get(fd, 0) | event
    poll = unpatched.select.poll()
    for fd, events in asked.items():
        poll.register(fd, events)
    came = dict(poll.poll(0))
    return sum(1 for fd, event in waited_for if came.get(fd, 0) & (event | _HANGUP))


def _is_of_other(waker: Any, origin: Any) -> bool:
    greenlet = getattr(waker, "greenlet", None)
    return greenlet is None or not (greenlet is origin or greenlet.dead)


def _frames(frame: types.FrameType | None) -> tuple[Frame, ...]:
    found = []
    while frame is not None:
        code = frame.f_code
        found.append(Frame(code.co_filename, frame.f_lineno or 0, function_name(code)))
        frame = frame.f_back
    return tuple(found)
