"""Tell what each hub watches and will call. Plain data; never makes a hub."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

import msgspec

from pytest_eventlet_debug.alive import descriptors
from pytest_eventlet_debug.alive.greenlets import THE_TEST
from pytest_eventlet_debug.alive.greenthreads import Look
from pytest_eventlet_debug.alive.heap import Heap
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.alive.spawns import SITE
from pytest_eventlet_debug.alive.tasks import HELD
from pytest_eventlet_debug.alive.tasks import NO_TURN
from pytest_eventlet_debug.alive.wakers import Listener
from pytest_eventlet_debug.alive.wakers import Timer
from pytest_eventlet_debug.dump_limits import NEVER
from pytest_eventlet_debug.hubs.names import is_stuck
from pytest_eventlet_debug.hubs.names import name_of
from pytest_eventlet_debug.hubs.names import own_hub

#: Seconds that a timer must be late for its hub not to be merely busy.
LATE = 0.5
_START = "start "


class WatchedDescriptor(NamedTuple):
    """A listener of a hub."""

    #: ``read`` or ``write``.
    event: str
    fd: int
    #: The socket's addresses, or the file.
    target: str
    #: The name of the one that waits for it.
    greenthread: str


class PendingCall(msgspec.Struct, frozen=True):
    """A timer of a hub."""

    #: Time left; 0 where it is due.
    seconds: float
    call: str
    #: For how long it has been due.
    late: float = 0.0
    #: In how many seconds it was to be made, as it was scheduled.
    delay: float = 0.0


class HubState(msgspec.Struct, frozen=True):
    """A hub at the moment it was looked at."""

    #: Its name, as ``--eventlet-hub`` takes it.
    kind: str
    running: bool
    #: Whether an exception ended it so that it cannot run again.
    stuck: bool
    #: Whether it is the hub of the thread that looks.
    current: bool
    listeners: tuple[WatchedDescriptor, ...]
    #: The next one first.
    timers: tuple[PendingCall, ...]
    #: Descriptors that the hub is woken for in vain, with what they are.
    strays: tuple[str, ...] = ()


def find_hubs(heap: Heap) -> tuple[HubState, ...]:
    """Look at the hubs of all threads, the one of this thread first."""
    if not heap.hubs:
        return ()
    look = Look(heap)
    own = own_hub()
    found = []
    for hub in heap.hubs:
        try:
            state = _state(hub, hub is own, look)
        except Exception:
            continue
        # One that was replaced and has nothing left to do is nobody's concern.
        if state.current or state.running or state.listeners or state.timers or state.strays:
            found.append(state)
    found.sort(key=lambda state: not state.current)
    return tuple(found)


def never_called(hubs: Iterable[HubState], seconds: float) -> str | None:
    """Say what the hub of another thread is to do and does not, as that thread does not run it.

    eventlet wakes a greenthread by a timer in the hub of the thread that wakes it, which is the
    wrong one if another thread waits.

    :param seconds: for how long the test has run. What was due before is an earlier one's.
    """
    for hub in hubs:
        late = [each for each in hub.timers if LATE <= each.late <= seconds]
        if late and not (hub.current or hub.stuck):
            return (
                f"{NEVER}has been due for {late[0].late:.1f} s and is not called, as that "
                f"thread does not run its hub: {late[0].call}; an event, lock or queue of "
                "eventlet's wakes nobody in another thread"
            )
    return None


def not_begun(hubs: Iterable[HubState], ago: float, seconds: float, ran: float) -> str | None:
    """Say which greenthread was to start for a while and could not, as nothing let the hub run.

    :param ago: seconds since the test failed; what became due after that is no reason.
    :param seconds: for how long the test has run. What was spawned before is an earlier one's.
    :param ran: for how long it had not let the hub run as it failed. What was due before that waits
        for a hub that has much to do.
    """
    for hub in hubs:
        for each in hub.timers if hub.current and not hub.stuck else ():
            late = each.late - ago
            is_own = each.late + each.delay <= seconds
            if each.call.startswith(_START) and NO_TURN <= late <= ran and is_own:
                return (
                    f"{each.call.removeprefix(_START)} had not begun: it was due {late:.2f} s "
                    f"before, and {HELD}"
                )
    return None


def describe_timer(timer: Timer, look: Look) -> str:
    """Return what a timer will do, in words."""
    if timer.greenlet is None:
        return f"call {callable_name(timer.call)}"
    name = look.greenlets.name(timer.greenlet)
    if timer.greenlet.dead:
        return "wake a greenthread that has ended"
    if timer.action == "throw":
        words = raised_words(timer.arguments[0]) if timer.arguments else "GreenletExit"
        return f"raise {words} in {_named(name)}"
    if not timer.greenlet and not timer.greenlet.dead:
        return f"{_START}greenthread {name}"
    return f"wake {_named(name)}"


def started_at(raw_timer: Any) -> str:
    """Say for the end of a phrase where a timeout was started; nothing if that is not known."""
    site = getattr(raw_timer, "__dict__", {}).get(SITE)
    return f", started at {Frames().at(*site).where}" if site is not None else ""


def raised_words(raised: Any) -> str:
    """Return in words what a timer throws: ``Timeout(0.4)``."""
    kind: type = raised if issubclass(type(raised), type) else type(raised)
    seconds = getattr(raised, "__dict__", {}).get("seconds")
    return kind.__qualname__ + (f"({seconds})" if type(seconds) in (int, float) else "")


def _named(name: str) -> str:
    if name == THE_TEST:
        return name
    return f"the {name}" if name in ("main greenlet", "hub") else f"greenthread {name}"


def _target(hub: Any, listener: Listener, look: Look) -> str:
    complaint = look.watched.complaint(hub, listener.event, listener.fd)
    words = descriptors.describe(listener.fd)
    return f"{words}, {complaint}" if complaint else words


def _state(hub: Any, current: bool, look: Look) -> HubState:
    listeners = tuple(
        WatchedDescriptor(
            each.event, each.fd, _target(hub, each, look), look.greenlets.name(each.greenlet)
        )
        for each in look.greenlets.wakers.listeners.get(id(hub), ())
    )
    timers = tuple(
        PendingCall(
            max(each.seconds, 0.0),
            describe_timer(each, look) + started_at(each.raw),
            max(-each.seconds, 0.0),
            float(getattr(each.raw, "seconds", 0.0) or 0.0),
        )
        for each in look.greenlets.wakers.timers.get(id(hub), ())
    )
    strays = tuple(f"fd {fd}, {descriptors.describe(fd)}" for fd in look.watched.strays(hub))
    stuck = is_stuck(hub)
    running = bool(hub.running) and not stuck
    return HubState(name_of(type(hub)), running, stuck, current, listeners, timers, strays)
