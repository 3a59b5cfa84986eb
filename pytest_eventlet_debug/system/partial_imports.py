"""Imports in a process of our own that leave out what the imported module merely might need."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Mapping
import contextlib
import sys
import types


@contextlib.contextmanager
def leaving_out(stand_ins: Mapping[str, object]) -> Iterator[None]:
    """Have what is imported meanwhile get other objects in the place of some modules.

    It keeps them. Modules that are there already stay, and all can be imported afterwards.

    :param stand_ins: by the names of the modules, what their importers ask of them at once.
    """
    absent = {name: thing for name, thing in stand_ins.items() if name not in sys.modules}
    sys.modules.update(absent)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


#: In the place of a module of which nothing is asked while it is imported.
NOTHING = types.SimpleNamespace()
