"""The command ``greenlet N`` of the debugger: look around in a greenthread that waits.

As ``thread N`` of gdb does: ``up``, ``down``, ``where`` and ``p`` then mean the greenthread's
frames. What goes on with the program means those of the test.
"""

from __future__ import annotations

import functools
import sys
from types import FrameType
from typing import Any
import weakref

from pytest_eventlet_debug.alive import heap
from pytest_eventlet_debug.system.code_places import of_eventlet

#: Commands of pdb that go on with the program, from where it really stands.
_GOING_ON = (
    *("next", "n", "step", "s", "continue", "c", "cont"),
    *("return", "r", "until", "unt", "jump", "j"),
)

_ELSEWHERE = "_eventlet_debug_elsewhere"


class Numbers:
    """A number for each greenlet that was shown, the same one as long as it lives."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, weakref.ref[Any]]] = {}
        self._count = 0

    def of(self, greenlets: dict[int, Any]) -> dict[int, int]:
        """Return the number of each greenlet by its id, with new ones for new ones.

        :param greenlets: by id.
        """
        for ident, greenlet in greenlets.items():
            known = self._known.get(ident)
            if known is None or known[1]() is not greenlet:
                self._count += 1
                self._known[ident] = (self._count, weakref.ref(greenlet))
        return {ident: self._known[ident][0] for ident in greenlets}

    def find(self, number: int) -> Any:
        """Return the greenlet that has a number, or ``None`` if it has gone."""
        for known, greenlet in self._known.values():
            if known == number:
                return greenlet()
        return None


def living_greenlets() -> dict[int, Any]:
    """Return all greenlets of this process that have not ended, by id."""
    return {id(each): each for each in heap.walk().greenlets if not each.dead}


def move(pdb: Any, argument: str, numbers: Numbers) -> str:
    """Move a debugger into a greenthread's frames, or back; return what to print.

    :param argument: a number, ``0`` or ``main`` for the way back, or nothing.
    """
    if argument in ("0", "main"):
        return come_back(pdb) or "already in the test's own frames\n"
    if not argument:
        elsewhere = getattr(pdb, _ELSEWHERE, None)
        return f"greenlet {elsewhere[0] if _is_elsewhere(pdb) and elsewhere else 0}\n"
    if not argument.isdecimal():
        return "greenlet takes a number that greenlets shows, or 0\n"
    if not callable(getattr(pdb, "_select_frame", None)):
        return f"{type(pdb).__mro__[1].__name__} cannot move between stacks\n"
    greenlet = numbers.find(int(argument))
    if greenlet is None or greenlet.dead:
        return f"there is no greenlet {argument}, or it has ended; greenlets lists those alive\n"
    frames = _frames(greenlet)
    if not frames:
        return f"greenlet {argument} {_why_without_frames(greenlet)}\n"
    before = getattr(pdb, _ELSEWHERE)[2:] if _is_elsewhere(pdb) else (pdb.stack, pdb.curindex)
    stack = [(frame, frame.f_lineno) for frame in frames]
    setattr(pdb, _ELSEWHERE, (int(argument), stack, *before))
    _go(pdb, stack, _of_interest(frames))
    _catch_going_on(type(pdb))
    return ""


def come_back(pdb: Any) -> str:
    """Return a debugger to where the program stands; nothing if it is there."""
    if not _is_elsewhere(pdb):
        return ""
    _, _, stack, index = getattr(pdb, _ELSEWHERE)
    delattr(pdb, _ELSEWHERE)
    _go(pdb, stack, index)
    return "back in the test's own frames\n"


def _is_elsewhere(pdb: Any) -> bool:
    """Say whether the stack is still the one that was moved to: each new stop has its own."""
    elsewhere = getattr(pdb, _ELSEWHERE, None)
    return elsewhere is not None and pdb.stack is elsewhere[1]


def _go(pdb: Any, stack: list[tuple[FrameType, int]], index: int) -> None:
    pdb.stack = stack
    pdb._select_frame(index)


def _frames(greenlet: Any) -> list[FrameType]:
    """Return the frames of a greenlet that waits, outermost first."""
    frames = []
    frame = greenlet.gr_frame
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames[::-1]


def _why_without_frames(greenlet: Any) -> str:
    if greenlet is sys.modules["greenlet"].getcurrent():
        return "is where the debugger stopped: greenlet 0 shows its frames"
    return "has not begun, or runs in another thread" if not greenlet else "runs in another thread"


def _of_interest(frames: list[FrameType]) -> int:
    """Return the index of the innermost frame that is not eventlet's."""
    folder = of_eventlet()
    for index in range(len(frames) - 1, -1, -1):
        if not folder or not frames[index].f_code.co_filename.startswith(folder):
            return index
    return len(frames) - 1


def _catch_going_on(kind: type) -> None:
    """Have the debugger's class come back before anything goes on."""
    for name in _GOING_ON:
        original = getattr(kind, f"do_{name}", None)
        if original is not None and not hasattr(original, _ELSEWHERE):
            setattr(kind, f"do_{name}", _coming_back(original))


def _coming_back(original: Any) -> Any:
    @functools.wraps(original)
    def do(self: Any, argument: str) -> Any:
        come_back(self)
        return original(self, argument)

    setattr(do, _ELSEWHERE, True)
    return do
