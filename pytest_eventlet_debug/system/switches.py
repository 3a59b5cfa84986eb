"""Who runs now: each switch of greenlets in this thread, told to several subscribers.

``greenlet.settrace`` has one slot per thread. This module takes it while somebody is
subscribed, passes every event on to the callback that was there before, and gives the
slot back afterwards. greenlet is never imported here: without it nothing switches.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import sys
import types
from typing import Any
from typing import NamedTuple

from pytest_eventlet_debug.system.handler_errors import put_off

#: What ``greenlet.settrace`` calls: ``"switch"`` or ``"throw"`` and ``(origin, target)``.
Callback = Callable[[str, tuple[Any, Any]], object]

#: The name of a greenlet whose function is not known.
UNNAMED = "greenlet"

#: Stands behind the name of a greenthread that ran before any switch was heard of.
OLDER = " (older)"

#: Frames between a hub's ``fire_timers()`` and its switch: ``Timer.__call__()`` and an event's own.
_MOST_FRAMES = 5

#: What ``eventlet.green.thread`` spawns to run a function as a thread does.
_THREAD_BODY = "__thread_body"


class _Greenlet(NamedTuple):
    """Functions of greenlet."""

    getcurrent: Callable[[], Any]
    gettrace: Callable[[], Callback | None]
    settrace: Callable[[Callback | None], object]


_greenlet: _Greenlet | None = None


def _functions() -> _Greenlet | None:
    """Return greenlet's functions, ``None`` as long as it is not imported.

    They are looked up once: tests put mocks in the module's place.
    """
    global _greenlet
    if _greenlet is None:
        module = sys.modules.get("greenlet")
        found = _Greenlet._make(getattr(module, name, None) for name in _Greenlet._fields)
        if all(type(function) is types.BuiltinFunctionType for function in found):
            _greenlet = found
    return _greenlet


def current() -> Any:
    """Return the greenlet that runs, ``None`` as long as greenlet is not imported."""
    greenlet = _functions()
    return None if greenlet is None else greenlet.getcurrent()


class _Dispatcher:
    """Passes events to one that comes first, to the subscribers, to the former callback."""

    def __init__(self, previous: Callback | None) -> None:
        self.previous = previous
        self.first: Callback | None = None
        self.subscribers: tuple[Callback, ...] = ()

    @property
    def entry(self) -> Callback:
        """What belongs into the slot: the only one who listens, or else this object."""
        if self.first is not None and not self.subscribers and self.previous is None:
            return self.first
        return self

    def __call__(self, event: str, arguments: tuple[Any, Any]) -> None:
        if self.first is not None:
            self.first(event, arguments)
        for subscriber in self.subscribers:
            try:
                subscriber(event, arguments)
            except BaseException as error:
                # greenlet would drop all tracing and throw it into the test.
                if not put_off(error):
                    if not isinstance(error, Exception):
                        raise
                    self.subscribers = tuple(s for s in self.subscribers if s is not subscriber)
        if self.previous is not None:
            self.previous(event, arguments)


_dispatcher: _Dispatcher | None = None
_installed: Callback | None = None


def subscribe(callback: Callback, *, first: bool = False) -> bool:
    """Call *callback* at every switch in this thread, after the switch.

    Subscribing again has no effect, except that a slot which somebody else has cleared
    or taken in the meantime is taken again.

    :param callback: cheap, and must not switch. One that raises is dropped.
    :param first: call it before the others, and with nothing in between where there are
        none. What it raises, which can only be a signal handler's, goes to the test, and
        greenlet then calls nobody any more. There can be one of this kind.
    :return: False if greenlet is not imported yet; try again later.
    """
    global _dispatcher
    greenlet = _functions()
    if greenlet is None:
        return False
    present = greenlet.gettrace()
    if _dispatcher is None or present is not _installed:
        new = _Dispatcher(present)
        if _dispatcher is not None:
            # Whoever took the slot may pass events on to us: never tell anybody twice.
            new.subscribers, _dispatcher.subscribers = _dispatcher.subscribers, ()
            new.first, _dispatcher.first = _dispatcher.first, None
        _dispatcher = new
    if first:
        _dispatcher.first = callback
    elif callback not in _dispatcher.subscribers:
        _dispatcher.subscribers += (callback,)
    _install(greenlet, _dispatcher.entry)
    return True


def subscribed(callback: Callback) -> bool:
    """Say whether *callback* subscribed and nobody has cleared or taken the slot since."""
    greenlet = _functions()
    if _dispatcher is None or greenlet is None or greenlet.gettrace() is not _installed:
        return False
    return callback == _dispatcher.first or callback in _dispatcher.subscribers


def unsubscribe(callback: Callback) -> None:
    """Call *callback* no more; the last one to go gives the slot back.

    Where somebody has taken the slot after us, it stays theirs.
    """
    global _dispatcher
    if _dispatcher is None:
        return
    _dispatcher.subscribers = tuple(s for s in _dispatcher.subscribers if s != callback)
    if _dispatcher.first == callback:
        _dispatcher.first = None
    left = _dispatcher.first is not None or bool(_dispatcher.subscribers)
    greenlet = _functions()
    if greenlet is not None and greenlet.gettrace() is _installed:
        _install(greenlet, _dispatcher.entry if left else _dispatcher.previous)
    if not left:
        _dispatcher = None


def _install(greenlet: _Greenlet, callback: Callback | None) -> None:
    global _installed
    _installed = callback
    greenlet.settrace(callback)


class Labels:
    """Numbers the greenlets of one test from 1 and gives each a name to read.

    ``hub`` is eventlet's main loop, ``test`` the greenlet that runs pytest; a greenthread
    has the name of the function it was spawned with; any other is a ``greenlet``. A
    function that cannot be known at the first switch is looked for once more at the
    second, so a number's label may become better, and the later one counts. A greenthread that
    is in its function at the first switch already was left by an earlier test, or is of a fixture
    of wider scope, and is called ``older``.
    """

    def __init__(self, test: object) -> None:
        """Begin at 1.

        :param test: the greenlet that runs pytest.
        """
        from weakref import WeakKeyDictionary

        self._test = test
        self._labels: WeakKeyDictionary[Any, tuple[int, str]] = WeakKeyDictionary()
        self._count = 0

    def of(self, target: Any, origin: Any = None) -> tuple[int, str]:
        """Return the number and the name of *target*.

        To be called by a switch's callback, so that *target* is what runs.

        :param origin: the greenlet that switched to it.
        """
        known = self._labels.get(target)
        if known is None:
            self._count += 1
            known = (self._count, self._first_look(target, origin) or "")
            self._labels[target] = known
        elif not known[1]:
            known = (known[0], function_at_bottom(sys._getframe()))
            self._labels[target] = known
        return known[0], known[1] or UNNAMED

    def _first_look(self, target: Any, origin: Any) -> str | None:
        if target is _hub_greenlet():
            return "hub"
        if target is self._test:
            return "test"
        name = _spawned_name(target, origin)
        if name is None and (name := _spawned_at_bottom(_bottom(sys._getframe()))) is not None:
            name += OLDER
        return name


def _hub_greenlet() -> object:
    hubs = sys.modules.get("eventlet.hubs")
    # get_hub() would make a hub; there may be none yet.
    hub = getattr(getattr(hubs, "_threadlocal", None), "hub", None)
    return getattr(hub, "greenlet", None)


def _spawned_name(target: Any, origin: Any) -> str | None:
    """Name the function that a new greenthread is about to run."""
    arguments = _spawned_with(target, origin)
    if not arguments:
        return None
    if _is_of_thread(arguments[0]):
        return _name(arguments[0])
    function = spawned_function(target, origin)
    return None if function is None else _name(_in_thread(function, arguments[1:]))


def spawned_function(target: Any, origin: Any) -> Any:
    """Return the function that a new greenthread was spawned with; else ``None``.

    To be called when *origin* has just switched to *target* for the first time. The hub
    calls ``target.switch(function, args, kwargs)`` from ``Timer.__call__``, and that is the
    frame in which it is suspended now. GreenPool.spawn_n adds one argument. A greenlet
    that is spawned without any trampoline begins with its function, and needs no name.
    """
    arguments = _spawned_with(target, origin)
    if not arguments:
        return None
    if hasattr(target, "_exit_event") or (
        len(arguments) == 4 and type(arguments[1]) is tuple and type(arguments[2]) is dict
    ):
        return arguments[0]
    return None


def _spawned_with(target: Any, origin: Any) -> Any:
    """Return the arguments of a hub's timer that has just switched to *target*, if one has."""
    frame = getattr(origin, "gr_frame", None)
    if frame is None or frame.f_code.co_name != "__call__":
        return None
    variables = frame.f_locals
    is_targets = attribute(variables.get("cb"), "__self__") is target
    return variables.get("args") if is_targets else None


