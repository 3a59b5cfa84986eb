"""What a child process runs first: become the pytest that the controller is, for one hub.

Run by path, not with ``-m``: that would put the working directory on ``sys.path``, where the
controller may not have it.
"""

from __future__ import annotations

import json
import os
import sys


def main() -> None:
    description = json.loads(os.environ.pop("PYTEST_EVENTLET_DEBUG_CHILD"))
    sys.path[:] = description.pop("sys_path")
    sys.argv[:] = description.pop("argv")
    os.chdir(description.pop("directory"))
    arguments = description.pop("arguments")
    controller = description.pop("controller")
    if description["own_pids"]:
        _isolate(controller, own_group=not description["interactive"])
    else:
        from pytest_eventlet_debug.system import unpatched

        unpatched.end_with(controller)

    import pytest

    from pytest_eventlet_debug.children import child

    child.become(child.Spec(**description))
    sys.exit(pytest.main(arguments))


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
