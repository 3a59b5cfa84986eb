"""What hubs hold: listeners and timers, and which greenlet each of them will wake."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import types
from typing import Any

import msgspec

from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.system import unpatched

#: Seconds after which a clock that goes shows another time.
_TICK = 0.001


class Listener(msgspec.Struct, frozen=True):
    """A descriptor that a hub watches; *raw* is eventlet's own object."""

    #: ``read`` or ``write``.
    event: str
    fd: int
    greenlet: Any
    raw: Any


class Timer(msgspec.Struct, frozen=True):
    """A call that a hub will make; *raw* is eventlet's own object."""

    #: Time left; below zero where it is due.
    seconds: float
    #: ``switch`` or ``throw`` into *greenlet*, or empty for another call.
    action: str
    greenlet: Any
    call: Any
    arguments: tuple[Any, ...]
    raw: Any


class Wakers:
    """Listeners and timers of some hubs, copied at one moment. Not to be kept."""

    def __init__(self, hubs: Iterable[Any], greenlet_type: type) -> None:
        self._type = greenlet_type
        #: By id of the hub.
        self.listeners: dict[int, list[Listener]] = {}
        #: By id of the hub, the next one first.
        self.timers: dict[int, list[Timer]] = {}
        #: By id of the hub whose clock stands still: that clock.
        self.stopped: dict[int, str] = {}
        self._left: dict[int, float] = {}
        self._listeners_of: dict[int, list[Listener]] = {}
        self._timers_of: dict[int, list[Timer]] = {}
        for hub in hubs:
            try:
                self._read(hub)
            except Exception:
                # A hub of another's making, or one that is half made.
                continue

    def _read(self, hub: Any) -> None:
        listeners = self.listeners[id(hub)] = list(self._read_listeners(hub))
        timers = self.timers[id(hub)] = list(self._read_timers(hub))
        timers.sort(key=lambda timer: timer.seconds)
        for listener in listeners:
            self._listeners_of.setdefault(id(listener.greenlet), []).append(listener)
        for timer in timers:
            self._left[id(timer.raw)] = timer.seconds
            self._timers_of.setdefault(id(timer.greenlet), []).append(timer)

    def _read_listeners(self, hub: Any) -> Iterable[Listener]:
        for event, bucket in list(hub.listeners.items()):
            for fd, raw in list(bucket.items()):
                yield self._listener(str(event), fd, raw)
        for event, waiting in list(hub.secondaries.items()):
            for fd, raws in list(waiting.items()):
                for raw in list(raws):
                    yield self._listener(str(event), fd, raw)

    def _listener(self, event: str, fd: int, raw: Any) -> Listener:
        owner = _bound_to(raw.cb, self._type)
        return Listener(event, fd, owner if owner is not None else raw.greenlet, raw)

    def _read_timers(self, hub: Any) -> Iterable[Timer]:
        now = hub.clock()
        if type(hub.clock) is not types.BuiltinFunctionType and _stands_still(hub.clock):
            self.stopped[id(hub)] = f"{hub.clock.__module__}.{callable_name(hub.clock)}()"
        for when, raw in list(hub.timers) + list(hub.next_timers):
            if raw.called or not hasattr(raw, "tpl"):
                continue
            maker = getattr(raw, "greenlet", None)
            if maker is not None and maker.dead:
                continue
            call, arguments, _ = raw.tpl
            target = _bound_to(call, self._type)
            action = call.__name__ if target is not None else ""
            yield Timer(when - now, action, target, call, tuple(arguments), raw)

    def left(self, raw_timer: Any) -> float | None:
        """Return the seconds left to a timer, if it has not been called."""
        seconds = self._left.get(id(raw_timer))
        return None if seconds is None else max(seconds, 0.0)

    def overdue(self, raw_timer: Any) -> float:
        """Return by how many seconds a timer that has not been called is late, or 0."""
        return max(-self._left.get(id(raw_timer), 0.0), 0.0)

    def listeners_of(self, greenlet: Any) -> list[Listener]:
        """Return the listeners that will wake a greenlet."""
        return self._listeners_of.get(id(greenlet), [])

    def timers_of(self, greenlet: Any) -> list[Timer]:
        """Return the timers that will wake a greenlet, the next one first."""
        return self._timers_of.get(id(greenlet), [])

    def greenlets(self) -> Iterable[Any]:
        """Return every greenlet that will be woken."""
        for listeners in self.listeners.values():
            yield from (each.greenlet for each in listeners if each.greenlet is not None)
        for timers in self.timers.values():
            yield from (each.greenlet for each in timers if each.greenlet is not None)

    def starts(self, greenlet: Any) -> Any:
        """Return the function that a greenthread was spawned with and will begin with."""
        for timer in self.timers_of(greenlet):
            if timer.action == "switch" and timer.arguments:
                return timer.arguments[0]
        return None


def _stands_still(clock: Callable[[], float]) -> bool:
    """Say whether a clock shows the same time again a moment later."""
    before, end = clock(), unpatched.monotonic() + _TICK
    while unpatched.monotonic() < end:
        pass
    return clock() == before


def _bound_to(call: Any, greenlet_type: type) -> Any:
    """Return the greenlet whose ``switch`` or ``throw`` a callable is, else ``None``."""
    if type(call) is types.BuiltinMethodType and call.__name__ in ("switch", "throw"):
        owner = call.__self__
        if issubclass(type(owner), greenlet_type):
            return owner
    return None
