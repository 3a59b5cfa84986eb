"""The subcommands about saved runs: ``compare`` and ``culprit``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
import tempfile

from pytest_eventlet_debug.refusal import refuse
from pytest_eventlet_debug.upgrade import comparison
from pytest_eventlet_debug.upgrade import saved_run
from pytest_eventlet_debug.upgrade import verdict
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError


def add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
            common = {each.test for each in new.tests}
            comparison.check_common_tests(old, options.old, common)
    except SavedRunError as error:
        return refuse(str(error))
    found = comparison.compare(old, new)
    if options.json:
        print(json.dumps(verdict.as_json(found), indent=1))
    else:
        print("\n".join(verdict.format_verdict(found, old, options.old)))
    return int(found.worse)


def add_culprit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "culprit",
        help="find the upgrade that makes tests fail",
        description="Of the distributions that changed between two saved runs, find the smallest "
        "set that makes the tests fail which passed before. The tests run again here, with some "
        "distributions as they were and others as they are; nothing installed changes. "
        "Exit status: 0 if it was found, 1 if not, 2 if the files cannot be compared.",
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="the run before the upgrades")
    parser.add_argument("new", type=Path, metavar="NEW", help="the run after them")
    parser.add_argument(
        "arguments", nargs="*", metavar="ARGUMENT", help="arguments for pytest, after --"
    )
    parser.set_defaults(run=_culprit)


def _culprit(options: argparse.Namespace) -> int:
    from pytest_eventlet_debug.upgrade import culprit  # needs pytest, which comparing does not

    try:
        old, new = saved_run.read(options.old), saved_run.read(options.new)
        comparison.check_same_suite(old, options.old, new.hubs)
    except SavedRunError as error:
        return refuse(str(error))
    try:
        changed = culprit.suspects(old, new)
        with tempfile.TemporaryDirectory(prefix="pytest-eventlet-debug-") as directory:
            overlay = culprit.Overlay(Path(directory), old, new, options.arguments)
            found = culprit.search(overlay.names, overlay.tests, overlay.run)
    except culprit.CulpritError as error:
        return refuse(str(error), status=1)
    print("\n".join(culprit.describe(found, changed)))
    return 0
