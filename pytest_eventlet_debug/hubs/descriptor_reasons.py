"""What an error's traceback says of the descriptors that a hub is to wait for."""

from __future__ import annotations

import errno
import types
from typing import Any

from pytest_eventlet_debug.hubs.tracebacks import Place
from pytest_eventlet_debug.hubs.tracebacks import is_of_hub_and_loop
from pytest_eventlet_debug.hubs.tracebacks import own_line
from pytest_eventlet_debug.hubs.tracebacks import said
from pytest_eventlet_debug.hubs.tracebacks import user_of
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system.code_places import HUBS

#: Frames of a greenthread in which it may wait, counted from the innermost one.
_MOST_FRAMES = 5
#: The number of descriptors that select() takes, from 0 on.
_FD_SETSIZE = 1024


def second(error: BaseException, places: list[Place]) -> str | None:
    """Say who waits already for the descriptor that a second one cannot wait for."""
    names = _of_add(places)
    if not places[-1].raises or HUBS not in places[-1].file or names is None:
        return None
    listener = names.get("bucket", {}).get(names.get("fileno"))
    # It is in the message, if it is still the one that was in the way.
    if listener is None or not said(error).endswith(f"={listener!r}"):
        return None
    wanted = f"descriptor {listener.fileno}, which {user_of(places)} wants to wait for, too"
    frame = _waiting(listener)
    if frame is None:
        return (
            f"the hub still has a {listener.evtype} listener on {wanted}: the greenthread that it "
            "belongs to no longer waits"
        )
    own = own_line(frame)
    where = f", at {own}," if own is not None else ""
    return (
        f"greenthread {switches.function_at_bottom(frame)}{where} already waits to "
        f"{listener.evtype} on {wanted}; a hub wakes only one greenthread for each"
    )


def _waiting(listener: Any) -> types.FrameType | None:
    """Return the frame in which a greenthread waits for a descriptor; ``None`` if it does not."""
    frame = getattr(listener.greenlet, "gr_frame", None)
    for _ in range(_MOST_FRAMES):
        if frame is None:
            break
        code = frame.f_code
        if HUBS in code.co_filename and code.co_name == "trampoline":
            return frame if frame.f_locals.get("listener") is listener else None
        frame = frame.f_back
    return None


def of_kind_without_events(error: BaseException, places: list[Place]) -> str | None:
    """Say that epoll takes no descriptor of a kind that is always ready; see epoll_ctl(2)."""
    names = _of_add(places)
    if not isinstance(error, PermissionError) or error.errno != errno.EPERM or names is None:
        return None
    last = places[-1]
    if last.code.co_name != "register" or not is_of_hub_and_loop(last):
        return None
    return (
        f"{user_of(places)} waits for descriptor {names.get('fileno')}, which epoll refuses "
        "(EPERM) as it does regular files and directories; the hubs epolls and asyncio use it, "
        "poll and selects do not"
    )


def beyond_select(error: BaseException, places: list[Place]) -> str | None:
    """Say which descriptor is too large a number for ``select()``; see select(2), FD_SETSIZE."""
    if not isinstance(error, ValueError):
        return None
    last = places[-1]
    if HUBS not in last.file or "selects" not in last.file or last.code.co_name != "wait":
        return None
    descriptors = last.frame.f_locals.get("all_fds") or (0,)
    largest = max(descriptors)
    if largest < _FD_SETSIZE:
        return None
    hub = last.frame.f_locals.get("self")
    listeners = [named.get(largest) for named in getattr(hub, "listeners", {}).values()]
    frame = next((_waiting(each) for each in listeners if each is not None), None)
    own = own_line(frame) if frame is not None else None
    waits = f", for which {own} waits" if own is not None else ""
    return (
        f"the hub selects cannot wait for descriptor {largest}{waits}: select() takes only "
        f"those below {_FD_SETSIZE}; the other hubs do not use it"
    )


def _of_add(places: list[Place]) -> dict[str, Any] | None:
    """Return the variables of the hub where it is to wait for a descriptor, the innermost ones."""
    adds = (each for each in reversed(places) if HUBS in each.file and each.code.co_name == "add")
    place = next(adds, None)
    return place.frame.f_locals if place is not None else None
