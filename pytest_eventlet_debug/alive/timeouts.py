"""Look as an ``eventlet.Timeout`` is about to be raised in the test, before the test unwinds."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import sys
import traceback
import types
from typing import Any

from msgspec.structs import replace

from pytest_eventlet_debug.alive.hub import raised_words
from pytest_eventlet_debug.alive.hub import started_at
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.snapshot import Alive
from pytest_eventlet_debug.alive.spawns import SITE
from pytest_eventlet_debug.hubs.tracebacks import chain_of
from pytest_eventlet_debug.system import switches
from pytest_eventlet_debug.system import unpatched
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.handler_errors import put_off

#: What all looks of one test may take; a test may well expect many timeouts.
MAX_SECONDS = 1.0


class TimeoutWatch:
    """Keeps what was alive as the last Timeout was thrown into the test's own greenlet.

    By the hook on switches, which costs every switch about 0.6 us: on while dumps are asked for.

    :param take: looks at all that is alive; it is given the frame that waits.
    """

    def __init__(self, take: Callable[[Any], Alive]) -> None:
        self._take = take
        self._test: Any = None
        #: The exception by its id and as a traceback ends with it, and what was alive.
        self._kept: tuple[int, str, Alive] | None = None
        self._seconds = 0.0
        #: The last Timeout by its id, the code that started it, and in words where that was and
        #: where it was raised.
        self._last: tuple[int, types.CodeType, str] | None = None
        #: What is to be said of a Timeout that was thrown in the hub itself, or ``""``.
        self.in_hub = ""
        #: When the greenlet of the test was last switched to.
        self.resumed = 0.0

    def begin(self) -> None:
        """Watch the greenlet that runs now, for one test."""
        self._kept = self._last = None
        self._seconds = 0.0
        self.in_hub = ""
        self._test = switches.current()
        if self._test is not None:
            switches.subscribe(self._switched)

    def stop(self) -> None:
        """Watch no more."""
        self._kept = self._last = self._test = None
        switches.unsubscribe(self._switched)

    def of(self, error: BaseException | None) -> Alive | None:
        """Return what was alive as this exception was thrown, if it was one."""
        if self._kept is None or error is None:
            return None
        number, line, alive = self._kept
        if _is_text_of_testtools(error):
            return alive if line and _came_from_a_hub_as(line, str(error)) else None
        steps = _steps(error)
        # A Timeout may have been given a class to raise.
        known = (number == id(error) and "switch" in steps) or (
            number == id(type(error)) and steps[-1:] == ["switch"]
        )
        return alive if known else None

    def caught(self, error: BaseException) -> str:
        """Say that a Timeout was caught before a test failed with an error, or ``""``.

        Many a loop waits with a Timeout, so that is told only of one that was started by code which
        the error came through.
        """
        if self._last is None:
            return ""
        number, code, words = self._last
        if number in map(id, chain_of(error)):
            return ""
        step = error.__traceback__
        while step is not None and step.tb_frame.f_code is not code:
            step = step.tb_next
        return f"{words}, and was caught" if step is not None else ""

    def _switched(self, event: str, arguments: tuple[Any, Any]) -> None:
        origin, target = arguments
        if target is self._test:
            self.resumed = unpatched.monotonic()
        if event != "throw":
            return
        if target is self._test and self._seconds < MAX_SECONDS:
            raised, timer = _timeout_in(getattr(origin, "gr_frame", None))
            if raised is not None:
                self._look(raised, timer)
        elif origin is target and not self.in_hub:
            self._look_in_hub(target)

    def _look_in_hub(self, hub: Any) -> None:
        """Note a Timeout that ends nobody's wait, because the hub's own code has started it."""
        with contextlib.suppress(Exception):
            frame = _outside(sys._getframe())
            raised, timer = _timeout_in(frame)
            if raised is not None:
                self.in_hub = _of_nobody(raised, timer, frame.f_locals["cb"].__self__, hub)

    def _look(self, raised: Any, timer: Any) -> None:
        started = unpatched.monotonic()
        try:
            frame = _outside(sys._getframe())
            alive = replace(self._take(frame), timeout=_words(raised, timer))
            self._kept = (id(raised), _last_line(raised), alive)
            site = getattr(timer, "__dict__", {}).get(SITE)
            if site is not None and not isinstance(raised, type):
                own = outside_of((STANDARD_LIBRARY, of_eventlet() or STANDARD_LIBRARY), frame)
                where = f" at {Frames().describe(own).where}" if own is not None else ""
                words = f"{_words(raised, timer)}, ended a wait{where}"
                self._last = id(raised), site[0], words
        except Exception as error:
            put_off(error)  # the timeout on its way matters more
        finally:
            self._seconds += unpatched.monotonic() - started


_OURS = (__name__, switches.__name__)


def _outside(frame: types.FrameType) -> types.FrameType:
    """Return the frame that switches: past this one, what was called at the switch, and so on."""
    while frame.f_back is not None and frame.f_globals.get("__name__") in _OURS:
        frame = frame.f_back
    return frame


def _steps(error: BaseException) -> list[str]:
    """Return the functions that an exception came through, the innermost one last.

    One that a hub threw began in ``hub.switch()``, where a greenthread waits. From Python 3.14 on
    the steps of an earlier raise stay behind that: of a Timeout that a test has raised, and not
    cancelled.
    """
    return [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]


def _last_line(raised: Any) -> str:
    """Return the line with which a traceback of an exception ends, ``""`` if it is not one line."""
    kind = raised if isinstance(raised, type) else type(raised)
    lines = traceback.format_exception_only(kind, None if kind is raised else raised)
    return lines[0].strip() if len(lines) == 1 else ""


def _is_text_of_testtools(error: BaseException) -> bool:
    """Say whether an error is only the text of another, as of testtools or by pytest of that."""
    kind = type(error)
    if kind.__name__ == "_StringException":
        return kind.__module__.startswith("testtools.")
    return kind.__name__ == "Failed" and "testtools.testresult.real._StringException" in str(error)


def _came_from_a_hub_as(line: str, text: str) -> bool:
    """Say whether the last traceback in a text ends with this line, and is one of :func:`_steps`.

    What a greenthread has raised that somebody waits for came through its ``main()``.
    """
    lines = text.rstrip().splitlines()
    last = text.rpartition("Traceback (most recent call last):")[2].splitlines()
    calls = [each for each in last if each.startswith('  File "')]
    steps = [each.rpartition(", in ")[2] for each in calls]
    if "switch" not in steps or lines[-1] != line:
        return False
    behind = steps[steps.index("switch") + 1 :]
    return behind[:1] != ["main"]


def _words(raised: Any, timer: Any) -> str:
    """Say what a timeout raises, and where it was started; nothing if that is not known."""
    started = started_at(timer)
    return f"{raised_words(raised)}{started}" if started else ""


def _of_nobody(raised: Any, timer: Any, target: Any, hub: Any) -> str:
    """Say why a timeout came up in the hub.

    :param target: the greenlet that it was started in.
    """
    what = f"{raised_words(raised)}{started_at(timer)}"
    if target is hub:
        return (
            f"{what}, ended no wait: the code that started it was called by the hub, or is a "
            "coroutine that the hub runs, so it was raised in the hub"
        )
    return f"{what}, came when its greenthread had ended, and was not cancelled by then"


def _timeout_in(frame: types.FrameType | None) -> tuple[Any, Any]:
    """Return what a hub's timer is just throwing for a Timeout, and it; ``None`` for all else.

    A Timeout has the hub call ``greenlet.throw`` from ``Timer.__call__``, where the hub is
    suspended now, with itself or with the exception that it was made for.

    :param frame: the innermost one of the hub.
    """
    kind = getattr(sys.modules.get("eventlet.timeout"), "Timeout", None)
    if frame is None or not isinstance(kind, type) or frame.f_code.co_name != "__call__":
        return None, None
    variables = frame.f_locals
    arguments, timer = variables.get("args"), variables.get("self")
    if getattr(variables.get("cb"), "__name__", "") != "throw" or not arguments:
        return None, None
    raised = arguments[0]
    if issubclass(type(raised), kind):
        return raised, timer
    return (raised, timer) if issubclass(type(raised), (type, BaseException)) else (None, None)
