"""Which frames of a stack tell something: neither those that only wait nor those that only call."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
import os
import types

from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.alive.model import Frames
from pytest_eventlet_debug.alive.model import callable_name
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import file_name
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.code_places import of_eventlet

#: Frames of one stack that are read.
MAX_FRAMES = 200

# What only calls the function that was asked for: spawning, threads and pools.
_WRAPPERS = {
    "greenthread.py": {"main"},
    "green/thread.py": {"__thread_body", "wrap_bootstrap_inner"},
    "greenpool.py": {"_spawn_n_impl"},
}

# Where greenthreads wait, relative to eventlet's directory. Its servers and pools are not here.
_PRIMITIVES = (
    "hubs/",
    "green/",
    "greenio/",
    "support/",
    "asyncio.py",
    "corolocal.py",
    "event.py",
    "greenthread.py",
    "lock.py",
    "patcher.py",
    "queue.py",
    "semaphore.py",
    "timeout.py",
    "tpool.py",
)

#: What testtools calls a test's methods by.
_OF_TESTTOOLS = ("_run_setup", "_run_test_method", "_run_teardown")


class Stacks:
    """Reads stacks, innermost frame first. Not to be kept: it holds what it has made of frames."""

    def __init__(self) -> None:
        self._package = of_eventlet()
        self._places: dict[int, str | None] = {}
        self._frames = Frames()

    def at(self, code: types.CodeType, lineno: int) -> Frame:
        """Return the frame of a function at one of its lines."""
        return self._frames.at(code, lineno)

    def shown(self, frames: Iterable[types.FrameType]) -> tuple[Frame, ...]:
        """Return frames as plain data, outermost first."""
        return tuple(map(self._frames.describe, reversed(list(frames))))

    def users(self, frames: list[types.FrameType]) -> list[types.FrameType]:
        """Return a stack, innermost first, without eventlet's waiting and pytest's calling."""
        outer = len(frames)
        for place, frame in enumerate(frames):
            if is_test_call(frame):
                outer = place
                break
        while outer > 1 and self._only_calls(frames[outer - 1].f_code):
            outer -= 1
        inner = 0
        while inner < outer and self._is_waiting(frames[inner].f_code):
            inner += 1
        if inner == outer:
            inner = max(outer - 1, 0)
        return [
            frame for frame in frames[inner:outer] if not frame.f_code.co_filename.startswith(OURS)
        ]

    def name(self, frames: list[types.FrameType]) -> str:
        """Return the name of the function that a stack's greenlet or thread was started with."""
        for frame in reversed(frames):
            place = self.place(frame)
            if place == "greenthread.py" and frame.f_code.co_name == "main":
                spawned = frame.f_locals.get("function")
                code = getattr(spawned, "__code__", None)
                if spawned is not None and (
                    type(code) is not types.CodeType or not self.is_wrapper(code)
                ):
                    return callable_name(spawned)
            elif not self.is_wrapper(frame.f_code):
                return self._frames.describe(frame).function
        return self._frames.describe(frames[-1]).function if frames else "?"

    def is_wrapper(self, code: types.CodeType) -> bool:
        """Say whether a function only calls what was asked for: a pool's, a thread's, or ours."""
        if code.co_filename.startswith(OURS):
            return True
        place = self._place_of(code)
        if place is not None:
            return code.co_name in _WRAPPERS.get(place, ())
        # Under monkey patching a thread is a greenthread, too.
        return file_name(code.co_filename) == "threading.py" and code.co_name in (
            "_bootstrap",
            "_bootstrap_inner",
            "run",
        )

    def place(self, frame: types.FrameType) -> str | None:
        """Return the path of a frame's file relative to eventlet's directory, if it is there."""
        return self._place_of(frame.f_code)

    def of_eventlet(self, code: types.CodeType) -> bool:
        """Say whether a function is one of eventlet's."""
        return self._place_of(code) is not None

    def _place_of(self, code: types.CodeType) -> str | None:
        try:
            return self._places[id(code)]
        except KeyError:
            name = code.co_filename
            place = None
            if self._package and name.startswith(self._package):
                place = name[len(self._package) :].replace(os.sep, "/")
            self._places[id(code)] = place
            return place

    def _only_calls(self, code: types.CodeType) -> bool:
        name = code.co_filename
        return self.is_wrapper(code) or is_tool(name) or name.startswith("<frozen importlib")

    def _is_waiting(self, code: types.CodeType) -> bool:
        place = self._place_of(code)
        if place is not None:
            return place.startswith(_PRIMITIVES)
        return is_tool(code.co_filename)


def is_test_call(frame: types.FrameType) -> bool:
    """Say whether a frame is the one that calls a test's function or a fixture's."""
    name = frame.f_code.co_name
    if name in ("pytest_pyfunc_call", "call_fixture_func", "_teardown_yield_fixture"):
        return True
    if name == "_callTestMethod":
        return bool(frame.f_globals.get("__unittest"))
    return name in _OF_TESTTOOLS and frame.f_globals.get("__name__") == "testtools.testcase"


def outwards(innermost: types.FrameType) -> Iterator[types.FrameType]:
    """Yield a frame and those that called it."""
    frame: types.FrameType | None = innermost
    for _ in range(MAX_FRAMES):
        if frame is None:
            return
        yield frame
        frame = frame.f_back


def is_tool(filename: str) -> bool:
    """Say whether a file is a debugger's or pytest's."""
    return (
        filename.startswith(OURS)
        or file_name(filename) in ("pdb.py", "bdb.py", "cmd.py")
        or folder_of(filename).endswith(("/_pytest/", "/pluggy/"))
    )
