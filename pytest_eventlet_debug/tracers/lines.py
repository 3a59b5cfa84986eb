"""Mark a trace with the lines of Python that make its system calls, by an object written in C.

Calls are heard of through ``sys.monitoring``, under a tool id that nobody else takes, or up to
Python 3.11 through the thread's place for a profiler, which this shares with the plugin's own.
Where neither is free, nothing was compiled when the plugin was installed, or this Python would be
aborted, there are no marks, and the trace is as complete as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import os
from pathlib import Path
import site
import sys
from types import BuiltinFunctionType
from types import CodeType
from types import FunctionType
from types import MethodDescriptorType
from types import WrapperDescriptorType
from typing import TYPE_CHECKING
from typing import Any

from pytest_eventlet_debug.profiling import debug_build
from pytest_eventlet_debug.recordings import kernel_calls
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.system.code_places import OURS
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY

if TYPE_CHECKING:
    from pytest_eventlet_debug.profiling._native import Lines
    from pytest_eventlet_debug.profiling._native import Marks


_WRITTEN_IN_C = (BuiltinFunctionType, MethodDescriptorType, WrapperDescriptorType, type)

#: What runs tests, as packages.
_RUNNERS = ("_pytest", "pluggy")

#: Their objects may stand on a file of the system, on a socket, or on bytes in memory.
_FILE_OBJECTS = ("_io.BufferedReader", "_io.BufferedWriter", "_io.TextIOWrapper")

#: Whether calls are heard of by a profiler, which is told of those of this thread alone.
_by_profiler = sys.version_info < (3, 12)


class LineMarks:
    """Marks while it is active, in the thread that makes it so.

    :param root: the directory of the user's own code; its files are shown relative to it.
    """

    def __init__(self, root: Path) -> None:
        self._lines = _make(root)
        self._added: set[str] = set()
        self._unsubscribe: Callable[[], None] = _nothing
        self._memory: Marks | None = None
        self._greenlet = 0

    def begin(self, memory: Marks | None) -> None:
        """Mark from now on, where that is possible.

        :param memory: where marks are made; ``None`` where each is a system call.
        """
        if self._lines is None:
            return
        self._memory = memory
        prepare()
        for name in _functions.keys() - self._added:
            by_file = name.rpartition(".")[0] in _FILE_OBJECTS
            self._lines.add(_functions[name], name, by_file, name in kernel_calls.RESOLVERS)
            self._added.add(name)
            if name == _SOCKET and _socket_code is not None:
                self._lines.add_sockets(_socket_code, name)
        if not _by_profiler and self._lines.begin(memory) and self._unsubscribe is _nothing:
            self._unsubscribe = _subscribe(self._lines)

    @property
    def waits(self) -> bool:
        """Say whether calls are marked between :meth:`enter` and :meth:`leave` alone.

        Up to Python 3.11 whatever a thread runs takes twice as long while it has a profiler.
        """
        return self._lines is not None and _by_profiler

    def enter(self) -> None:
        """Mark the calls of the code of a phase, which begins now, whatever was marked before."""
        if self._lines is not None:
            self._lines.begin(self._memory)
            self._lines.runs(self._greenlet)

    def leave(self) -> None:
        """Take note that the code of a phase has ended."""
        if self._lines is not None and _by_profiler:
            self._lines.end()

    def runs(self, greenlet: int) -> None:
        """Take note that the greenlet of that number runs now, and go on marking in it."""
        self._greenlet = greenlet
        if self._lines is not None:
            self._lines.runs(greenlet)

    def rest(self) -> None:
        """Mark no more until the next test begins.

        Still subscribed: with each change of that, Python puts other instructions into all code
        that runs, which takes half a millisecond of a test that does nothing.
        """
        if self._lines is not None:
            self._lines.end()

    def end(self) -> None:
        """Mark no more."""
        self.rest()
        self._unsubscribe()
        self._unsubscribe = _nothing


#: By their full names; as they were before a test or ``monkey_patch()`` put others there.
_functions: dict[str, Any] = {}

#: What makes a socket, and the method in Python that calls it.
_SOCKET = "_socket.socket.__init__"
_socket_code: CodeType | None = None


def prepare() -> None:
    """Find the functions that enter the kernel, in those modules that are loaded by now."""
    global _socket_code
    if _socket_code is None and "socket" in sys.modules:
        init = _find(sys.modules["socket"], ["socket", "__init__"])
        if isinstance(init, FunctionType) and init.__module__ == "socket":
            _socket_code = init.__code__
    for name in kernel_calls.CALLS.keys() - _functions.keys():
        module, *path = name.split(".")
        if module in sys.modules:
            function = _find(sys.modules[module], path)
            if isinstance(function, _WRITTEN_IN_C):
                _functions[name] = function


def _make(root: Path) -> Lines | None:
    if debug_build.aborts():
        return None
    try:
        from pytest_eventlet_debug.profiling._native import Lines
    except ImportError:
        return None
    prefix = marks.LINE_PREFIX.encode()
    names = frozenset(name.rpartition(".")[2] for name in kernel_calls.CALLS)
    return Lines(prefix, tuple(_places(root)), names, kernel_calls.IMPORT)


def _places(root: Path) -> Iterator[tuple[str, str, bool | str | None]]:
    """Yield where code is, as what it is shown, and whose it is.

    True stands for the user's own code, and a name for what runs that. The first prefix that
    fits a file's name counts.
    """
    known: dict[str, tuple[str, bool | str | None]] = {os.path.join(str(root), ""): ("", True)}
    known[STANDARD_LIBRARY] = ("", False)
    # Not from sysconfig, which reads how Python was built.
    for packages in site.getsitepackages():
        scripts = os.path.join(packages, "../../..", "bin")
        for folder in (packages, os.path.normpath(scripts)):
            known[os.path.join(folder, "")] = ("", False)
    for name in _RUNNERS:
        folder = os.path.dirname(getattr(sys.modules.get(name), "__file__", None) or "")
        known[os.path.join(folder, "")] = (f"{name}/", marks.RUNNER)
    known.pop("", None)
    # In eventlet's own suite, too, what a test does is more telling than where that waits.
    known[os.path.join(str(root), "eventlet", "")] = ("eventlet/", False)
    known[OURS] = ("", None)  # its own calls are never marked
    for prefix in sorted(known, key=len, reverse=True):
        yield prefix, *known[prefix]


def _find(module: Any, path: list[str]) -> Any:
    found = module
    for part in path:
        found = getattr(found, part, None)
        if part == "poll" and len(path) > 1 and isinstance(found, BuiltinFunctionType):
            found = type(found())  # which has no name of its own
    return found


def _nothing() -> None:
    pass


if sys.version_info >= (3, 12):
    _monitoring = sys.monitoring

    #: As for the profiler: see profiling/native.py, which tries them in another order.
    _TOOL_IDS = (4, 5, 3)

    def _subscribe(lines: Lines) -> Callable[[], None]:
        tool = next((each for each in _TOOL_IDS if _monitoring.get_tool(each) is None), None)
        if tool is None:
            return _nothing
        _monitoring.use_tool_id(tool, "pytest-eventlet-debug lines")
        event = _monitoring.events.CALL
        _monitoring.register_callback(tool, event, lines.called)
        _monitoring.set_events(tool, event)

        def unsubscribe() -> None:
            _monitoring.set_events(tool, 0)
            _monitoring.register_callback(tool, event, None)
            _monitoring.free_tool_id(tool)

        return unsubscribe

else:

    def _subscribe(lines: Lines) -> Callable[[], None]:
        """Do nothing: ``begin()`` and ``end()`` see to the thread's profiler."""
        return _nothing
