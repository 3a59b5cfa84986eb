"""Why something is missing: another greenthread has it, or ``monkey_patch()`` has removed it."""

from __future__ import annotations

from _thread import _local
from contextvars import ContextVar
from contextvars import copy_context
import sys
import types
from typing import Any

from pytest_eventlet_debug.system import switches


def of_another(error: BaseException, where: str, in_coroutine: bool) -> str | None:
    """Say of a value that is set per greenthread where it is set, as the test goes on.

    :param where: the line that missed it, or who did.
    :param in_coroutine: whether the hub ran that line in a coroutine.
    """
    if isinstance(error, AttributeError):
        return _of_local(error, where, in_coroutine)
    if type(error) is LookupError and error.args and type(error.args[0]) is ContextVar:
        variable = error.args[0]
        if variable in copy_context():
            return (
                f"the ContextVar {variable.name!r} is set in the context of the test, which is not "
                f"that of {where}: greenthreads and threads begin with an empty context, and the "
                "tasks that they make with a copy of theirs"
            )
    return None


def _of_local(error: AttributeError, where: str, in_coroutine: bool) -> str | None:
    thing, name = error.obj, error.name
    if type(thing) is _local or not _is_local(type(thing)):
        return None
    values = object.__getattribute__(thing, "_local__greens")
    owners = [greenlet for greenlet, names in list(values.items()) if name in names]
    if not owners:
        return None
    frame = getattr(owners[0], "gr_frame", None)
    those = f"greenthread {switches.function_at_bottom(frame)}" if frame else "another greenthread"
    if any(each is switches.current() for each in owners):
        those = "the test"
    runs = ", and all coroutines have those of the hub, which runs them" if in_coroutine else ""
    return (
        f"{name!r} of this threading.local is set in {those}, and not in the greenthread of "
        f"{where}: each has values of its own{runs}"
    )


def _is_local(kind: type) -> bool:
    """Say whether a class is what ``monkey_patch()`` makes of ``threading.local``, or of that."""
    local = getattr(sys.modules.get("eventlet.corolocal"), "local", None)
    return isinstance(local, type) and issubclass(kind, local)


def of_module(error: BaseException) -> str | None:
    """Say that ``monkey_patch()`` has removed from a module what an error says is not there."""
    if isinstance(error, AttributeError):
        module = error.obj if type(error.obj) is types.ModuleType else None
        name = error.name
    elif type(error) is ImportError:
        module = sys.modules.get(error.name or "")
        said = str(error)
        name = next((each for each in _removed(module) if f" name {each!r} " in said), None)
    else:
        return None
    if module is None or name not in _removed(module) or hasattr(module, str(name)):
        return None
    return (
        f"monkey_patch() has removed {name} from {module.__name__}, as it would hold the hub; "
        f'eventlet.patcher.original("{module.__name__}") has it'
    )


def _removed(module: Any) -> tuple[str, ...]:
    """Return what eventlet removes from a module of the standard library as it patches it."""
    name = getattr(module, "__name__", None)
    green = sys.modules.get(f"eventlet.green.{name}")
    deleted = getattr(green, "__deleted__", None)
    return tuple(deleted) if isinstance(deleted, list) else ()
