"""Node ids that say the hub: ``test_x[asyncio]``, ``test_x[1-asyncio]``.

Every item gets its suffix in the same way, in the report of the collector that made it: plain
functions, ``unittest.TestCase`` methods, doctests and other plugins' items. Selection,
``--lf`` and ``--deselect`` then see ids that can be pasted back. A parameter in its place
would not reach ``TestCase`` methods, and would let pytest's grouping by session-scoped
parameters move the items that have none.
"""

from __future__ import annotations

from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Sequence
import functools
from typing import Any

from _pytest.unittest import TestCaseFunction
import pytest

from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.hubs.names import HubNameError
from pytest_eventlet_debug.hubs.names import select_hubs

MARKER = "eventlet_hub"

_renamed_key = pytest.StashKey[bool]()

#: How the reason of a test begins that is skipped for its marker.
MARKER_REASON = "marked for the eventlet hub"


def add_hub(nodeid: str, hub: str) -> str:
    """Return a node id, or the name of an item, with a hub at the end of its parameters."""
    if nodeid.endswith("]") and "[" in nodeid:
        return f"{nodeid[:-1]}-{hub}]"
    return f"{nodeid}[{hub}]"


def split_hub(nodeid: str, hubs: Iterable[str]) -> tuple[str, str | None]:
    """Undo :func:`add_hub`: return the id without its hub, and the hub or ``None``."""
    for hub in hubs:
        if nodeid.endswith(f"[{hub}]"):
            return nodeid[: -len(hub) - 2], hub
        if nodeid.endswith(f"-{hub}]"):
            return f"{nodeid[: -len(hub) - 2]}]", hub
    return nodeid, None


def select_arguments(arguments: Sequence[str], hub: str, hubs: Sequence[str]) -> list[str] | None:
    """Return the command line's paths and node ids as they are called under one hub.

    Ids with parameters but no hub stand for that test on every hub.

    :param hubs: every hub of the run; ids of the other ones are left out.
    :returns: ``None`` if the user asked for tests of other hubs only.
    """
    selected = []
    for argument in arguments:
        bare, named = split_hub(argument, hubs)
        if named == hub or "::" not in argument:
            selected.append(argument)
        elif named is None:
            selected.append(add_hub(bare, hub) if bare.endswith("]") else bare)
    return selected if selected or not arguments else None


class HubItems:
    """Name the items after the hub; a plugin object.

    :param hub: the hub this process runs under.
    :param hubs: the names of all hubs of the run.
    :param rename: whether node ids carry the hub.
    """

    def __init__(self, hub: Hub, hubs: Sequence[str], rename: bool) -> None:
        self._hub = hub
        self._hubs = hubs
        self._rename = rename

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self, session: pytest.Session) -> None:
        if not self._rename:
            return
        config = session.config
        config.args[:] = select_arguments(config.args, self._hub.name, self._hubs) or config.args
        if config.option.deselect:
            config.option.deselect = select_arguments(
                config.option.deselect, self._hub.name, self._hubs
            )

    # Innermost, so that --lf's own wrapper around it compares the ids it has stored.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(
        self,
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        if self._rename:
            for node in report.result or ():
                if isinstance(node, pytest.Item):
                    rename(node, self._hub.name)
        return report


def rename(item: pytest.Item, hub: str) -> None:
    """Put the hub at the end of an item's name and node id, once."""
    # An item that the command line names is in its collector's report and in the session's.
    if item.stash.get(_renamed_key, False):
        return
    item.stash[_renamed_key] = True
    nodeid: Any = add_hub(item.nodeid, hub)
    original = item.name
    item.name = add_hub(original, hub)
    item.keywords[item.name] = True
    # pytest 9.2 keeps a structured NodeId in _id; before, the text stood in _nodeid.
    renamed: Any = item
    structured = getattr(item, "_id", None)
    if structured is not None:
        renamed._id = type(structured).parse(nodeid)
    else:
        renamed._nodeid = nodeid
    if isinstance(item, TestCaseFunction):
        # Both look the test method up by the item's name.
        _show_name(item, original, ("_getinstance", "runtest"))
    elif not isinstance(item, pytest.Function):
        # To an item of somebody else's the name may be what it is about.
        _show_name(item, original, ("setup", "runtest", "teardown", "repr_failure"))


def _show_name(item: pytest.Item, name: str, methods: Iterable[str]) -> None:
    """Let these methods of an item find another name in it than all others do."""

    def shown(method: Any, *args: Any, **kwargs: Any) -> Any:
        before, item.name = item.name, name
        try:
            return method(*args, **kwargs)
        finally:
            item.name = before

    for method in methods:
        setattr(item, method, functools.partial(shown, getattr(item, method)))


def apply_marker(items: Iterable[pytest.Item], hub: Hub) -> None:
    """Skip the items that ``@pytest.mark.eventlet_hub(...)`` keeps for other hubs.

    :raises pytest.UsageError: the marker names something that is not a hub.
    """
    for item in items:
        for mark in item.iter_markers(MARKER):
            allowed = _allowed(item, mark)
            if hub.name not in allowed:
                reason = f"{MARKER_REASON} {', '.join(allowed)}, this is {hub}"
                item.add_marker(pytest.mark.skip(reason=reason))
                break


def _allowed(item: pytest.Item, mark: pytest.Mark) -> list[str]:
    names = [str(name) for name in mark.args]
    try:
        return [hub.name for hub in select_hubs(",".join(names), only_available=False)]
    except HubNameError as error:
        raise pytest.UsageError(f"{item.nodeid}: marker {MARKER}: {error}") from None
