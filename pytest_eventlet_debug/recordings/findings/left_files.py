"""Find the file that a test made under one hub, and that is in its way under the next one."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
import posixpath
from typing import NamedTuple

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Syscall

#: How an error says that something is there already.
_SAYS = {"EEXIST": "[Errno 17]", "EADDRINUSE": "[Errno 98]"}

#: What makes its last path, and fails if that is there.
_MAKES = names("mkdir mkdirat mknod mknodat symlink symlinkat link linkat")
_OPENS = names("open openat")
#: What takes its first path away.
_REMOVES = names("unlink unlinkat rmdir rename renameat renameat2")

_PATH = lazily(r'(?:(?:AT_FDCWD|\d+)<([^<>]*)>, )?"((?:[^"\\]|\\.)*)"')
_SOCKET = lazily(r'sun_path="((?:[^"\\]|\\.)*)"')


class Left(NamedTuple):
    """A path that was made and not removed, and the call that failed for it later."""

    path: str
    made: Syscall
    failed: Syscall


def read(directory: Path) -> list[Syscall]:
    """Return the calls of a test's trace that make paths and remove them.

    :raises StraceLogError: it is no trace.
    """
    with open_log(directory / STRACE_FILE) as lines:
        return list(_calls(parse(lines)))


def left(earlier: Iterable[Syscall], later: Iterable[Syscall], error: str) -> Left | None:
    """Return the path that is in the way of one run and that another had made before it.

    :param error: what failed the later one. Much that is there already is meant to be.
    """
    there: dict[str, Syscall] = {}
    for call in earlier:
        path = _path(call)
        if path is None or call.errno is not None:
            continue
        if call.name in _REMOVES:
            there.pop(path, None)
        else:
            there[path] = call
    for call in later:
        path = _path(call) if call.errno in _SAYS and _SAYS[call.errno] in error else None
        made = there.get(path) if path is not None else None
        if path is None or made is None or made.start_ns >= call.start_ns:
            continue
        # An error about an address does not name it.
        if call.errno == "EADDRINUSE" or f"{_given(call)}'" in error:
            return Left(path, made, call)
    return None


def _calls(events: Iterable[Event]) -> Iterator[Syscall]:
    for event in events:
        if type(event) is not Syscall:
            continue
        name = event.name
        if (
            name in _MAKES
            or name in _REMOVES
            or (name in _OPENS and "O_CREAT" in event.args and "O_EXCL" in event.args)
            or (name == "bind" and "sun_path=" in event.args)
        ):
            yield event


def _path(call: Syscall) -> str | None:
    """Return what a call makes or removes; ``None`` if that is not known in full."""
    if call.name == "bind":
        match = _SOCKET.search(call.args)
        path = match[1] if match is not None else ""
        return path if path.startswith("/") else None
    path = posixpath.join(*_words(call))
    return posixpath.normpath(path) if path.startswith("/") else None


def _given(call: Syscall) -> str:
    """Return a path as it was given, absolute or not."""
    return _words(call)[1]


def _words(call: Syscall) -> tuple[str, str]:
    """Return what a call makes or removes, and the directory that this is relative to."""
    found: list[tuple[str, str]] = _PATH.findall(call.args) or [("", "")]
    return found[-1] if call.name in _MAKES else found[0]


def is_about(error: str) -> bool:
    """Say whether an error says that something is there already."""
    return any(words in error for words in _SAYS.values())
