"""Make the tracers that the registry knows, and find out whether they work here."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import importlib
from typing import Protocol
from typing import cast

from pytest_eventlet_debug.settings import Settings
from pytest_eventlet_debug.tracer_registry import TracerKind
from pytest_eventlet_debug.tracers.helper_client import Helper
from pytest_eventlet_debug.tracers.protocol import Tracer
from pytest_eventlet_debug.tracers.protocol import TracerError


class TracerModule(Protocol):
    """What the module of a tracer has for the registry."""

    def prepare(self, settings: Settings) -> None:
        """Do what must be done in the test process before the user's code runs."""

    def make(self, settings: Settings, start_helper: Callable[[], Helper]) -> Tracer:
        """Return a new tracer.

        :param start_helper: returns this process's helper.
        :raises TracerError: there can be none.
        """


class TracerMaker:
    """Makes the tracers of one process."""

    def __init__(self, settings: Settings, start_helper: Callable[[], Helper]) -> None:
        self._settings = settings
        self._start_helper = start_helper
        self._checked: dict[str, TracerError | None] = {}
        self._made: list[Tracer] = []

    def prepare(self) -> None:
        """Prepare this process for the tracers asked for, before the user's code runs."""
        for kind in self._settings.tracers:
            _load(kind).prepare(self._settings)

    def warm_up(self, *, trial: bool) -> None:
        """Begin what tracers need time for, while this process goes on.

        :param trial: whether :meth:`check_all` will be called.
        """
        # What fails now fails again when somebody waits for it, and is reported then.
        with contextlib.suppress(TracerError):
            self.make_all()
        # strace has its answer sooner before a capture's ring is allocated.
        for tracer in reversed(self._made):
            with contextlib.suppress(TracerError):
                tracer.warm_up(trial=trial)

    def make(self, kind: TracerKind) -> Tracer:
        """Return a new tracer.

        :raises TracerError: there can be none.
        """
        return _load(kind).make(self._settings, self._start_helper)

    def make_all(self) -> list[Tracer]:
        """Return a tracer of each kind asked for, in the order in which they start; made once.

        :raises TracerError: one of them cannot be made.
        """
        self._made = self._made or [self.make(kind) for kind in self._settings.tracers]
        return self._made

    def make_checked(self, kind: TracerKind) -> Tracer:
        """Return a new tracer, tried before its first use unless an option asked for it.

        :raises TracerError: it does not work here; the same for every later use.
        """
        if kind not in self._settings.tracers:
            self._check_once(kind)
        return self.make(kind)

    def check_all(self) -> list[str]:
        """Try each tracer asked for, so that what is missing is known before the first test.

        :return: their names and versions, for the report's header.
        :raises TracerError: one of them does not work here.
        """
        versions = []
        for kind, tracer in zip(self._settings.tracers, self.make_all(), strict=True):
            tracer.check()
            versions.append(f"{kind.name} {tracer.version}")
        return versions

    def confirm_all(self) -> None:
        """Wait for what could not be said at once of the tracers that were tried.

        :raises TracerError: one of them does not work here.
        """
        for tracer in self._made:
            tracer.confirm()

    def _check_once(self, kind: TracerKind) -> None:
        if kind.name not in self._checked:
            self._checked[kind.name] = None
            try:
                tracer = self.make(kind)
                tracer.check()
                tracer.confirm()
            except TracerError as error:
                self._checked[kind.name] = error
        known = self._checked[kind.name]
        if known is not None:
            raise known


def _load(kind: TracerKind) -> TracerModule:
    return cast(TracerModule, importlib.import_module(kind.module))
