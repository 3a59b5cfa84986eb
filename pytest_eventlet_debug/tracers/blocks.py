"""``eventlet_trace``: record a block of a test with tracers named there."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from pytest_eventlet_debug import tracer_registry as registry
from pytest_eventlet_debug.tracer_registry import TracerKind
from pytest_eventlet_debug.tracers.maker import TracerMaker
from pytest_eventlet_debug.tracers.protocol import TracerError
from pytest_eventlet_debug.tracers.session import TracerSession


def find_kinds(names: Sequence[str]) -> list[TracerKind]:
    """Return the tracers of those names, each once, in the order in which they start.

    :raises ValueError: a name that is not a tracer's, or none at all.
    """
    __tracebackhide__ = True
    unknown = [name for name in names if registry.kind(name) is None]
    if unknown or not names:
        given = f"{unknown[0]!r} is not a tracer" if unknown else "no tracer is named"
        known = ", ".join(sorted(kind.name for kind in registry.kinds()))
        raise ValueError(f"eventlet_trace: {given}. There are: {known}.")
    return [kind for kind in registry.kinds() if kind.name in names]


def trace_block(
    session: TracerSession, maker: TracerMaker, item: pytest.Item, kinds: Sequence[TracerKind]
) -> AbstractContextManager[Path]:
    """Return a context manager that records a block of a test.

    :param kinds: the tracers; one that does not work here is warned of and left out.
    """
    tracers = []
    for kind in kinds:
        try:
            tracers.append(maker.make_checked(kind))
        except TracerError as error:
            session.leave_out(item, kind.name, error)
    return session.block(item, tracers)
