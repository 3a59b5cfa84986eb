"""Node ids that say the hub: ``test_x[asyncio]``, ``test_x[1-asyncio]``.

Every item gets its suffix in the same way, in the report of the collector that made it: plain
functions, ``unittest.TestCase`` methods, doctests and other plugins' items. Selection,
``--lf`` and ``--deselect`` then see ids that can be pasted back. A parameter in its place
would not reach ``TestCase`` methods, and would let pytest's grouping by session-scoped
parameters move the items that have none.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
import functools
from typing import Any

import pytest

from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.system.code_places import stand_in

_renamed_key = pytest.StashKey[bool]()


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


def without_hub(nodeid: str, hub: str) -> str:
    """Return a node id as it is called without the hub that it is known to be of."""
    return split_hub(nodeid, [hub])[0]


class HubItems:
    """Name the items after the hub; a plugin object.

    :param hub: the hub this process runs under.
    """

    def __init__(self, hub: str) -> None:
        self._hub = hub

    # Innermost, so that --lf's own wrapper around it compares the ids it has stored.
    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(
        self,
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        report = yield
        for node in report.result or ():
            if isinstance(node, pytest.Item):
                rename(node, self._hub)
        return report


def rename(item: pytest.Item, hub: str) -> None:
    """Put the hub at the end of an item's name and node id, once."""
    # An item that the command line names is in its collector's report and in the session's.
    if item.stash.get(_renamed_key, False):
        return
    item.stash[_renamed_key] = True
    nodeid = add_hub(item.nodeid, hub)
    original = item.name
    item.name = add_hub(original, hub)
    item.keywords[item.name] = True
    pytest_internals.set_nodeid(item, nodeid)
    if pytest_internals.is_unittest(item):
        # Both look the test method up by the item's name.
        _show_name(item, original, ("_getinstance", "runtest"))
    elif not isinstance(item, pytest.Function):
        # To an item of somebody else's the name may be what it is about.
        _show_name(item, original, ("setup", "runtest", "teardown", "repr_failure"))


def _show_name(item: pytest.Item, name: str, methods: Iterable[str]) -> None:
    """Let these methods of an item find another name in it than all others do."""
    for method in methods:
        # No closure: there are as many as items, and all are looked at by each full collection.
        found = functools.partial(_showing(method), item, name, getattr(item, method))
        setattr(item, method, found)


@functools.cache
def _showing(method: str) -> Callable[..., Any]:
    """Return what stands in for a method of an item, bound to it and to the name."""
    return stand_in(_call_showing, method)


def _call_showing(
    item: pytest.Item, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any
) -> Any:
    before, item.name = item.name, name
    try:
        return method(*args, **kwargs)
    finally:
        item.name = before
