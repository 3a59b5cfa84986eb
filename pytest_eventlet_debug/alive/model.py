"""What the parts of a dump are made of: frames, waits, names. Plain data, no references."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping
import functools
import sys
import types
from typing import Any
from typing import NamedTuple

from pytest_eventlet_debug.phrasing import cut
from pytest_eventlet_debug.system.code_places import folder_of
from pytest_eventlet_debug.system.code_places import shown_path

#: Characters of a foreign object's repr that are kept.
MAX_REPR = 100

#: A dump shows the same files again and again; to ask for the working directory is a system call.
_shown_path = functools.lru_cache(maxsize=1000)(shown_path)


class Frame(NamedTuple):
    """One suspended or running function of a stack."""

    filename: str
    lineno: int
    function: str

    @property
    def location(self) -> str:
        """The file and the line, as they are shown."""
        return f"{_shown_path(self.filename)}:{self.lineno}"

    @property
    def where(self) -> str:
        """The location and the function, as they are shown."""
        return f"{self.location} in {self.function}"


class Waits(NamedTuple):
    """What a task or greenthread waits for."""

    #: The same for all that wait for the same kind of thing, such as ``sleep``.
    kind: str
    text: str
    #: Time left, if the wait has an end.
    seconds: float | None = None


def is_of_asyncio(frame: Frame) -> bool:
    """Say whether a frame is in a package called ``asyncio``."""
    return folder_of(frame.filename).endswith("/asyncio/")


class Frames:
    """Makes each :class:`Frame` once: thousands of tasks share a few."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], tuple[types.CodeType, Frame]] = {}

    def describe(self, frame: types.FrameType) -> Frame:
        """Return where a frame is now."""
        return self.at(frame.f_code, frame.f_lineno or 0)

    def at(self, code: types.CodeType, lineno: int) -> Frame:
        """Return the frame of a function at one of its lines."""
        # The code is kept so that its id stays its own, and not hashed, which is slow.
        key = (id(code), lineno)
        known = self._known.get(key)
        if known is None:
            known = (code, Frame(code.co_filename, lineno, function_name(code)))
            self._known[key] = known
        return known[1]


def function_name(code: types.CodeType) -> str:
    """Return the qualified name of a function, or the plain one before Python 3.11."""
    name: str = getattr(code, "co_qualname", code.co_name)
    return name


def callable_name(thing: Any) -> str:
    """Return the name of what will be called; runs no code of its own."""
    for _ in range(10):
        if type(thing) is functools.partial:
            thing = thing.func
        elif type(thing) is types.MethodType:
            owner = thing.__self__
            thing = thing.__func__
            if type(thing) is not types.FunctionType:
                return f"{type(owner).__qualname__} method"
        elif type(thing) is types.FunctionType or type(thing) is types.BuiltinFunctionType:
            return thing.__qualname__
        else:
            break
    name = type.__getattribute__(thing, "__qualname__") if _is_class(thing) else None
    return name if type(name) is str else f"{type(thing).__qualname__} object"


def _is_class(thing: object) -> bool:
    """Say whether *thing* is a class; not by ``isinstance``, which runs a proxy's code."""
    return issubclass(type(thing), type)


def short_repr(thing: object) -> str:
    """Return the repr of a foreign object, cut to :data:`MAX_REPR`, whatever it does."""
    try:
        text = repr(thing)
    except BaseException as error:
        return f"<{type(thing).__qualname__} whose repr raised {type(error).__name__}>"
    return cut(" ".join(text.split()), MAX_REPR)


def copy_of(changing: Iterable[Any]) -> list[Any]:
    """Return the members of a set that other threads may change meanwhile."""
    for _ in range(100):
        try:
            return list(changing)
        except RuntimeError:
            continue
        except BaseException:
            break
    return []


def thread_of(ident: int | None) -> Any:
    """Return the object of a thread that runs Python code, if it has one; takes no lock."""
    # Monkey patching leaves the real threads in a copy of the module.
    for module in ("__original_module_threading", "threading"):
        thread = getattr(sys.modules.get(module), "_active", {}).get(ident)
        if thread is not None:
            return thread
    return None


def thread_name(ident: int | None) -> str | None:
    """Return the name of a thread that runs Python code, if it has one."""
    name = getattr(thread_of(ident), "_name", None)
    return name if type(name) is str else None


def find_cycles(edges: Mapping[int, Iterable[int]]) -> tuple[tuple[int, ...], ...]:
    """Return one circle for each group that cannot go on without each other.

    :param edges: from the id of each to the ids of those it needs.
    """
    cycles: list[tuple[int, ...]] = []
    finished: set[int] = set()
    for start, needed in edges.items():
        if start in finished or not needed:
            continue
        path = [start]
        on_path = {start: 0}
        ahead = [iter(needed)]
        while path:
            for other in ahead[-1]:
                if other in on_path:
                    cycles.append(tuple(path[on_path[other] :]))
                elif other in edges and other not in finished:
                    on_path[other] = len(path)
                    path.append(other)
                    ahead.append(iter(edges[other]))
                    break
            else:
                node = path.pop()
                del on_path[node]
                finished.add(node)
                ahead.pop()
    return tuple(cycles)
