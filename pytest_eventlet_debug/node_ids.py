"""Node ids as pytest has them, and as they are named on a command line.

pytest's own are relative to the root directory, and the command line's to where it was typed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def absolute_id(argument: str, config: pytest.Config) -> str:
    """Return an argument as pytest reports it where it is not found."""
    path, colons, names = argument.partition("::")
    return os.path.abspath(config.invocation_params.dir / path) + colons + names


def relative_id(nodeid: str, config: pytest.Config) -> str:
    """Return the node id that a test has, from one with an absolute path."""
    path, colons, names = nodeid.partition("::")
    return Path(os.path.relpath(path, config.rootpath)).as_posix() + colons + names


def shown_id(nodeid: str, config: pytest.Config) -> str:
    """Return a node id as pytest's own summary prints it, which the command line takes."""
    if config.invocation_params.dir == config.rootpath:
        return nodeid
    path, colons, names = nodeid.partition("::")
    relative = os.path.relpath(config.rootpath / path, config.invocation_params.dir)
    return relative + colons + names
