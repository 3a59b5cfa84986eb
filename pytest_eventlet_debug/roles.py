"""Who a process is, and who runs its tests.

The process that the user started is the *root*. It runs the tests itself, or is the
*controller* of *children*, one for each hub. Tests of a child, or of the root, may be run by
*workers* of pytest-xdist's. Children and workers have an
:class:`~pytest_eventlet_debug.assignment.Assignment`, the root has none.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_eventlet_debug.assignment import Assignment
    from pytest_eventlet_debug.assignment import ChildAssignment

#: Carries an :class:`Assignment` to pytest-xdist's workers.
WORKER_VARIABLE = "PYTEST_EVENTLET_DEBUG_WORKER"

_own: ChildAssignment | None = None
_turn: Callable[[], ChildAssignment] | None = None
_runs_begun = 0
_is_over = False


def take_up(assignment: ChildAssignment, turn: Callable[[], ChildAssignment] | None = None) -> None:
    """Make this process a child, for as long as it lives.

    :param turn: waits until the child's run may begin, and returns what has become of the
        assignment; ``None`` if it may begin at once.
    """
    global _own, _turn
    _own, _turn = assignment, turn


def begin_run() -> None:
    """Count a run of pytest in this process; wait if its turn has yet to come.

    :raises SystemExit: this process is a child, and its run is over. What its program does
        after that is for the controller to do.
    """
    global _own, _turn, _runs_begun
    if _turn is not None:
        _own, _turn = _turn(), None
    if _own is not None and _is_over:
        sys.exit()
    _runs_begun += 1


def runs_begun() -> int:
    """Return how many runs of pytest this process has begun with the plugin switched on."""
    return _runs_begun


def end_run() -> None:
    """Note that this process has done its part, if it is a child."""
    global _is_over
    _is_over = True


def own_child_assignment() -> ChildAssignment | None:
    """Return what this process was told if it is a child."""
    return _own


def own_assignment() -> Assignment | None:
    """Return what this process was told, or ``None`` in the one that the user started.

    A worker's is taken out of its environment: what its tests start are not workers.
    """
    if _own is not None:
        return _own
    text = os.environ.pop(WORKER_VARIABLE, None)
    if text is None:
        return None
    from pytest_eventlet_debug import assignment  # costs start-up time

    return assignment.decode(text, assignment.Assignment)


def distributes(options: argparse.Namespace, *, is_worker: bool = False) -> bool:
    """Say whether pytest-xdist has workers run the tests of this process.

    pytest-xdist makes up its mind in ``pytest_cmdline_main``, after the user's first code has
    run. The answer is the same before and after that; see ``pytest_cmdline_main`` and
    ``_is_distribution_mode`` of ``xdist.plugin`` (3.8). It can only be wrong before, and only
    where a plugin or the environment answers ``-n auto`` with no worker, or a plugin changes
    the options.

    :param options: those of the command line.
    :param is_worker: whether this is a worker, which has the options of who started it.
    """
    if is_worker or getattr(options, "collectonly", False):
        return False
    processes = getattr(options, "numprocesses", None)
    if processes in ("auto", "logical"):
        return not getattr(options, "usepdb", False)
    if processes is not None:
        return bool(processes)
    modes = getattr(options, "distload", False) or getattr(options, "dist", "no") != "no"
    return bool(modes and getattr(options, "tx", None))
