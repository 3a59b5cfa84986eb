"""Print what is alive when a debugger opens under pytest."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from pytest_eventlet_debug.alive.render import render_tasks
from pytest_eventlet_debug.alive.tasks import find_tasks

_DUMPED = "_eventlet_debug_dumped"


class DebuggerDump:
    """Prints all asyncio tasks each time ``--pdb`` or ``breakpoint()`` opens a debugger.

    Not for ``--trace``, which opens before the test has done anything. Never raises.
    """

    def pytest_enter_pdb(self, config: pytest.Config, pdb: Any) -> None:
        try:
            if getattr(pdb, _DUMPED, False) or _opens_before_the_test():
                return
            setattr(pdb, _DUMPED, True)
            # Capturing is suspended by now, and the debugger made after that.
            stdout = getattr(pdb, "stdout", None) or sys.stdout
            _write(stdout, render_tasks(find_tasks()))
        except BaseException as error:
            # Whatever it is, the debugger matters more.
            _complain(error)


def _opens_before_the_test() -> bool:
    """Tell ``--trace`` from the rest; the hook's arguments do not (``_pytest/debugging.py``)."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_init_pdb":
            return frame.f_locals.get("method") in ("runcall", "trace")
        frame = frame.f_back
    return False


def _write(stream: Any, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeError:
        stream.write(text.encode("ascii", "backslashreplace").decode("ascii"))
    stream.flush()


def _complain(error: BaseException) -> None:
    try:
        name = type(error).__name__
        _write(sys.stdout, f"asyncio tasks could not be listed: {name}\n")
    except BaseException:
        pass
