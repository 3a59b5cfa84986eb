"""What the user asked for: the options' values, and what follows from them."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_eventlet_debug import option_types
from pytest_eventlet_debug import tracer_registry as registry
from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.hubs.names import HubNameError
from pytest_eventlet_debug.hubs.names import select_hubs
from pytest_eventlet_debug.options import Options
from pytest_eventlet_debug.options import all_options
from pytest_eventlet_debug.options import require_comparison

if TYPE_CHECKING:
    from pytest_eventlet_debug.assignment import Tracing


class Settings(Options):
    """The options' values in one process.

    :ivar hubs: the hubs to run, in order, without repeats; empty for "whatever is set".
    :ivar root: pytest's rootdir.
    """

    def __init__(
        self, config: pytest.Config, hub: str | None = None, tracing: Tracing = "as asked"
    ) -> None:
        """Read all of them.

        :param hub: the hub that the process was started for, whatever the options name.
        :param tracing: whether its tests are recorded, whatever the options say.
        :raises pytest.UsageError: a value that cannot be used, with what would do.
        """
        super().__init__(config, all_options())
        self.root = config.rootpath
        self._tracing = tracing
        self._artifacts_asked = self.artifacts
        if self.blocked_fail and self.blocked is None:
            self._values[Options.blocked.dest] = option_types.threshold(Options.blocked.bare or "")
        self.hubs = select_hubs(hub) if hub is not None else _hubs(config, self.hub_names)
        require_comparison(config)

    def use_artifacts(self, directory: Path) -> None:
        """Know which directory the run got, which may not be the one that was asked for."""
        self._values[Options.artifacts.dest] = directory

    @property
    def place(self) -> str:
        """Where the artifacts are, and why not where they were asked for."""
        if self.artifacts == self._artifacts_asked:
            return str(self.artifacts)
        asked = self._artifacts_asked.name
        return f"{self.artifacts} ({asked} belongs to a run that is still in progress)"

    @property
    def hub_in_ids(self) -> bool:
        """Whether node ids end in the hub's name."""
        return self.hub_names is not None

    @functools.cached_property
    def tracers(self) -> tuple[registry.TracerKind, ...]:
        """The tracers asked for, in the order in which they start."""
        return tuple(kind for kind in registry.kinds() if kind.is_asked_for(self))

    @property
    def tracer_names(self) -> list[str]:
        """The names of the tracers asked for."""
        return [kind.name for kind in self.tracers]

    @property
    def records(self) -> bool:
        """Whether these tracers record the tests that this process runs."""
        wanted = self._tracing == "on" or (self._tracing == "as asked" and not self.retrace)
        return wanted and bool(self.tracers)

    @property
    def keeps_own_findings(self) -> bool:
        """Whether test processes write files of their own, tracers or not."""
        return self.dump_asyncio_tasks or self.blocked is not None

    @property
    def needs_children(self) -> bool:
        """Whether tests run in child processes, one for each hub."""
        return len(self.hubs) > 1 or self.timeout is not None


def _hubs(config: pytest.Config, names: str | None) -> tuple[Hub, ...]:
    if names is not None:
        return _select(Options.hub_names.name(config), names)
    names = os.environ.get("EVENTLET_HUB")
    if not names:
        return ()
    hubs = _select("EVENTLET_HUB", names)
    if len(hubs) > 1:
        raise pytest.UsageError(
            f"EVENTLET_HUB: {names!r} names several hubs, but eventlet accepts only one there; "
            f"use --eventlet-hub={names}"
        )
    return hubs


def _select(source: str, names: str) -> tuple[Hub, ...]:
    try:
        return select_hubs(names)
    except HubNameError as error:
        raise pytest.UsageError(f"{source}: {error}") from None
