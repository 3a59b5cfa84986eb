"""Start a child with the command line of the run that it is a part of."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pytest_eventlet_debug.assignment import ChildAssignment
from pytest_eventlet_debug.assignment import Waits
from pytest_eventlet_debug.children import coverage
from pytest_eventlet_debug.children.hub_run import HubRun
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.children.program import UnknownProgramError
from pytest_eventlet_debug.children.program import own_program
from pytest_eventlet_debug.hubs import randomly
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.system import unpatched

#: The folders that distributions are installed in have one of these names.
_INSTALLED = frozenset(("site-packages", "dist-packages"))

_OWN_FOLDER = Path(__file__).parent.parent


def start_child(
    config: pytest.Config,
    assignment: ChildAssignment,
    directory: Path,
    label: str,
    remaining: Sequence[str] | None,
    spare: Spare | None = None,
    *,
    waits: Waits | None = None,
    imports: Sequence[str] = (),
) -> ChildProcess:
    """Start a pytest for an assignment.

    :param directory: where its output and its coverage data go.
    :param label: what those files are called.
    :param remaining: the node ids to run, in order, or ``None`` for all that are found.
    :param spare: where one may wait already.
    :param waits: what it leaves until :meth:`~.process.ChildProcess.begin`; ``None`` if it does
        not wait.
    :param imports: what it imports until then.
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
        imports=imports,
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

    It has imported pytest when its turn comes, and loaded the plugins if all are installed ones.
    Only where it becomes just what a child would be that starts then: the environment is compared.
    """

    def __init__(self, config: pytest.Config, settings: Settings, directory: Path) -> None:
        """Start nothing yet; the first conftests have not been imported.

        :param directory: as for :func:`start_child`.
        """
        self._config = config
        self._imports = _imports(settings)
        self._waits: Waits = "for conftests" if has_installed_plugins(config) else "for plugins"
        self._directory = directory
        self._label = ""
        self._environment: dict[str, str] = {}
        self._process: ChildProcess | None = None

    def prepare(self, assignment: ChildAssignment, label: str) -> None:
        """Have a child wait, unless one does or that cannot be."""
        if self._process is not None or not _may_wait(assignment):
            return
        self._label = label
        self._environment = self._environment_of(assignment, label)
        with contextlib.suppress(OSError):  # it will be said when its turn comes
            self._process = start_child(
                self._config,
                assignment,
                self._directory,
                label,
                None,
                waits=self._waits,
                imports=self._imports,
            )

    def renew(self, assignment: ChildAssignment, label: str) -> None:
        """Have a child wait, and not one that will be of no use."""
        environment = self._environment_of(assignment, label)
        if (label, environment) != (self._label, self._environment):
            self.close()
        self.prepare(assignment, label)

    def _environment_of(self, assignment: ChildAssignment, label: str) -> dict[str, str]:
        path = self._directory / f"{label}.remaining.json"
        return _environment(self._config, assignment, path)

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


def start_ahead(
    config: pytest.Config, settings: Settings, directory: Path, *, run: str, own_pids: bool
) -> Spare:
    """Have the first child start before the user's code is imported here.

    :param directory: as for :func:`start_child`.
    :param run: names the run.
    :param own_pids: whether it has process ids of its own.
    """
    spare = Spare(config, settings, directory)
    options = config.known_args_namespace
    first = HubRun(settings.hubs[0] if settings.hubs else None)
    # pytest-cov, which is about to be asked for it, has yet to say where data goes.
    if not coverage.is_asked_for(options):
        assignment = ChildAssignment(
            hub=first.hub.name if first.hub else None,
            hubs=tuple(hub.name for hub in settings.hubs),
            run=run,
            interactive=wants_terminal(config, options),
            own_pids=own_pids,
        )
        spare.prepare(assignment, first.label)
    return spare


def wants_terminal(config: pytest.Config, options: Any) -> bool:
    """Say whether the user will talk to the tests, or watch what they print."""
    asked = (getattr(options, name, None) for name in ("usepdb", "trace", "log_cli_level"))
    return any(asked) or getattr(options, "capture", "no") == "no" or _has_live_logs(config)


def _has_live_logs(config: pytest.Config) -> bool:
    try:
        return bool(config.getini("log_cli"))
    except (KeyError, ValueError):  # -p no:logging
        return False


def has_installed_plugins(config: pytest.Config) -> bool:
    """Say whether all plugins that have been loaded were installed, and none is in development.

    Conftests do not count: a child that waits for them has none.
    """
    named = (getattr(plugin, "__file__", None) for plugin in config.pluginmanager.get_plugins())
    files = (Path(file) for file in named if file is not None)
    return all(
        not _INSTALLED.isdisjoint(file.parts)
        for file in files
        if file.name != "conftest.py" and not file.is_relative_to(_OWN_FOLDER)
    )


def _imports(settings: Settings) -> list[str]:
    """Return what a child imports before the user's code, beside pytest."""
    names = [
        *("activation", "children.child", "children.coverage", "children.selection"),
        "children.teardown",
        "hubs.witness",
    ]
    if settings.records:
        names.append("recording")
    if settings.dump_asyncio_tasks:
        names.append("alive.dump")
    if settings.leaks is not None:
        names.append("alive.leaks")
    if settings.blocked is not None:
        names.append("stalls.watch")
    tracers = [kind.module for kind in settings.tracers] if settings.records else []
    return [*(f"pytest_eventlet_debug.{name}" for name in names), *tracers]


def _may_wait(assignment: ChildAssignment) -> bool:
    """Say whether a child can start ahead without harm, and with a gain."""
    if assignment.interactive or assignment.own_pids or len(os.sched_getaffinity(0)) < 2:
        return False
    try:
        # A program may change what pytest is before it imports it.
        return own_program() is None
    except UnknownProgramError:
        return True
