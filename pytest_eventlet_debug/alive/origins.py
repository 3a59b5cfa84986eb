"""Where in the code the descriptors of this process were opened, learnt while leaks are looked for.

Python tells an audit hook (PEP 578) of each ``open`` and of each socket object that is made, an
accepted one included. Pipes and what C libraries open it does not tell. A hook cannot be taken
out again, sees every audited call, and must never raise.

A test may count what the garbage collector knows. Nothing is kept that it counts but a reference
to each living socket.
"""

from __future__ import annotations

import _socket
from collections.abc import Callable
import functools
import posix
import posixpath
import sys
import types
from typing import Any
import weakref

from pytest_eventlet_debug.alive.stacks import is_tool
from pytest_eventlet_debug.alive.stacks import outwards
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY
from pytest_eventlet_debug.system.code_places import of_eventlet
from pytest_eventlet_debug.system.code_places import outside_of
from pytest_eventlet_debug.system.code_places import shown_path
from pytest_eventlet_debug.system.handler_errors import put_off

#: Files that are remembered.
_MOST = 4096

#: Between the kernel and the code that asked for a descriptor.
_LIBRARY = (
    *("asyncio/", "socket.py", "ssl.py", "pathlib.py", "tempfile.py", "codecs.py"),
    "subprocess.py",
)

_getframe = sys._getframe
_normal = posixpath.normpath
_fileno = _socket.socket.fileno
_hooks: list[Callable[[str, tuple[Any, ...]], None]] = []


class _Socket(weakref.ref[Any]):
    """A socket object, and the place where it was made."""

    __slots__ = ("place",)
    place: str


class Origins:
    """Notes where files and sockets are opened, from :meth:`begin` to :meth:`stop`."""

    def __init__(self) -> None:
        self._on = False
        self._files: dict[str, str | None] = {}
        self._sockets: dict[int, _Socket] = {}
        self._skipped = (OURS, *(STANDARD_LIBRARY + name for name in _LIBRARY), "<frozen ")

    def begin(self) -> None:
        """Note from now on; what the last test opened is forgotten where it is gone."""
        eventlet = of_eventlet()
        if eventlet and eventlet not in self._skipped:
            self._skipped = (*self._skipped, eventlet)
        self._files.clear()
        if not self._on:
            self._on = True
            if not _hooks:
                sys.addaudithook(_audit)
            _hooks.append(self._note)

    def stop(self) -> None:
        """Note no more."""
        if self._on:
            self._on = False
            _hooks.remove(self._note)

    def of(self, fd: int, target: str) -> str:
        """Say where a descriptor was opened, for the end of a phrase; nothing if that is unknown.

        :param target: what the kernel calls it.
        """
        found = self._files.get(target.removesuffix(" (deleted)"))
        for known in list(self._sockets.values()):
            socket = known()
            if socket is not None and _fileno(socket) == fd:
                found = known.place
        if found is None:
            return ""
        function, _, place = found.partition(" ")
        return f", opened in {function} ({shown_path(place)})"

    def _note(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path = arguments[0]
            if type(path) is str and (place := self._place()) is not None:
                if len(self._files) == _MOST:
                    self._files.clear()
                path = _normal(path if path[:1] == "/" else f"{posix.getcwd()}/{path}")
                # Of two places it is not known which one is left.
                known = self._files.get(path, place)
                self._files[path] = place if known == place else None
        elif event == "socket.__new__" and (place := self._place()) is not None:
            # By its id: to hash or compare it may run code of the test's.
            number = id(arguments[0])
            forget = functools.partial(self._sockets.pop, number)
            self._sockets[number] = made = _Socket(arguments[0], forget)
            made.place = place

    def _place(self) -> str | None:
        """Return function and line of the innermost frame of neither eventlet nor a library.

        Another module of the standard library, such as ``logging.handlers``, is named only where no
        code outside of it has called it.
        """
        frame = outside_of(self._skipped, _getframe(3))
        if frame is None:
            return None
        frame = self._caller_of_library(frame)
        return f"{frame.f_code.co_name} {frame.f_code.co_filename}:{frame.f_lineno}"

    def _caller_of_library(self, innermost: types.FrameType) -> types.FrameType:
        for frame in outwards(innermost):
            name = frame.f_code.co_filename
            if not name.startswith(STANDARD_LIBRARY) or "/site-packages/" in name:
                return innermost if name.startswith(self._skipped) or is_tool(name) else frame
        return innermost


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "socket.__new__"):
        for hook in _hooks:
            try:
                hook(event, arguments)
            except Exception as error:
                # Or an object without weak references; the descriptor stays of unknown origin.
                put_off(error)
