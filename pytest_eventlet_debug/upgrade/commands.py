"""The subcommands about saved runs: ``compare``, ``merge`` and ``culprit``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pytest_eventlet_debug import phrasing
from pytest_eventlet_debug.refusal import refuse
from pytest_eventlet_debug.system.scratch import ScratchDirectory
from pytest_eventlet_debug.upgrade import comparison
from pytest_eventlet_debug.upgrade import merging
from pytest_eventlet_debug.upgrade import saved_run
from pytest_eventlet_debug.upgrade import verdict
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError


def add_compare(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "compare",
        help="compare two runs saved with --eventlet-save",
        description="Report what got worse between two saved runs, and which changed "
        "distribution is the likely cause. Exit status: 0 if nothing got worse, 1 if something "
        "did, 2 if the files cannot be compared.",
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="the earlier run")
    parser.add_argument("new", type=Path, metavar="NEW", help="the later run")
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


def add_merge(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "merge",
        help="merge saved runs of one suite",
        description="Join runs saved with --eventlet-save, such as one CI job per hub or per part "
        "of the tests. A test that ran in several of them keeps all its attempts, and the outcome "
        "of the last one. Exit status: 0, or 2 if the runs cannot be merged.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a saved run")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="where to save the result"
    )
    parser.set_defaults(run=_merge)


def _merge(options: argparse.Namespace) -> int:
    try:
        whole = merging.merge([(path, saved_run.read(path)) for path in options.runs])
        saved_run.write(options.output, whole)
    except SavedRunError as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"cannot save the run to {options.output} ({error.strerror or error})")
    print(f"{phrasing.tests(len(whole.tests))} on {', '.join(whole.hubs)}: {options.output}")
    return 0


def add_culprit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "culprit",
        help="find the upgrade that makes tests fail",
        description="Find the smallest set of distributions, among those that changed between two "
        "saved runs, that makes tests fail that passed before. The tests are rerun here with some "
        "distributions at their old version and the others at their new one; what is installed "
        "stays as it is. Exit status: 0 if the set was found, 1 if not, 2 if the files cannot be "
        "compared.",
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="the run before the upgrades")
    parser.add_argument("new", type=Path, metavar="NEW", help="the run after the upgrades")
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
        with ScratchDirectory() as directory:
            overlay = culprit.Overlay(directory, old, new, options.arguments)
            found = culprit.search(overlay.names, overlay.tests, overlay.run)
    except culprit.CulpritError as error:
        return refuse(str(error), status=1)
    print("\n".join(culprit.describe(found, changed)))
    return 0
