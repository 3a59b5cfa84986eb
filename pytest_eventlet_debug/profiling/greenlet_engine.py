"""An engine that keeps the calls of greenlets apart, whoever counts them."""

from __future__ import annotations

from typing import Any
from typing import Protocol

from pytest_eventlet_debug.profiling.clock import Clock
from pytest_eventlet_debug.profiling.engine import Profile
from pytest_eventlet_debug.profiling.engine import ProfilingError
from pytest_eventlet_debug.profiling.stats import Function
from pytest_eventlet_debug.profiling.stats import Part
from pytest_eventlet_debug.profiling.stats import root_of
from pytest_eventlet_debug.system import switches

_LOST = "greenlets were switched without our notice: an exception was raised in our callback, " + (
    "or the test called greenlet.settrace()"
)


class CallStacks(Protocol):
    """The open calls of each greenlet of a thread, and the counts of those that ended.

    There is one in C, ``_native.CallStacks``, and one in Python. Each serves for one stretch.
    """

    @property
    def seconds(self) -> float:
        """Time from ``begin`` to ``end``."""

    @property
    def switching(self) -> float:
        """Seconds of it that were spent in ``switched``."""

    def begin(self, greenlet: object, /) -> None:
        """Count the calls of this thread, in which *greenlet* runs now."""

    def end(self) -> None:
        """Count no more. Calls that are open count as calls, up to now."""

    def switched(self, event: str, arguments: tuple[Any, Any], /) -> None:
        """Take a switch of greenlets; for ``greenlet.settrace()``."""

    def parts(self) -> list[tuple[list[tuple[Any, ...]], Function | None, int]]:
        """Return the arguments of a :class:`Part` for each root."""


def root(greenlet: Any, origin: Any) -> Function | None:
    """Return what a greenlet that begins to run is shown under, if that is known.

    :param origin: the greenlet that switched to it.
    """
    function = switches.spawned_function(greenlet, origin)
    return None if function is None else root_of(function)


def _current_greenlet() -> object:
    """Return the greenlet that runs.

    :raises ProfilingError: greenlet cannot be imported.
    """
    current = switches.current()
    if current is None:
        import greenlet  # noqa: F401  # not for those who only load the plugin

        current = switches.current()
    if current is None:
        raise ProfilingError("the module greenlet has been replaced")
    return current


class GreenletEngine:
    """Profile by a clock from each ``start`` to the next ``stop``; see :class:`Engine`."""

    name = ""

    def __init__(self, clock: Clock) -> None:
        """Measure by *clock*; nothing is started yet."""
        self._clock = clock
        self._parts: list[Part] = []
        self._seconds = 0.0
        self._switching = 0.0
        self._trouble = ""
        self._stacks: CallStacks | None = None

    def start(self) -> None:
        """Profile the present thread from now on.

        :raises ProfilingError: it cannot; nothing has been changed then.
        """
        current = _current_greenlet()
        self._stacks = self._listen()
        switches.subscribe(self._stacks.switched, first=True)
        self._stacks.begin(current)

    def _listen(self) -> CallStacks:
        """Return stacks that will be told of every call as soon as they have begun.

        :raises ProfilingError: see :meth:`start`.
        """
        raise NotImplementedError

    def _let_go(self, stacks: Any) -> str:
        """Undo :meth:`_listen`; return why the counts are incomplete, or ``""``."""
        raise NotImplementedError

    def stop(self) -> None:
        """Profile no more."""
        stacks, self._stacks = self._stacks, None
        if stacks is None:
            return
        stacks.end()
        trouble = self._let_go(stacks)
        if not switches.subscribed(stacks.switched):
            trouble = trouble or _LOST
        switches.unsubscribe(stacks.switched)
        self._trouble = self._trouble or trouble
        self._seconds += stacks.seconds
        self._switching += stacks.switching
        self._parts += [Part(*part) for part in stacks.parts()]

    def profile(self) -> Profile:
        """Return what was seen."""
        return Profile(self._parts, self._seconds, self._switching, self._trouble)
