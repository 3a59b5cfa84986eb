"""Where code lies on this machine: the plugin's, the standard library's, eventlet's.

Each place is a directory with a separator at its end, for the file names of code objects to
start with. What counts as a library's code is a rule of each reader: a traceback may come from
another machine and goes by the looks of its paths, and to say what a greenthread waits in, less
is left out than to find the user's own line.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import os
import posix
import sys
import types
from typing import Any
from typing import Final

OURS: Final = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
STANDARD_LIBRARY: Final = os.path.dirname(os.__file__) + os.sep

#: Where asyncio lies.
ASYNCIO: Final = f"{STANDARD_LIBRARY}asyncio{os.sep}"

#: Part of the file name of each of eventlet's hubs, wherever eventlet lies.
HUBS: Final = os.path.join("eventlet", "hubs") + os.sep


def folder_of(path: str) -> str:
    """Return the directory of a file; by no function that a test could have patched."""
    return f"{path.rpartition('/')[0]}/"


def file_name(path: str) -> str:
    """Return what a path ends in, as :func:`os.path.basename` does."""
    return path.rpartition("/")[2]


def shown_path(path: str) -> str:
    """Return a path relative to the working directory if it is below that."""
    try:
        return path.removeprefix(f"{posix.getcwd()}/")
    except OSError:
        return path


def outside_of(
    folders: str | tuple[str, ...], frame: types.FrameType | None
) -> types.FrameType | None:
    """Return the innermost frame, from one on outwards, whose code lies in none of some folders."""
    while frame is not None and frame.f_code.co_filename.startswith(folders):
        frame = frame.f_back
    return frame


def of_eventlet() -> str:
    """Return where eventlet lies, also if a test has put a mock in its place.

    :return: ``""`` if it has not been imported.
    """
    for name in ("eventlet", "eventlet.hubs", "eventlet.greenio"):
        path = getattr(sys.modules.get(name), "__file__", None)
        if type(path) is str:
            folder = folder_of(path)
            return folder if name == "eventlet" else folder_of(folder[:-1])
    return ""


def stand_in(function: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of ours as one that stands in for another one, which it calls.

    Its code has the name of that one, too. So it is known that what that one does is not our work.
    """
    assert isinstance(function, types.FunctionType)
    code = getattr(original, "__code__", None)
    name = code.co_name if isinstance(code, types.CodeType) else original.__name__
    named = types.FunctionType(
        function.__code__.replace(co_name=name),
        *(function.__globals__, name, function.__defaults__, function.__closure__),
    )
    return functools.wraps(original)(named)
