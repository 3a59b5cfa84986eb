"""eventlet's hubs: their names, which of them work here, and which one is in force.

Nothing here imports eventlet for the hubs that come with it: coverage of eventlet's own
suite, and a conftest that patches before anything else, both need to be first.
"""

from __future__ import annotations

from collections.abc import Iterable
import importlib
from importlib.machinery import PathFinder
import importlib.util
import os
from pathlib import Path
import sys
from typing import Any
from typing import NamedTuple

from pytest_eventlet_debug.system import unpatched

BUILTIN = ("epolls", "poll", "selects", "kqueue", "asyncio")
ALIASES = {"epoll": "epolls", "select": "selects"}

# What eventlet's is_available() asks of the select module, hub by hub.
_NEEDS = {"epolls": "epoll", "poll": "poll", "selects": "select", "kqueue": "kqueue"}

# What eventlet calls of any hub; see BaseHub in eventlet.hubs.hub.
_METHODS = ("add", "remove", "schedule_call_global", "switch", "run")


class HubNameError(ValueError):
    """A name that is not a hub, or a hub that does not work here. One line, with a remedy."""


class Hub(NamedTuple):
    """A hub to run tests under.

    :param name: eventlet's own name of it, also a valid value of ``EVENTLET_HUB``.
    :param module: the module that holds the hub's class.
    :param classname: the name of that class.
    """

    name: str
    module: str
    classname: str = "Hub"

    def __str__(self) -> str:
        return self.name


def available() -> tuple[str, ...]:
    """Return the names of the built-in hubs that work on this machine, in their usual order."""
    folder = _folder()
    return tuple(
        name
        for name in BUILTIN
        if folder is not None
        and (folder / f"{name}.py").exists()
        and hasattr(unpatched.select, _NEEDS.get(name, "select"))
    )


def select_hubs(names: str, *, only_available: bool = True) -> tuple[Hub, ...]:
    """Turn a comma list of names into hubs, in order, each once.

    :param names: names, aliases, ``all``, or ``package.module:Class``.
    :param only_available: refuse hubs that exist but do not work on this machine.
    :raises HubNameError: a name that is unknown, empty or not available here.
    """
    hubs: dict[str, Hub] = {}
    for name in (word.strip() for word in names.split(",")):
        for hub in _resolve(name, only_available):
            hubs.setdefault(hub.name, hub)
    return tuple(hubs.values())


def _resolve(name: str, only_available: bool) -> Iterable[Hub]:
    works = available()
    if not works:
        raise HubNameError("eventlet is not installed here; pip install 'eventlet>=0.35'")
    if name == "all":
        return [Hub(each, f"eventlet.hubs.{each}") for each in works]
    name = ALIASES.get(name, name)
    if name in works or (name in BUILTIN and not only_available):
        return [Hub(name, f"eventlet.hubs.{name}")]
    here = f"Available here: {', '.join(works)}."
    if not name:
        raise HubNameError(f"a hub's name is empty. {here}")
    if name in BUILTIN:
        raise HubNameError(f"the hub {name!r} is not available on this machine. {here}")
    if "." in name or ":" in name:
        return [_custom(name, here)]
    raise HubNameError(f"{name!r} is not an eventlet hub. {here}")


def default() -> Hub:
    """Return the hub that eventlet takes by itself: ``EVENTLET_HUB``'s, else the first."""
    name = os.environ.get("EVENTLET_HUB", "")
    try:
        return select_hubs(name or available()[0])[0]
    except (HubNameError, IndexError):
        return Hub(name, f"eventlet.hubs.{name}")  # eventlet itself will say what is wrong


def _custom(name: str, here: str) -> Hub:
    module, _, classname = name.partition(":")
    hub = Hub(name, module, classname or "Hub")
    try:
        found = getattr(importlib.import_module(module), hub.classname)
    except Exception as error:
        why = f"{type(error).__name__}: {error}"
        raise HubNameError(f"the hub {name!r} cannot be imported ({why}). {here}") from None
    if not (isinstance(found, type) and all(hasattr(found, each) for each in _METHODS)):
        raise HubNameError(
            f"{name!r} is not a hub: it is not a class with the methods {', '.join(_METHODS)}. "
            f"{here}"
        )
    return hub


def _folder() -> Path | None:
    """Return eventlet's folder of hubs, without importing eventlet."""
    try:
        spec = importlib.util.find_spec("eventlet")
    except ValueError:  # a test has put a mock in its place
        spec = PathFinder.find_spec("eventlet")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "hubs"


def in_force() -> str | None:
    """Return the name of this thread's hub, or ``None`` as long as there is none.

    Neither imports eventlet nor makes a hub: it only looks.
    """
    hub = own_hub()
    kind = type(hub) if hub is not None else getattr(_threadlocal(), "Hub", None)
    return name_of(kind) if kind is not None else None


def name_of(kind: type) -> str:
    """Return the name of a class of hubs, as ``--eventlet-hub`` takes it."""
    package, _, name = kind.__module__.rpartition(".")
    if package == "eventlet.hubs" and kind.__name__ == "Hub":
        return name
    return f"{kind.__module__}:{kind.__qualname__}"


def own_hub() -> Any:
    """Return this thread's hub, ``None`` as long as there is none."""
    return getattr(_threadlocal(), "hub", None)


def _threadlocal() -> Any:
    """Return where eventlet keeps each thread's hub, ``None`` as long as it is not imported."""
    return getattr(sys.modules.get("eventlet.hubs"), "_threadlocal", None)


def is_stuck(hub: Any) -> bool:
    """Say whether a hub takes itself for running, with a greenlet that has ended.

    An exception, such as one of a signal handler, ends the greenlet of any hub, and the next wait
    makes another. But the coroutine of the asyncio hub stays where it was, with ``running`` set.
    """
    greenlet = getattr(hub, "greenlet", None)
    return bool(getattr(hub, "running", False)) and getattr(greenlet, "dead", False) is True


def same(hub: Hub, name: str) -> bool:
    """Tell whether a name from :func:`in_force` is that hub."""
    return name in (hub.name, f"{hub.module}:{hub.classname}")
