"""Who runs the tests of a process."""

from __future__ import annotations

import argparse


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
