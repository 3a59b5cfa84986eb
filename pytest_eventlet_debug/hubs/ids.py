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
import types
from typing import Any

import pytest

from pytest_eventlet_debug import pytest_internals
from pytest_eventlet_debug.system.code_places import stand_in

#: The name that an item had before.
_name_key = pytest.StashKey[str]()


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
    if _name_key in item.stash:
        return
    item.stash[_name_key] = item.name
    nodeid = add_hub(item.nodeid, hub)
    item.name = add_hub(item.name, hub)
    item.keywords[item.name] = True
    pytest_internals.set_nodeid(item, nodeid)
    if pytest_internals.is_unittest(item):
        # Both look the test method up by the item's name.
        item.__class__ = _showing_name(type(item), ("_getinstance", "runtest"))
    elif not isinstance(item, pytest.Function):
        # To an item of somebody else's the name may be what it is about.
        methods = ("setup", "runtest", "teardown", "repr_failure")
        item.__class__ = _showing_name(type(item), methods)


@functools.cache
def _showing_name(kind: type[pytest.Item], methods: tuple[str, ...]) -> type[pytest.Item]:
    """Return a class of items that differs from another in what name some methods find.

    That is the one it had before. No item has methods of its own for that: there may be
    thousands, and each full collection looks at all that they have.
    """

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(__slots__=(), __module__=kind.__module__, __qualname__=kind.__qualname__)
        namespace.update({name: _finding_name(getattr(kind, name)) for name in methods})

    return types.new_class(kind.__name__, (kind,), exec_body=fill)


def _finding_name(method: Callable[..., Any]) -> Callable[..., Any]:
    def find(item: pytest.Item, *args: Any, **kwargs: Any) -> Any:
        before, item.name = item.name, item.stash.get(_name_key, item.name)
        try:
            return method(item, *args, **kwargs)
        finally:
            item.name = before

    return stand_in(find, method)
