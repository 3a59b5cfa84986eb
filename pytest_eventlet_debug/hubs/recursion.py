"""Which calls an error's traceback says to come back to themselves."""

from __future__ import annotations

from pytest_eventlet_debug.hubs.tracebacks import EVENTLET
from pytest_eventlet_debug.hubs.tracebacks import Place
from pytest_eventlet_debug.hubs.tracebacks import is_library
from pytest_eventlet_debug.hubs.tracebacks import user_of
from pytest_eventlet_debug.system.code_places import OURS

#: How often the same calls have to follow each other, to be called without end.
_TIMES = 5
#: How many others there may be in the end.
_LAST_CALLS = 20
#: Of such calls, how many are told.
_MOST_CALLS = 6


def recurses(error: BaseException, places: list[Place]) -> str | None:
    """Say which calls of eventlet, or of a class it has replaced, come back to themselves."""
    if not isinstance(error, RecursionError):
        return None
    first, period = _repeated(places)
    circle = places[first : first + period]
    before = _of_class_before(circle, places)
    if before is not None:
        return before
    if not any(EVENTLET in place.file for place in circle):
        return None
    shown = [str(place) for place in circle if not place.file.startswith(OURS)]
    if len(shown) > _MOST_CALLS:
        half = _MOST_CALLS // 2
        shown[half:-half] = [f"{len(shown) - 2 * half} more"]
    own = (place for place in reversed(places[:first]) if not is_library(place.file))
    begin = next(own, None)
    begun = f", begun at {begin}" if begin is not None else ""
    return f"calls recurse without end{begun}: {', '.join(shown)}, and so on"


def _repeated(places: list[Place]) -> tuple[int, int]:
    """Return where the same calls begin to repeat until the end, and how many they are; else 0."""
    calls = [(place.code, place.offset) for place in places]
    last = len(calls) - _LAST_CALLS  # where the stack ends, they may be others
    for period in range(1, last // _TIMES):
        first = last
        while first >= period and calls[first] == calls[first - period]:
            first -= 1
        if last - first >= period * _TIMES:
            return max(first - period + 1, 0), period
    return 0, 0


def _of_class_before(circle: list[Place], places: list[Place]) -> str | None:
    """Say that a method calls itself, as monkey_patch() has replaced its class in its module."""
    last = next((each for each in circle if "self" in each.frame.f_locals), None)
    if last is None:
        return None
    scope = last.frame.f_globals
    module = scope.get("__name__")
    for kind in type(last.frame.f_locals["self"]).__mro__:
        now = scope.get(kind.__name__) if kind.__module__ == module else None
        if kind.__name__ not in last.code.co_names or not isinstance(now, type) or now is kind:
            continue
        if now.__module__.startswith("eventlet."):
            return (
                f"{user_of(places)} uses the {module}.{kind.__name__} from before monkey_patch(), "
                f"which has put {now.__module__}.{now.__name__} in its place: {last} looks for "
                "the methods of that one's base, and calls itself"
            )
    return None
