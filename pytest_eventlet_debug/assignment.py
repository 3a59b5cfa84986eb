"""What a process that runs tests is told at its birth, by the process that starts it.

The process that the user started is the *root*, and has no :class:`Assignment`. It runs the
tests itself, or is the *controller* of *children*, one for each hub. A child's assignment comes
from its controller; that of a *worker* of pytest-xdist's from the child or root that started
it. A worker's travels in an environment variable. A child's holds the command line, which may be
longer than the kernel lets a variable be: it is in a file in memory, whose descriptor a variable
names. Each variable is taken out before any code of the user's runs.
"""

from __future__ import annotations

import json
from typing import Literal
from typing import TypeVar

import msgspec

#: Has the descriptor of a child's :class:`Launch`. ``boot.py`` reads it before it can import this
#: module.
CHILD_VARIABLE = "PYTEST_EVENTLET_DEBUG_CHILD"

# Taken now: a worker is started after code of the user's, which may have patched it.
_dumps, _loads = json.dumps, json.loads

_T = TypeVar("_T")


#: Whether a process records its tests: as the options say, or whatever they say.
Tracing = Literal["as asked", "on", "off"]


#: What a child that starts ahead of its turn leaves until then, with all that follows.
Waits = Literal["for plugins", "for conftests"]

#: Of the length of a :class:`Launch` on the line to a child that waits.
LENGTH_BYTES = 4


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a process that runs tests is told by the one that starts it.

    :param hub: the hub to run under, or ``None`` for whatever is set.
    :param hubs: the names of all hubs of the run.
    :param run: names the run, so that its artifacts are not taken for an older one's.
    :param remaining: a JSON file with the node ids to run, in order, or ``None`` for all that
        are found.
    :param tracing: whether the tests are recorded.
    :param is_rerun: whether its tests have run before.
    :param is_asked: whether a controller asks it what it does when no more is heard of it.
    """

    hub: str | None
    hubs: tuple[str, ...]
    run: str
    remaining: str | None = None
    tracing: Tracing = "as asked"
    is_rerun: bool = False
    is_asked: bool = False


class ChildAssignment(Assignment, frozen=True, kw_only=True):
    """What a child is told besides, for its run is a part of its controller's.

    :param maxfail: how many more failures end the run, 0 for no end.
    :param stepwise_skip: whether ``--stepwise-skip`` still has its failure to ignore.
    :param interactive: whether the terminal is the child's.
    :param borrows_terminal: whether there is one to borrow while a debugger is open.
    :param own_pids: whether it is born with process ids and a network of its own.
    :param randomly_seed: the seed that pytest-randomly has told the user.
    :param descriptor: the socket that leads to the controller, once there is one.
    :param lost: the file in which it says how a test took that socket from it.
    """

    maxfail: int = 0
    stepwise_skip: bool = False
    interactive: bool = False
    borrows_terminal: bool = False
    own_pids: bool = False
    randomly_seed: int | None = None
    descriptor: int = -1
    lost: str = ""


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """What calls ``pytest.main()`` in a process, as ``python`` was told to run it.

    :param module: its name after ``-m``, or ``None``.
    :param script: its path: a file, a directory or an archive; or ``None``.
    :param code: its text after ``-c``, or ``None``.
    :param arguments: what stood after it.
    :param directory: where it was started.
    """

    module: str | None = None
    script: str | None = None
    code: str | None = None
    arguments: list[str]
    directory: str


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """How a child becomes the pytest that its controller is, for one hub.

    :param controller: the controller's process id.
    :param arguments: pytest's command line.
    :param directory: the working directory.
    :param program: what called pytest in the controller, and does so in the child; ``None``
        for pytest itself.
    :param waits: what the child waits for before it loads or imports it: to be told all this once
        more, when its turn has come. ``None`` if it does not wait.
    :param imports: the modules that it imports until then.
    """

    assignment: ChildAssignment
    controller: int
    sys_path: list[str]
    argv: list[str]
    arguments: list[str]
    directory: str
    program: Program | None
    waits: Waits | None = None
    imports: tuple[str, ...] = ()


def encode(told: Assignment | Launch) -> str:
    """Return the text that carries it."""
    # Not msgspec.json: a path that is no UTF-8 has lone surrogates, which it refuses.
    return _dumps(msgspec.to_builtins(told))


def decode(text: str, kind: type[_T]) -> _T:
    """Return what :func:`encode` was given.

    :raises msgspec.ValidationError: the text is not of this version of the plugin.
    """
    return msgspec.convert(_loads(text), kind)
