"""The subcommands ``report``, ``open`` and ``list``.

Their parts are imported where they run: other subcommands read recordings without pytest.
"""

from __future__ import annotations

import argparse
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_eventlet_debug.artifact_names import DEFAULT_ARTIFACTS
from pytest_eventlet_debug.artifact_names import PAGE_FILE
from pytest_eventlet_debug.artifact_names import RUN_FILE
from pytest_eventlet_debug.artifact_records import read_run as read_record
from pytest_eventlet_debug.outcomes.outcomes import OUTCOMES
from pytest_eventlet_debug.refusal import refuse

if TYPE_CHECKING:
    from pytest_eventlet_debug.report.data import Run

#: What ``open`` can show.
VIEWS = ("strace", "packets", "profile", "tasks", "timeline", "report")


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="write an HTML report on one or more runs",
        description="Write index.html, which shows all tests by hub and what was recorded of "
        "each. Several runs, such as one CI job per hub, are joined into one matrix; runs of the "
        "same tests under the same hub become the history of each test.",
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a run's directory, such as eventlet-debug, or a file written by --eventlet-save",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="where to write the page; default: the directory of the run, if there is only one",
    )
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    from pytest_eventlet_debug.report.data import RunDataError
    from pytest_eventlet_debug.report.data import read_any
    from pytest_eventlet_debug.report.page import ReportError
    from pytest_eventlet_debug.report.page import write_report

    folder = options.output
    if folder is None and len(options.runs) > 1:
        return refuse("a report on several runs requires -o DIR")
    if folder is None and options.runs[0].is_file():
        return refuse("a report on a saved run requires -o DIR")
    paths = {path.resolve(): path for path in options.runs}  # patterns may name one twice
    try:
        runs = [read_any(path) for path in paths.values()]
        page = write_report(runs, folder or options.runs[0])
    except (RunDataError, ReportError) as error:
        return refuse(str(error))
    except OSError as error:
        return refuse(f"cannot write the report ({error}); choose another directory with -o")
    print(page)
    return 0


def add_open(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "open",
        help="open the recordings of a test",
        description="Open the report at a test, or open one of its recordings in the best "
        "program installed: a pager, Wireshark, KCachegrind. If the test has several recordings, "
        "such as one per hub, the last one that failed is opened, or else the last one.",
    )
    parser.add_argument("test", metavar="TEST", help="part of a test's node id")
    parser.add_argument(
        "what",
        nargs="?",
        choices=VIEWS,
        default="report",
        metavar="WHAT",
        help=f"{', '.join(VIEWS)}; default: report",
    )
    parser.add_argument(
        "--artifacts",
        type=Path,
        default=Path(DEFAULT_ARTIFACTS),
        metavar="DIR",
        help=f"the run's directory; default: {DEFAULT_ARTIFACTS}",
    )
    parser.set_defaults(run=_open)


def _open(options: argparse.Namespace) -> int:
    from pytest_eventlet_debug.report import opening
    from pytest_eventlet_debug.report.data import RunDataError
    from pytest_eventlet_debug.report.data import read_run

    try:
        run = read_run(options.artifacts)
        test = opening.find(run, options.test)
        if options.what == "report":
            opening.browse(opening.address(run, test))
            return 0
        argv = opening.command(run.directory / test.directory, options.what)
        return opening.show(argv, paged=options.what == "timeline" or argv[0] == "tshark")
    except (RunDataError, opening.OpenError) as error:
        return refuse(str(error))


def add_list(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "list",
        help="list recorded runs",
        description="Show for each run below a directory when it ran, under which hubs, how its "
        "tests ended, and where its report is, newest first.",
    )
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path(),
        metavar="DIR",
        help="where to look, up to two levels deep; default: the current directory",
    )
    parser.set_defaults(run=_list)


def _list(options: argparse.Namespace) -> int:
    from pytest_eventlet_debug.report.data import read_run

    found = [
        read_run(path.parent)
        for pattern in (RUN_FILE, f"*/{RUN_FILE}", f"*/*/{RUN_FILE}")
        for path in options.directory.glob(pattern)
        if read_record(path.parent) is not None
    ]
    if not found:
        return refuse(f"found no run in {options.directory} or just below it")
    for run in sorted(found, key=lambda run: -run.facts.started_ns):
        print(_described(run))
    return 0


def _described(run: Run) -> str:
    started = datetime.fromtimestamp(run.facts.started_ns / 1e9).strftime("%Y-%m-%d %H:%M:%S")
    counts = Counter(cell.result.outcome for row in run.cells.values() for cell in row.values())
    outcomes = ", ".join(f"{counts[name]} {name}" for name in OUTCOMES if name in counts)
    page = run.directory / PAGE_FILE
    where = page if page.exists() else run.directory
    return f"{started}  {', '.join(run.hubs)}  {outcomes or 'no tests'}  {where}"
