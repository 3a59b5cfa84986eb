"""What a child process runs first: become the pytest that the controller is, for one hub.

Run by path, not with ``-m``: that would put the working directory on ``sys.path``, where the
controller may not have it.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_eventlet_debug.assignment import Launch
    from pytest_eventlet_debug.assignment import Program

#: Of the length of what a child that waits is told.
LENGTH_BYTES = 4


def main() -> None:
    told = os.environ.pop("PYTEST_EVENTLET_DEBUG_CHILD")
    sys.path[:] = json.loads(told)["sys_path"]

    # There, now that sys.path is the controller's.
    from pytest_eventlet_debug.assignment import Launch
    from pytest_eventlet_debug.assignment import decode

    launch = decode(told, Launch)
    if launch.waits:
        launch = decode(_wait(launch), Launch)
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

    child.become(assignment)
    if launch.program is not None:
        _run(launch.program)
    else:
        sys.exit(pytest.main(launch.arguments))


def _wait(launch: Launch) -> str:
    """Import what every child does before the user's code, and wait to be told to begin."""
    from pytest_eventlet_debug.system import unpatched

    unpatched.end_with(launch.controller)

    import pytest  # noqa: F401

    from pytest_eventlet_debug.children import child  # noqa: F401

    line = launch.assignment.descriptor
    try:
        size = int.from_bytes(unpatched.read_exactly(line, LENGTH_BYTES), "big")
        return unpatched.read_exactly(line, size).decode("ascii")
    except EOFError:
        sys.exit()  # nobody needs it


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


def _isolate(controller: int, own_group: bool) -> None:
    """Go on with a network and process ids of its own, for which pytest would be too late."""
    from pytest_eventlet_debug.helper.protocol import HELPER_PROGRAM
    from pytest_eventlet_debug.system import network as isolation
    from pytest_eventlet_debug.system import pids

    try:
        pids.enter(controller, own_group=own_group, awaited=HELPER_PROGRAM)
    except OSError as error:
        # As pytest says it of a command line; the exit status is a usage error's.
        print(f"ERROR: {isolation.explain(error)}", file=sys.stderr)
        sys.exit(4)


if __name__ == "__main__":
    main()
