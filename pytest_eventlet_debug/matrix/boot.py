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

    import pytest

    from pytest_eventlet_debug.matrix import child

    child.become(child.Spec(**description))
    sys.exit(pytest.main(arguments))


if __name__ == "__main__":
    main()
