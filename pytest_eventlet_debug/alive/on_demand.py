"""Write at any moment, from a signal handler too, what the process does and waits for."""

from __future__ import annotations

from collections.abc import Callable
import functools
import signal
import sys
import types

from pytest_eventlet_debug.alive import processes
from pytest_eventlet_debug.alive.hub import never_called
from pytest_eventlet_debug.alive.render import render_greenthreads
from pytest_eventlet_debug.alive.render import render_hubs
from pytest_eventlet_debug.alive.render import render_tasks
from pytest_eventlet_debug.alive.snapshot import Alive
from pytest_eventlet_debug.alive.snapshot import take
from pytest_eventlet_debug.dump_limits import BEGIN
from pytest_eventlet_debug.dump_limits import END
from pytest_eventlet_debug.dump_limits import MAX_SECONDS
from pytest_eventlet_debug.dump_limits import WAITS
from pytest_eventlet_debug.system import unpatched

_writing = False
_ignored: frozenset[int] = frozenset()
_began: float | None = None

# Tests replace these functions, and the dump is for the tests that hang.
_mask = signal.pthread_sigmask
_SIGNALS = signal.valid_signals()


def ignore_present_threads() -> None:
    """Leave the threads that there are now out of dumps: those of pytest's plugins."""
    global _ignored
    _ignored = frozenset(sys._current_frames())


def begin_test() -> None:
    """Note that a test begins: what was due before is an earlier one's."""
    global _began
    _began = unpatched.monotonic()


def write_dump(fd: int, interrupted: types.FrameType | None = None, about: str = "") -> None:
    """Write tasks, greenthreads, hubs and child processes, the test's own stack first.

    Equal greenthreads are shown once. Switches no greenthread, raises nothing, and takes no
    longer than :data:`MAX_SECONDS` and one walk over the heap.

    :param interrupted: the frame that a signal handler was given.
    :param about: lines to put before it all.
    """
    global _writing
    if _writing:
        return  # a signal that came while it was written
    _writing = True
    try:
        # Another handler's exception would end the dump and be lost.
        before = _mask(signal.SIG_BLOCK, _SIGNALS)
        try:
            _write(fd, interrupted, about)
        finally:
            _mask(signal.SIG_SETMASK, before)
    except BaseException:
        pass  # the test matters more, and there is nobody to tell
    finally:
        _writing = False


def _write(fd: int, interrupted: types.FrameType | None, about: str) -> None:
    end = unpatched.monotonic() + MAX_SECONDS
    unpatched.write_all(fd, f"{BEGIN}{about}".encode("utf-8", "backslashreplace"))
    alive = functools.cache(lambda: take((), _ignored, interrupted))
    parts: tuple[Callable[[], str], ...] = (
        lambda: f"{WAITS}{waits}\n" if (waits := alive().waits()) else "",
        lambda: _never_called(alive()),
        lambda: render_greenthreads(alive().greenthreads),
        lambda: render_tasks(tasks) if (tasks := alive().tasks).tasks else "",
        lambda: render_hubs(hubs) if (hubs := alive().hubs) else "",
        _children,
    )
    for part in parts:
        if unpatched.monotonic() > end:
            unpatched.write_all(fd, b"there was no time for more\n")
            break
        try:
            text = part()
        except BaseException as error:
            text = f"a part could not be written: {type(error).__name__}\n"
        unpatched.write_all(fd, text.encode("utf-8", "backslashreplace"))
    unpatched.write_all(fd, END.encode())


def _never_called(alive: Alive) -> str:
    if _began is None or not alive.waits():
        return ""
    line = never_called(alive.hubs, unpatched.monotonic() - _began)
    return f"{line}\n" if line else ""


def _children() -> str:
    lines = []
    for each in processes.find_children():
        waits = f", in {each.waits}" if each.waits else ""
        lines.append(f"  {each.pid}  {each.state}{waits}: {each.command}\n")
    return "".join(["child processes:\n", *lines]) if lines else ""
