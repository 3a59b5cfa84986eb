"""The subcommands about recordings: ``findings``, ``timeline`` and ``diff``."""

from __future__ import annotations

import argparse
import gzip
import itertools
from pathlib import Path
import sys
from typing import get_args

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug import phrasing
from pytest_eventlet_debug.artifact_names import CAPTURE_FILES
from pytest_eventlet_debug.artifact_names import DEFAULT_ARTIFACTS
from pytest_eventlet_debug.artifact_names import RUN_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_names import TEST_FILE
from pytest_eventlet_debug.artifact_names import TRACE_FILES
from pytest_eventlet_debug.artifact_records import tests
from pytest_eventlet_debug.recordings import perfetto
from pytest_eventlet_debug.recordings import timeline_text as text
from pytest_eventlet_debug.recordings.findings import file as findings_file
from pytest_eventlet_debug.recordings.findings import parted
from pytest_eventlet_debug.recordings.findings import text as findings_text
from pytest_eventlet_debug.recordings.found import findings_of
from pytest_eventlet_debug.recordings.rows import Kind
from pytest_eventlet_debug.recordings.strace_log import StraceLogError
from pytest_eventlet_debug.recordings.strace_log import Unread
from pytest_eventlet_debug.recordings.strace_log import is_traced
from pytest_eventlet_debug.recordings.timeline import read_timeline
from pytest_eventlet_debug.refusal import USAGE_ERROR
from pytest_eventlet_debug.refusal import refuse

KINDS = get_args(Kind)


def add_findings(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "findings",
        help="print what was found in the recordings",
        description="Print what was found in the recordings of a test, or of every test of a "
        "run, with the lines that show it. Exit status: 0, or 2 if there is no recording.",
    )
    _add_directory(parser)
    parser.add_argument("--json", action="store_true", help="print the findings as a JSON list")
    parser.set_defaults(run=_findings)


def _findings(options: argparse.Namespace) -> int:
    directories = _test_directories(options.directory)
    if directories is None:
        return USAGE_ERROR
    read = {directory: findings_of(directory) for directory in directories}
    found = {directory: each for directory, each in read.items() if each is not None}
    if options.json:
        every = [finding for each in found.values() for finding in each.findings]
        print(json_files.encode(every).decode())
        return 0
    for directory, each in found.items():
        _print_findings(directory, each)
    if not found:
        print(f"no trace in {phrasing.tests(len(read))}; record with --strace")
    elif not any(each.findings for each in found.values()):
        print(f"nothing was found in the traces of {phrasing.tests(len(found))}")
    return 0


def _print_findings(directory: Path, found: findings_file.Findings) -> None:
    """Print the findings of one test, below its id and its directory."""
    by_test = itertools.groupby(found.findings, lambda finding: finding.nodeid)
    for nodeid, findings in by_test:
        print(f"{nodeid or directory.name} ({directory})")
        for finding in findings:
            for line in findings_text.with_evidence(finding):
                print(f"  {line}")
    for problem in found.problems:
        print(f"{directory}: not read whole: {problem}")


def _add_directory(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path(DEFAULT_ARTIFACTS),
        metavar="DIR",
        help=f"a test's directory, or that of a run; default: {DEFAULT_ARTIFACTS}",
    )


def _test_directories(directory: Path) -> list[Path] | None:
    """Return the directories of tests that a command is about.

    :return: ``None`` if the one that was named is no run's and no test's, or holds no test that
        can be read, which is printed.
    """
    if (directory / RUN_FILE).exists():
        found = [directory / test.directory for test in tests(directory)]
        if not found:
            refuse(f"{directory} holds the recordings of no test")
        return found or None
    if any((directory / name).exists() for name in (TEST_FILE, *TRACE_FILES, *CAPTURE_FILES)):
        return [directory]
    refuse(
        f"{directory} holds neither {RUN_FILE} nor a recording; "
        "name a run's directory, such as eventlet-debug, or one below it"
    )
    return None


def add_timeline(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    timeline = commands.add_parser(
        "timeline",
        help="print what happened in a test, in order of time",
        description="Print phases, system calls, packets, signals and threads in time order, "
        "or write all of them for https://ui.perfetto.dev. What is printed leaves out calls made "
        "by pytest, this plugin and the memory allocator, and those that read a clock; an import "
        "takes one line, and so do calls that repeat.",
    )
    _add_directory(timeline)
    timeline.add_argument(
        "--only",
        action="append",
        choices=KINDS,
        default=[],
        metavar="KIND",
        help=f"show only rows of this kind; may be repeated: {', '.join(KINDS)}",
    )
    timeline.add_argument("--raw", action="store_true", help="show every row as strace wrote it")
    timeline.add_argument(
        "--perfetto", action="store_true", help="write a trace for https://ui.perfetto.dev"
    )
    timeline.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="with --perfetto: where to write, compressed if FILE ends in .gz; default: standard "
        "output",
    )
    timeline.set_defaults(run=_timeline)


def _timeline(options: argparse.Namespace) -> int:
    found = _test_directories(options.directory)
    if found is None:
        return USAGE_ERROR
    if options.output is not None and not options.perfetto:
        return refuse("-o FILE requires --perfetto")
    if options.perfetto:
        return _write_perfetto(found, options.output)
    for number, each in enumerate(found):
        if number:
            print()
        for line in text.lines(read_timeline(each), options.only, raw=options.raw):
            print(line)
    return 0


def _write_perfetto(directories: list[Path], output: Path | None) -> int:
    """Write the timeline of the one test that is asked for."""
    if len(directories) != 1:
        return refuse(
            f"--perfetto shows one test, but there are {len(directories)} here; "
            "name the directory of one"
        )
    timeline = read_timeline(directories[0])
    if output is None:
        perfetto.write(timeline, sys.stdout)
        return 0
    open_file = gzip.open if output.suffix == ".gz" else open
    is_open = False
    try:
        with open_file(output, "wt", encoding="utf-8") as file:
            is_open = True
            perfetto.write(timeline, file)
    except OSError as error:
        if is_open and output.is_file():  # the beginning of a trace is none
            output.unlink()
        return refuse(f"cannot write {output}: {error.strerror}")
    return 0


def add_diff(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    diff = commands.add_parser(
        "diff",
        help="show where two recordings of a test diverge",
        description="Compare the traces of two recordings of a test, such as under two hubs, "
        "by what was done on each socket. Exit status: 0 if they agree, 1 if they diverge, 2 if "
        "there is nothing to compare.",
    )
    for name in ("left", "right"):
        diff.add_argument(name, type=Path, metavar="DIR", help="a test's directory")
    diff.set_defaults(run=_diff)


def _diff(options: argparse.Namespace) -> int:
    found = []
    for directory in (options.left, options.right):
        trace = directory / STRACE_FILE
        if not is_traced(directory):
            return refuse(f"there is no {trace}; record with --strace")
        unread = Unread()
        try:
            found.append(parted.read(directory, unread))
        except StraceLogError as error:
            return refuse(f"{trace}: {error}")
        foreign = unread.describe()
        if foreign is not None:
            print(f"{trace}: {foreign}", file=sys.stderr)
    left, right = found
    if not left and not right:
        return refuse(
            "nothing to compare: no socket was used and no process started in the test's call phase"
        )
    parting = parted.part(left, right)
    if parting is None:
        print(f"no difference in {len(left)} steps")
        return 0
    for line in parted.describe(parting, (options.left.name, options.right.name)):
        print(line)
    return 1
