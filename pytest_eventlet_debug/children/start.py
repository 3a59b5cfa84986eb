"""Start a child with the command line of the run that it is a part of."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path

import msgspec
import pytest

from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.children import coverage
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.children.program import UnknownProgramError
from pytest_eventlet_debug.children.program import own_program
from pytest_eventlet_debug.hubs import randomly
from pytest_eventlet_debug.system import unpatched


def start_child(
    config: pytest.Config,
    assignment: ChildAssignment,
    directory: Path,
    label: str,
    remaining: Sequence[str] | None,
) -> ChildProcess:
    """Start a pytest for an assignment.

    :param directory: where its output and its coverage data go.
    :param label: what those files are called.
    :param remaining: the node ids to run, in order, or ``None`` for all that are found.
    """
    path = directory / f"{label}.remaining.json"
    if remaining is not None:
        path.write_text(json.dumps(list(remaining)))
        assignment = msgspec.structs.replace(assignment, remaining=str(path))
    assignment = msgspec.structs.replace(assignment, randomly_seed=randomly.seed(config))
    environment = unpatched.environment(**coverage.environment(config, path))
    if assignment.hub is not None:
        # In force from the start, for a conftest may import eventlet before any hook of ours.
        environment["EVENTLET_HUB"] = assignment.hub
    try:
        program = own_program()
    except UnknownProgramError:
        program = None  # the controller has said so
    return ChildProcess(
        assignment,
        program,
        [str(argument) for argument in config.invocation_params.args],
        environment=environment,
        working_directory=config.invocation_params.dir,
        stdout=directory / f"{label}.out",
        stderr=directory / f"{label}.err",
    )
