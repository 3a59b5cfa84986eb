"""What a stall is called: who held the hub, at which line, while who waited."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_eventlet_debug import phrasing
from pytest_eventlet_debug.alive import source
from pytest_eventlet_debug.alive.model import Frame
from pytest_eventlet_debug.recordings.findings.model import Evidence
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.stalls import BEGAN
from pytest_eventlet_debug.recordings.findings.stalls import KIND
from pytest_eventlet_debug.stalls.model import Stall
from pytest_eventlet_debug.system.code_places import HUBS
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet

#: Frames that a finding quotes at most.
MOST_FRAMES = 8

_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_CALLERS = tuple(
    os.path.join(folder, file)
    for folder, file in (
        ("_pytest", "python.py"),
        ("_pytest", "fixtures.py"),
        ("_pytest", "runner.py"),
        ("unittest", "case.py"),
    )
)
_TRAMPOLINES = {
    os.path.join("eventlet", "greenthread.py"): "main",
    os.path.join("eventlet", "greenpool.py"): "_spawn_n_impl",
}


def finding(stall: Stall, nodeid: str, hub: str, rootdir: Path) -> Finding | None:
    """Return what is told of a stall; ``None`` if it was this plugin's own work.

    :param rootdir: paths below it are shown relative to it.
    """
    frames = _of_the_test(stall.frames)
    if _is_ours(frames):
        return None
    return Finding(
        KIND,
        f"{_who(stall.frames)} held the hub for {stall.seconds:.2f} s{_where(stall, rootdir)}, "
        f"while {_waiting(stall)}",
        tuple(Evidence(_line(each, rootdir)) for each in frames[:MOST_FRAMES]),
        counts={
            "seconds": stall.seconds,
            BEGAN: stall.began_ns / 1e9,
            "timers": stall.due,
            "listeners": stall.ready,
        },
        nodeid=nodeid,
        hub=hub,
    )


def is_own_code(frame: Frame) -> bool:
    """Say whether a frame is of the user's own code: no library's, and not eventlet's."""
    name = frame.filename
    if _is_installed(name) or name.startswith(("<", STANDARD_LIBRARY, OURS)):
        return False
    eventlet = of_eventlet()
    return not (eventlet and name.startswith(eventlet))


def _where(stall: Stall, rootdir: Path) -> str:
    frames = _of_the_test(stall.frames)
    if not frames:
        return ""
    inner, own = frames[0], next(filter(is_own_code, frames), None)
    where = f" {'before it switched ' if stall.is_over else ''}at {_place(inner, rootdir)}"
    if own is not None and own != inner:
        where += f", called from {_place(own, rootdir)}"
    return where


def _is_ours(frames: tuple[Frame, ...]) -> bool:
    """Say whether this plugin was at work, in the standard library perhaps.

    What a function that it stands in for does is not its work: the two have one name.
    """
    called = ""
    for frame in frames:
        name = frame.function.rpartition(".")[2]
        # Where it is installed, it may lie below the standard library.
        if frame.filename.startswith(OURS):
            if name != called:
                return True
        elif not _is_standard(frame.filename):
            return False
        called = name
    return False


def _is_standard(filename: str) -> bool:
    return filename.startswith(("<", STANDARD_LIBRARY)) and not _is_installed(filename)


def _is_installed(filename: str) -> bool:
    return any(part in filename for part in _INSTALLED)


def _of_the_test(frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
    """Leave out what called the test, or the greenthread."""
    for number, frame in enumerate(frames):
        if number > 0 and (frame.filename.endswith(_CALLERS) or _is_trampoline(frame)):
            return frames[:number]
    return frames


def _is_trampoline(frame: Frame) -> bool:
    return any(
        frame.filename.endswith(file) and frame.function.endswith(function)
        for file, function in _TRAMPOLINES.items()
    )


def _who(frames: tuple[Frame, ...]) -> str:
    if not frames or any(frame.filename.endswith(_CALLERS) for frame in frames):
        return "the test"
    bottom = frames[-1]
    if HUBS in bottom.filename:
        return "a call that the hub made"
    if _is_trampoline(bottom):
        return f"greenthread {frames[-2].function}" if len(frames) > 1 else "a greenthread"
    return f"greenlet {bottom.function}"


def _waiting(stall: Stall) -> str:
    parts = []
    due, noun = stall.due, "timer"
    if stall.starts is not None:
        parts.append(f"{stall.starts} was to start")
        due, noun = due - 1, "more timer"
    if due:
        parts.append(f"{phrasing.counted(due, noun)} {_were(due)} due")
    if stall.ready:
        parts.append(f"{phrasing.counted(stall.ready, 'listener')} {_were(stall.ready)} ready")
    return " and ".join(parts)


def _were(count: int) -> str:
    return "was" if count == 1 else "were"


def _place(frame: Frame, rootdir: Path) -> str:
    return f"{_path(frame.filename, rootdir)}:{frame.lineno} in {frame.function}"


def _line(frame: Frame, rootdir: Path) -> str:
    text = source.line(frame.filename, frame.lineno)
    return _place(frame, rootdir) + (f": {text}" if text else "")


def _path(filename: str, rootdir: Path) -> str:
    for part in _INSTALLED:
        if part in filename:
            return filename.rpartition(part)[2]
    for folder in (f"{rootdir}{os.sep}", STANDARD_LIBRARY):
        if filename.startswith(folder):
            return filename.removeprefix(folder)
    return filename
