"""What watches functions of eventlet and asyncio, in whose place others stand meanwhile."""

from __future__ import annotations

from collections.abc import Callable
import sys
import types
from typing import Any

from pytest_eventlet_debug.system.code_places import stand_in


class FunctionWatch:
    """Has functions of its own called from :meth:`begin` or :meth:`look_again` to :meth:`stop`."""

    def __init__(self) -> None:
        #: ``None`` in the place of one that was inherited.
        self._originals: list[tuple[Any, str, Any]] = []
        self._known: set[tuple[str, str]] = set()

    def begin(self) -> None:
        """Forget what was seen in a test, and begin if what is watched has been imported by now."""
        self._forget()
        self.look_again()

    def look_again(self) -> None:
        """Begin, if what is watched has been imported by now."""
        if not self._originals:
            self._wrap_all()

    def stop(self) -> None:
        """Leave the functions as they were."""
        for owner, name, original in reversed(self._originals):
            if original is None:
                delattr(owner, name)
            else:
                setattr(owner, name, original)
        self._originals.clear()
        self._known.clear()

    def told(self) -> str:
        """Return what was seen in this test that may be a reason for its failure, or ``""``."""
        return ""

    def _forget(self) -> None:
        """Drop what was seen in a test, if that is kept."""

    def _wrap_all(self) -> None:
        """Call :meth:`_wrap` of what has been imported."""
        raise NotImplementedError

    def _wrap(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        """Put what *wrap* makes of a function in its place, if that is one of Python's."""
        original = getattr(owner, "__dict__", {}).get(name)
        ours = wrap.__code__.co_filename
        # Dumps and leaks may both be asked for; one of them is enough.
        if type(original) is types.FunctionType and original.__code__.co_filename != ours:
            self._originals.append((owner, name, original))
            setattr(owner, name, stand_in(wrap(original), original))

    def _wrap_any(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:
        """Put what *wrap* makes of a function in its place, be it written in C or inherited."""
        original = getattr(owner, name, None)
        if callable(original):
            self._originals.append((owner, name, vars(owner).get(name)))
            setattr(owner, name, stand_in(wrap(original), original))

    def _new(self, module: str, name: str) -> Any:
        """Return a class that has been imported since this was last asked for it, else ``None``."""
        kind = getattr(sys.modules.get(module), name, None)
        if kind is None or (module, name) in self._known:
            return None
        self._known.add((module, name))
        return kind

    def _wrap_of_loop(self, name: str, wrap: Callable[[Any], Any]) -> None:
        """Put what *wrap* makes of a method of asyncio's loops in its place."""
        self._wrap(
            getattr(sys.modules.get("asyncio.base_events"), "BaseEventLoop", None), name, wrap
        )

    def _wrap_of_hub(self, name: str, wrap: Callable[[Any], Any]) -> None:
        """Put what *wrap* makes of a method of all hubs in its place."""
        self._wrap(getattr(sys.modules.get("eventlet.hubs.hub"), "BaseHub", None), name, wrap)


class FirstSeenWatch(FunctionWatch):
    """Keeps in words the first of what was seen in a test."""

    def __init__(self) -> None:
        super().__init__()
        self._first = ""

    def _forget(self) -> None:
        self._first = ""

    def told(self) -> str:
        """Return what was seen first in this test, or ``""``."""
        return self._first