def overdue(origin: Any) -> float:
    """Return by how many seconds a hub's timer was due earlier than it has switched, at least 0.

    To be called when *origin* has just switched, which may be a hub in ``fire_timers()``.
    """
    frame = getattr(origin, "gr_frame", None)
    for _ in range(_MOST_FRAMES):
        if frame is None or frame.f_code.co_name == "fire_timers":
            break
        frame = frame.f_back
    else:
        return 0.0
    variables = frame.f_locals if frame is not None else {}
    due, clock = variables.get("exp"), attribute(variables.get("self"), "clock")
    # One of the test's making may count how often it is asked.
    if type(due) is not float or not isinstance(clock, types.BuiltinFunctionType):
        return 0.0
    now = clock()
    return max(now - due, 0.0) if type(now) is float else 0.0


def function_at_bottom(frame: types.FrameType) -> str:
    """Name the function that a greenlet was made for which one of its frames is *frame*."""
    bottom = _bottom(frame)
    return _spawned_at_bottom(bottom) or bottom.f_code.co_name


def _bottom(frame: types.FrameType) -> types.FrameType:
    while frame.f_back is not None:
        frame = frame.f_back
    return frame


def _spawned_at_bottom(bottom: types.FrameType) -> str | None:
    """Name the function of a greenthread by its outermost frame, once that is its trampoline."""
    # GreenThread.main(self, function, args, kwargs); GreenPool._spawn_n_impl(self, func, ...);
    # what eventlet.green.thread spawns for a thread: __thread_body(func, args, kwargs)
    trampolines = (("main", "function"), ("_spawn_n_impl", "func"), (_THREAD_BODY, "func"))
    for name, variable in trampolines:
        if bottom.f_code.co_name == name and variable in bottom.f_locals:
            variables = bottom.f_locals
            return _name(_in_thread(variables[variable], (variables.get("args"),)))
    return None


