"""Start a child with the command line of the run that it is a part of."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import os
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
    spare: Spare | None = None,
    *,
    waits: bool = False,
) -> ChildProcess:
    """Start a pytest for an assignment.

    :param directory: where its output and its coverage data go.
    :param label: what those files are called.
    :param remaining: the node ids to run, in order, or ``None`` for all that are found.
    :param spare: where one may wait already.
    :param waits: whether it is to wait, for :meth:`~.process.ChildProcess.begin`.
    """
    path = directory / f"{label}.remaining.json"
    if remaining is not None:
        path.write_text(json.dumps(list(remaining)))
        assignment = msgspec.structs.replace(assignment, remaining=str(path))
    assignment = msgspec.structs.replace(assignment, randomly_seed=randomly.seed(config))
    environment = _environment(config, assignment, path)
    if spare is not None:
        process = spare.take(label, environment)
        if process is not None and process.begin(assignment):
            return process
        if process is not None:
            process.discard()
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
        waits=waits,
    )


def _environment(
    config: pytest.Config, assignment: ChildAssignment, beside: Path
) -> dict[str, str]:
    environment = unpatched.environment(**coverage.environment(config, beside))
    if assignment.hub is not None:
        # In force from the start, for a conftest may import eventlet before any hook of ours.
        environment["EVENTLET_HUB"] = assignment.hub
    return environment


class Spare:
    """The next child, started while another one runs, up to where code of the user's begins.

    It has imported pytest when its turn comes. Only where it becomes just what a child would
    be that starts then: the environment is compared.
    """

    def __init__(self, config: pytest.Config, directory: Path) -> None:
        """Start nothing yet.

        :param directory: as for :func:`start_child`.
        """
        self._config = config
        self._directory = directory
        self._label = ""
        self._environment: dict[str, str] = {}
        self._process: ChildProcess | None = None

    def prepare(self, assignment: ChildAssignment, label: str) -> None:
        """Have a child wait, unless one does or that cannot be."""
        if self._process is not None or not _may_wait(assignment):
            return
        self._label = label
        path = self._directory / f"{label}.remaining.json"
        self._environment = _environment(self._config, assignment, path)
        with contextlib.suppress(OSError):  # it will be said when its turn comes
            self._process = start_child(
                self._config, assignment, self._directory, label, None, waits=True
            )

    def take(self, label: str, environment: Mapping[str, str]) -> ChildProcess | None:
        """Return the child that waits, if it is the one that is called *label*."""
        if self._process is None or self._label != label:
            return None
        process, self._process = self._process, None
        if environment != self._environment or process.ended():
            process.discard()
            return None
        return process

    def close(self) -> None:
        """End the child that waits, if there is one."""
        if self._process is not None:
            process, self._process = self._process, None
            process.discard()


def _may_wait(assignment: ChildAssignment) -> bool:
    """Say whether a child can start ahead without harm, and with a gain."""
    if assignment.interactive or assignment.own_pids or len(os.sched_getaffinity(0)) < 2:
        return False
    try:
        # A program may change what pytest is before it imports it.
        return own_program() is None
    except UnknownProgramError:
        return True
