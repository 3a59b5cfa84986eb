"""What ``run.json`` says of a run: how it began and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
import platform
from typing import TYPE_CHECKING

import pytest

from pytest_eventlet_debug import __version__
from pytest_eventlet_debug import versions
from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.shield import Shield
from pytest_eventlet_debug.system import unpatched

if TYPE_CHECKING:
    from pytest_eventlet_debug.artifact_records import RunRecord


def describe_run(
    config: pytest.Config,
    run: str,
    hub_names: Sequence[str],
    redact: Callable[[str], str],
) -> RunRecord:
    """Return what is known of a run when it begins, but for its tools.

    :param run: names the run.
    :param redact: takes out of a text what is not to be in it.
    """
    # Where nothing is recorded nobody calls this.
    from pytest_eventlet_debug.artifact_records import FORMAT
    from pytest_eventlet_debug.artifact_records import RunRecord

    return RunRecord(
        format=FORMAT,
        run=run,
        command=[redact(str(argument)) for argument in config.invocation_params.args],
        rootdir=str(config.rootpath),
        hubs=list(hub_names),
        started_ns=unpatched.time_ns(),
        python=platform.python_version(),
        platform=unpatched.platform_name(),
        versions={
            "pytest-eventlet-debug": __version__,
            **{name: versions.in_use(name) for name in ("pytest", "eventlet", "greenlet")},
        },
    )


class RunEnd:
    """Complete ``run.json`` when all tests are over; a plugin object.

    :param settings: say where the run's directory is, if it was opened under the name *run*.
    """

    def __init__(self, settings: Settings, run: str) -> None:
        self._settings = settings
        self._run = run

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        ended_ns = unpatched.time_ns()
        with Shield():
            if not self._settings.artifacts.is_dir():
                return
            from pytest_eventlet_debug import artifacts

            # A child or worker may have opened it, where a test asked for a recording itself.
            artifacts.await_completion(self._settings.artifacts, self._run)
            directory = artifacts.place_of(self._settings.artifacts, self._run)
            artifacts.close_run(
                directory, self._run, ended_ns=ended_ns, exit_status=int(exitstatus)
            )
