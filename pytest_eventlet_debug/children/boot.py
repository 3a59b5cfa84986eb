"""What a child process runs first: become the pytest that the controller is, for one hub.

Run by path, not with ``-m``: that would put the working directory on ``sys.path``, where the
controller may not have it.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_eventlet_debug.assignment import Launch
    from pytest_eventlet_debug.assignment import Program


def main() -> None:
    with open(int(os.environ.pop("PYTEST_EVENTLET_DEBUG_CHILD")), "rb") as file:
        file.seek(0)
        told = file.read().decode("ascii")
    sys.path[:] = json.loads(told)["sys_path"]

    # There, now that sys.path is the controller's.
    from pytest_eventlet_debug.assignment import Launch
    from pytest_eventlet_debug.assignment import decode

    launch = decode(told, Launch)
    if launch.waits:
        _import_ahead(launch)
        if launch.waits == "for plugins":
            launch = _wait(launch)
    sys.argv[:] = launch.argv
    os.chdir(launch.directory)
    assignment = launch.assignment
    if assignment.own_pids:
        _isolate(launch.controller, own_group=not assignment.interactive)
    else:
        from pytest_eventlet_debug.system import unpatched

        unpatched.end_with(launch.controller)

    import pytest

    from pytest_eventlet_debug.children import child

    child.become(assignment, waits=launch.waits == "for conftests")
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])  # see who has started this
        if launch.program is not None:
            _run(launch.program)
            return
        status = pytest.main(launch.arguments)
    except KeyboardInterrupt:  # while pytest configured itself, or this process started
        status = pytest.ExitCode.INTERRUPTED
    if assignment.is_rerun:
        _exit_fast(status)
    sys.exit(status)


def _import_ahead(launch: Launch) -> None:
    """Import what the child imports in any case before the user's code."""
    from pytest_eventlet_debug.system import unpatched
    from pytest_eventlet_debug.system.collector import collector_paused

    unpatched.end_with(launch.controller)
    with collector_paused():  # what is imported stays
        import pytest  # noqa: F401

        for name in launch.imports:
            importlib.import_module(name)


def _wait(launch: Launch) -> Launch:
    from pytest_eventlet_debug.children import child

    return child.await_turn(launch.assignment.descriptor)


def _run(program: Program) -> None:
    """Become the program, which calls pytest."""
    os.chdir(program.directory)
    if program.module is not None:
        sys.argv[:] = [program.module, *program.arguments]
        runpy.run_module(program.module, run_name="__main__", alter_sys=True)
    elif program.script is not None:
        sys.argv[:] = [program.script, *program.arguments]
        runpy.run_path(program.script, run_name="__main__")
    elif program.code is not None:
        sys.argv[:] = ["-c", *program.arguments]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(program.code, "<string>", "exec"), main.__dict__)


def _exit_fast(status: int) -> None:
    """Exit, but leave out to take all objects apart, which takes longer than most tests."""
    threading._shutdown()  # type: ignore[attr-defined]  # as Python does it, before atexit
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, replaced, or no room for it
            stream.flush()
    os._exit(status)


def _isolate(controller: int, own_group: bool) -> None:
    """Go on with a network and process ids of its own, for which pytest would be too late."""
    from pytest_eventlet_debug.helper.protocol import HELPER_PROGRAM
    from pytest_eventlet_debug.system import network
    from pytest_eventlet_debug.system import pids

    try:
        pids.enter(controller, own_group=own_group, awaited=HELPER_PROGRAM)
    except OSError as error:
        # As pytest says it of a command line; the exit status is a usage error's.
        print(f"ERROR: {network.explain(error)}", file=sys.stderr)
        sys.exit(4)


if __name__ == "__main__":
    main()
