"""The command ``pytest-eventlet-debug``: what can be done with files, after the runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
import os
from pathlib import Path
import sys

from pytest_eventlet_debug import __version__
from pytest_eventlet_debug.analysis import comparison
from pytest_eventlet_debug.analysis import saved_run
from pytest_eventlet_debug.analysis.saved_run import SavedRunError
from pytest_eventlet_debug.report import verdict

USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; return its exit status.

    :param arguments: the command line, ``None`` for this process's.
    """
    parser = argparse.ArgumentParser(prog="pytest-eventlet-debug", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_compare(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:  # as with "| head"
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare two runs saved with --eventlet-save",
        description="Say what got worse from one saved run to another, and which changed "
        "distribution is the likely cause. Exit status: 0 if nothing got worse, 1 if something "
        "did, 2 if the files cannot be compared.",
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="the run before")
    parser.add_argument("new", type=Path, metavar="NEW", help="the run to judge")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> int:
    try:
        old, new = saved_run.read(options.old), saved_run.read(options.new)
        comparison.check_same_suite(old, options.old, new.hubs)
        if not new.uncollected:
            tests = {each.test for each in new.tests}
            comparison.check_common_tests(old, options.old, tests)
    except SavedRunError as error:
        print(f"pytest-eventlet-debug: {error}", file=sys.stderr)
        return USAGE_ERROR
    found = comparison.compare(old, new)
    if options.json:
        print(json.dumps(verdict.as_json(found), indent=1))
    else:
        print("\n".join(verdict.format_verdict(found, old, options.old)))
    return int(found.worse)


if __name__ == "__main__":
    sys.exit(main())
