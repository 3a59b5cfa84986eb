"""Which tasks hold a lock of asyncio's that another one waits for, or have yet to set its event."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import types
from typing import Any

from pytest_eventlet_debug.alive import holders
from pytest_eventlet_debug.system import unpatched

#: What a search through the stacks of all tasks may take.
MAX_SECONDS = 0.5

_SET = frozenset(("set", "set_result", "set_exception"))

#: By the id of a lock or an event: the tasks, each with the line that is to set it.
_Found = dict[int, list[tuple[Any, tuple[types.CodeType, int] | None]]]


class TaskPeers:
    """Finds the tasks on which the wait of another one depends. Not to be kept.

    :param tasks: all of them.
    :param chain: returns the frames of a coroutine's await chain, outermost first.
    """

    def __init__(self, tasks: Iterable[Any], chain: Callable[[Any], list[types.FrameType]]) -> None:
        self._tasks = tasks
        self._chain = chain
        self._holders: _Found | None = None
        self._setters: _Found | None = None

    def holding(self, lock: Any) -> list[Any]:
        """Return the tasks whose frames prove that they hold a lock."""
        if self._holders is None:
            self._holders = self._find(_held)
        return [task for task, _ in self._holders.get(id(lock), ())]

    def setting(self, thing: Any) -> list[tuple[Any, types.CodeType, int]]:
        """Return the tasks that may come to set an event or a future, and the lines that do it."""
        if self._setters is None:
            self._setters = self._find(_set)
        return [(task, *line) for task, line in self._setters.get(id(thing), ()) if line]

    def _find(self, look: Callable[[list[types.FrameType]], Iterable[Any]]) -> _Found:
        found: _Found = {}
        end = unpatched.monotonic() + MAX_SECONDS
        for task in self._tasks:
            if unpatched.monotonic() > end:
                return {}  # half of them would be told to be all
            try:
                coroutine = task.get_coro()
                # To read the variables of one that runs may undo what a debugger has set.
                is_still = not task.done() and not getattr(coroutine, "cr_running", False)
                frames = self._chain(coroutine) if is_still else []
            except Exception:
                continue  # it is told as one that cannot be read
            for thing, line in look(frames):
                known = found.setdefault(id(thing), [])
                if not any(each is task for each, _ in known):
                    known.append((task, line))
        return found


def _held(frames: list[types.FrameType]) -> Iterable[Any]:
    return ((lock, None) for lock in holders.held_by(frames[::-1]))


def _set(frames: list[types.FrameType]) -> Iterable[Any]:
    for frame in frames:
        for thing, line in holders.yet_to_call(frame, _SET):
            yield thing, (frame.f_code, line)