def _in_thread(function: Any, arguments: Any) -> Any:
    """Return what a thread is to run, where *function* is what eventlet spawns for one."""
    if attribute(function, "__name__") != _THREAD_BODY or not arguments:
        return function
    given = arguments[0]
    return given[0] if type(given) is tuple and given else function


def _is_of_thread(function: Any) -> bool:
    """Say whether a function is what a ``threading.Thread`` begins with."""
    if type(function) is not types.MethodType:
        return False
    return attribute(function.__func__, "__name__") == "_bootstrap"


def _name(function: Any) -> str:
    if _is_of_thread(function):
        target = attribute(function.__self__, "_target")
        function = target if target is not None else type(function.__self__)
    function = underlying(function)
    name = attribute(function, "__name__")
    return name if isinstance(name, str) else type(function).__name__


def underlying(function: Any) -> Any:
    """Return what a call of a partial or of a method ends up in."""
    for _ in range(10):
        if type(function) is functools.partial:
            function = function.func
        elif type(function) is types.MethodType:
            function = function.__func__
        else:
            break
    return function


def attribute(thing: Any, name: str) -> object:
    """Return an attribute of what a test has made, ``None`` where there is none.

    That may be a proxy which raises whatever it likes, and a callback is no place for it.
    """
    try:
        return getattr(thing, name, None)
    except Exception:
        return None
