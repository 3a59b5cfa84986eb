"""The subcommands ``report``, ``open`` and ``list``."""

from __future__ import annotations

import argparse
from pathlib import Path
import sys

from pytest_eventlet_debug.options import DEFAULT_ARTIFACTS
from pytest_eventlet_debug.report.data import RunDataError
from pytest_eventlet_debug.report.data import read_run
from pytest_eventlet_debug.report.page import ReportError
from pytest_eventlet_debug.report.page import write_report

USAGE_ERROR = 2


def add_report(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "report",
        help="write an HTML report on one run or several",
        description="Write index.html with all tests by hubs and what was recorded of them. "
        "Several runs, such as those of a CI job for each hub, become one matrix.",
    )
    parser.add_argument(
        "directories",
        type=Path,
        nargs="+",
        metavar="DIR",
        help=f"a run's directory, such as {DEFAULT_ARTIFACTS}",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        help="where to write the page; default: the run's directory, if there is one run",
    )
    parser.set_defaults(run=_report)


def _report(options: argparse.Namespace) -> int:
    folder = options.output
    if folder is None and len(options.directories) > 1:
        return _refuse("several runs need a folder to write the report to; name it with -o")
    try:
        runs = [read_run(directory) for directory in options.directories]
        print(write_report(runs, folder or options.directories[0]))
    except (RunDataError, ReportError) as error:
        return _refuse(str(error))
    except OSError as error:
        return _refuse(f"cannot write the report ({error}); name another folder with -o")
    return 0


def _refuse(why: str) -> int:
    print(f"pytest-eventlet-debug: {why}", file=sys.stderr)
    return USAGE_ERROR
