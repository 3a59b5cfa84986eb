"""Find a test of a run by a part of its id, and open what was recorded of it."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import os
from pathlib import Path
import shlex
import shutil
import signal
import subprocess
import sys
from typing import NamedTuple
from urllib.parse import quote
import webbrowser

from pytest_eventlet_debug.artifact_names import CALLGRIND_FILE
from pytest_eventlet_debug.artifact_names import CAPTURE_FILES
from pytest_eventlet_debug.artifact_names import PACKED_STRACE_FILE
from pytest_eventlet_debug.artifact_names import PAGE_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.artifact_names import TASKS_FILE
from pytest_eventlet_debug.artifact_records import ListedTest
from pytest_eventlet_debug.phrasing import and_more
from pytest_eventlet_debug.report.data import Run
from pytest_eventlet_debug.system.programs import running

#: Wireshark's columns with one for our comments, which say who sent and received a packet.
COLUMNS = (
    'gui.column.format:"No.","%m","Time","%t","Source","%s","Destination","%d","Protocol","%p",'
    '"Info","%i","Comment","%Cus:frame.comment:0:R"'
)

#: Tests that an error lists when a part of an id fits several.
SHOWN = 10


class OpenError(Exception):
    """Nothing can be opened. One line: what was asked for, why not, and what would do."""


class Tool(NamedTuple):
    """A program that shows one of the artifacts.

    :param command: what stands before the file's name.
    """

    command: tuple[str, ...]
    file: str


class View(NamedTuple):
    """A way to look at a test.

    :param tools: the best one first.
    :param recorded_by: the option that records what they show, and when it does.
    :param package: what to install on Debian and Ubuntu for the best tool.
    """

    tools: tuple[Tool, ...]
    recorded_by: str
    package: str


def _pager() -> tuple[str, ...]:
    """Return the command of the user's pager.

    :raises OpenError: ``PAGER`` is no command.
    """
    named = os.environ.get("PAGER", "")
    try:
        return tuple(shlex.split(named)) or ("less",)
    except ValueError as error:
        raise OpenError(f"PAGER is {named!r}, which is no command: {error}") from None


def views() -> dict[str, View]:
    """Return the ways to look at a test's files, by what the command calls them.

    Programs with windows are among them only where something shows these.

    :raises OpenError: ``PAGER`` is no command.
    """
    pager = _pager()
    pstats = (sys.executable, "-m", "pstats")
    windows = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    kcachegrinds = ("kcachegrind", "qcachegrind") if windows else ()
    wiresharks = ("wireshark", "tshark") if windows else ("tshark",)
    return {
        "strace": View(
            (Tool(pager, STRACE_FILE), Tool(("zless",), PACKED_STRACE_FILE)), "--strace", "less"
        ),
        "packets": View(
            tuple(
                Tool((program, "-o", COLUMNS, "-r"), name)
                for program in wiresharks
                for name in CAPTURE_FILES
            ),
            "--pcap",
            wiresharks[0],
        ),
        "profile": View(
            (
                *(Tool((program,), CALLGRIND_FILE) for program in kcachegrinds),
                Tool(("snakeviz",), PROFILE_FILE),
                Tool(pstats, PROFILE_FILE),
            ),
            "--cprofile",
            "kcachegrind",
        ),
        "tasks": View(
            (Tool(pager, TASKS_FILE),), "for a test that fails, --dump-asyncio-tasks", "less"
        ),
    }


def find(run: Run, part: str) -> ListedTest:
    """Return the recorded test that a part of an id means.

    Of one test's hubs and attempts the last that failed is taken, else the last.

    :raises OpenError: no recorded test has it in its id, or several have.
    """
    found = [(test, each) for test, each in _recorded(run) if part in each.nodeid]
    exact = [(test, each) for test, each in found if part in (test, each.nodeid)]
    tests = list(dict.fromkeys(test for test, _ in exact or found))
    if not tests:
        raise OpenError(f"no recorded test in {run.directory} has {part!r} in its id")
    if len(tests) > 1:
        shown = ", ".join(tests[:SHOWN]) + and_more(len(tests) - SHOWN)
        raise OpenError(f"{part!r} matches {len(tests)} tests: {shown}; be more specific")
    attempts = [each for _, each in exact or found]
    failed = [each for each in attempts if each.failed]
    return (failed or attempts)[-1]


def _recorded(run: Run) -> Iterator[tuple[str, ListedTest]]:
    for test, row in run.cells.items():
        for cell in row.values():
            for attempt in cell.attempts:
                yield test, attempt


def command(directory: Path, name: str) -> list[str]:
    """Return the command that shows what was recorded of a test.

    :param directory: the test's.
    :param name: ``timeline``, or one of :func:`views`.
    :raises OpenError: that was not recorded, or no program is there that shows it.
    """
    if name == "timeline":
        return [sys.executable, "-m", "pytest_eventlet_debug", "timeline", str(directory)]
    view = views()[name]
    usable = [tool for tool in view.tools if (directory / tool.file).is_file()]
    if not usable:
        raise OpenError(f"{directory} has no {view.tools[0].file}; {view.recorded_by} records it")
    for tool in usable:
        if shutil.which(tool.command[0]) is not None:
            return [*tool.command, str(directory / tool.file)]
    programs = " or ".join(dict.fromkeys(tool.command[0] for tool in usable))
    raise OpenError(
        f"there is no {programs} on PATH (on Debian and Ubuntu: sudo apt-get install "
        f"{view.package}); the file is {directory / usable[0].file}"
    )


def show(argv: Sequence[str], *, paged: bool) -> int:
    """Run a command in this terminal; return its exit status.

    :param paged: whether its output goes through the user's pager, if there is one.
    :raises OpenError: ``PAGER`` is no command.
    """
    pager = _pager() if paged else ()
    with _ctrl_c_left_to_others():
        if not pager or shutil.which(pager[0]) is None:
            with running(argv) as program:
                return program.wait()
        with (
            running(argv, own_group=True, stdout=subprocess.PIPE) as source,
            running(pager, stdin=source.stdout) as shown,
        ):
            return shown.wait()


@contextlib.contextmanager
def _ctrl_c_left_to_others() -> Iterator[None]:
    """Let a program that has the terminal see to Ctrl-C: in less it ends a search, not less."""
    # Not ignored, for what is started would ignore it, too.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def address(run: Run, test: ListedTest) -> str:
    """Return where a browser finds a test in the report.

    :raises OpenError: the run has no report.
    """
    page = run.directory.absolute() / PAGE_FILE
    if not page.exists():
        raise OpenError(f"{page} does not exist; pytest-eventlet-debug report writes it")
    name = next(name for name, each in _recorded(run) if each is test)
    return address_of(page, name)


def address_of(page: Path, test: str) -> str:
    """Return the address of a test in a report.

    :param page: absolute.
    :param test: the id without the hub.
    """
    return f"{page.as_uri()}{fragment(test)}"


def fragment(test: str) -> str:
    """Return what follows the page's address and leads to a test."""
    return f"#/test/{quote(test, safe='', errors='replace')}"


def browse(url: str) -> None:
    """Open an address in the user's browser.

    :raises OpenError: there is no browser.
    """
    if not webbrowser.open(url):
        raise OpenError(f"there is no browser here; the report is {url}")
