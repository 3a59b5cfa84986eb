"""Write the report: ``index.html``, and beside it ``report`` with what it loads.

Opening the page reads one small script with the matrix. What belongs to a test is in other
scripts, loaded when that test is opened: its recordings in one each, all else with that of some
more tests, for to create a file takes longer than to fill it.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
import contextlib
import functools
import hashlib
import html
import os
from pathlib import Path
import posixpath
import re
import shutil
import string
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from pytest_eventlet_debug import __version__
from pytest_eventlet_debug.artifact_names import BLOCK_PREFIX
from pytest_eventlet_debug.artifact_names import CAPTURE_FILES
from pytest_eventlet_debug.artifact_names import PAGE_FILE
from pytest_eventlet_debug.artifact_names import PART_FILE
from pytest_eventlet_debug.artifact_names import PROFILE_FILE
from pytest_eventlet_debug.artifact_names import TASKS_FILE
from pytest_eventlet_debug.artifact_names import TRACE_FILES
from pytest_eventlet_debug.artifact_records import ListedTest
from pytest_eventlet_debug.recordings import report_part
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.report import cells
from pytest_eventlet_debug.report.cells import Past
from pytest_eventlet_debug.report.data import Cell
from pytest_eventlet_debug.report.data import Run
from pytest_eventlet_debug.report.history import columns
from pytest_eventlet_debug.report.history import labels
from pytest_eventlet_debug.system import files

DATA_FOLDER = "report"

#: By this line of its head a page is known to be ours, and may be replaced.
GENERATOR = '<meta name="generator" content="pytest-eventlet-debug">'

#: Characters of JSON about tests that are loaded together.
DETAILS_SIZE = 1 << 17

#: Characters of a dump that the page shows; the file has all of it.
MAX_DUMP = 200_000

_RECORDINGS = (*TRACE_FILES, *CAPTURE_FILES, PROFILE_FILE)

_BLOCK = re.compile(rf"{BLOCK_PREFIX}[^/]*")


class ReportError(Exception):
    """The report cannot be written there. One line: why, and what would do."""


def write_report(runs: Sequence[Run], folder: Path) -> Path:
    """Write a report on one run or several; return the page.

    In the directory of the run itself the page loads what lies there. Elsewhere the data is
    copied, and only the links to the recordings lead back.

    :raises ReportError: the folder holds a page that is not ours, or links.
    :raises OSError: a file cannot be written.
    """
    page, data = folder / PAGE_FILE, folder / DATA_FOLDER
    if _check_ours(page, data):
        for old in data.glob("test-*.js"):
            old.unlink()
    title = _title(run.facts.rootdir for run in runs)
    if (title, folder) in _prepared:
        _prepared.remove((title, folder))
    else:
        _lay_out(title, page, data)
    matrix = {"title": title, **_Writer(runs, folder).write()}
    _write(data / "run.js", report_part.script(matrix).encode("ascii"))
    return page


#: Titles and folders of reports that this process is about to write the data of.
_prepared: set[tuple[str, Path]] = set()


def prepare(rootdir: str, folder: Path) -> None:
    """Write what the report on a run has in common with all others, before the run has ended.

    :raises ReportError: as :func:`write_report` does.
    :raises OSError: a file cannot be written.
    """
    page, data = folder / PAGE_FILE, folder / DATA_FOLDER
    _check_ours(page, data)
    title = _title([rootdir])
    _lay_out(title, page, data)
    _prepared.add((title, folder))


def _title(rootdirs: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(Path(each).name or "tests" for each in rootdirs))


def _lay_out(title: str, page: Path, data: Path) -> None:
    """Write the page and what it loads, but for the data."""
    # What tests sent and received is nobody else's business.
    _make(page.parent)
    # First of all, so that what is there is known as ours if this is interrupted.
    _copy(_shell(title).encode("utf-8", "backslashreplace"), page)
    _make(data)
    for path in _static().rglob("*"):
        if path.suffix in (".js", ".css"):
            _copy(path.read_bytes(), data / path.name)


def _check_ours(page: Path, data: Path) -> bool:
    """Return whether a report of ours is there already.

    :raises ReportError: something else is, which writing would replace.
    """
    for path in (page, data):
        if path.is_symlink():
            raise ReportError(f"{path} is a link; remove it or choose another directory")
    if page.exists():
        if GENERATOR not in page.read_text("utf-8", "replace")[:1000]:
            raise ReportError(f"{page} is another program's; move it or choose another directory")
    elif data.exists():
        raise ReportError(f"{data} is not of a report; move it or choose another directory")
    return page.exists()


def _own() -> Path:
    return Path(__file__).parent


def _static() -> Path:
    return _own() / "static"


def _copy(asset: bytes, path: Path) -> None:
    """Write a file, unless it is there; to replace one takes longer than to make one."""
    if not files.is_there(path):
        try:
            with open(files.create(os.path.realpath(path)), "wb") as file:
                file.write(asset)
        except OSError:  # half a page would be taken for somebody else's
            path.unlink(missing_ok=True)
            raise
    elif path.is_symlink() or path.read_bytes() != asset:
        _write(path, asset)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        files.make_directory(folder)


def _write(path: Path, data: bytes) -> None:
    """Write a file for its owner alone; the folder may be named by a link of the user's."""
    files.replace(Path(os.path.realpath(path.parent), path.name), data)


@functools.cache
def _shell(title: str) -> str:
    vendored = msgspec.json.decode((_static() / "vendor" / "vendored.json").read_bytes())
    template = string.Template((_own() / "templates" / PAGE_FILE).read_text("utf-8"))
    return template.substitute(
        title=html.escape(title),
        generator=GENERATOR,
        data=DATA_FOLDER,
        styles="".join(f" '{digest}'" for digest in vendored["styles"]),
    )


class _Details:
    """What the page of each test shows, in scripts of several tests each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = 0
        self._texts: list[str] = []

    def add(self, details: Sequence[object]) -> tuple[str, int]:
        """Take in those of a test; return their script, and their place in it.

        :raises OSError: a script cannot be written.
        """
        if sum(map(len, self._texts)) >= DETAILS_SIZE:
            self.write()
        self._texts.append(report_part.as_json(details))
        return self._script, len(self._texts) - 1

    @property
    def _script(self) -> str:
        return f"{DATA_FOLDER}/test-{self._written}.js"

    def write(self) -> None:
        """Write those that are in no script yet.

        :raises OSError: a script cannot be written.
        """
        if self._texts:
            text = f"[{','.join(self._texts)}]"
            _write(self._folder / self._script, report_part.script_of(text).encode("ascii"))
            self._written += 1
            self._texts.clear()


class _Writer:
    """Writes the scripts of all tests, and returns the matrix that leads to them."""

    def __init__(self, runs: Sequence[Run], folder: Path) -> None:
        self._runs = sorted(runs, key=lambda run: run.facts.started_ns)
        self._labels = labels([run.directory for run in self._runs])
        self._folder = folder
        self._columns = columns(self._runs)
        self._details = _Details(folder)
        # Where a run's directory is, seen from the page, and whether it is below that.
        self._links = [_relative(run.directory, folder) for run in self._runs]
        whole = folder.resolve()
        self._is_below = [whole in (run.directory / "x").resolve().parents for run in self._runs]

    def write(self) -> dict[str, Any]:
        tests = dict.fromkeys(test for run in self._runs for test in run.cells)
        histories = {test: self._history(test) for test in tests}
        matrix: dict[str, Any] = {
            "version": __version__,
            "runs": [
                self._run(run, label) for run, label in zip(self._runs, self._labels, strict=True)
            ],
            "columns": [msgspec.to_builtins(column) for column in self._columns],
            "tests": [self._test(test, history) for test, history in histories.items()],
        }
        self._details.write()
        if any(len(column.runs) > 1 for column in self._columns):
            matrix["history"] = name = f"{DATA_FOLDER}/test-history.js"
            past = {test: [cells.past(each) for each in found] for test, found in histories.items()}
            _write(self._folder / name, report_part.script(past).encode("ascii"))
        return matrix

    def _run(self, run: Run, label: str) -> dict[str, Any]:
        facts = msgspec.to_builtins(replace(run.facts, tests=msgspec.UNSET))
        for name in ("started_ns", "ended_ns"):  # more than a JavaScript number can hold
            if name in facts:
                facts[name] = str(facts[name])
        shown = {
            **facts,
            "directory": str(run.directory),
            "label": label,
            "upgrade": run.upgrade,
        }
        page = run.directory / PAGE_FILE
        if run.directory.absolute() != self._folder.absolute() and page.is_file():
            shown["page"] = quote(_relative(run.directory, self._folder) + PAGE_FILE)
        return shown

    def _history(self, test: str) -> list[Past]:
        """Return for each column the runs that have a test, the oldest first."""
        return [
            [
                (number, cell)
                for number in column.runs
                if (cell := self._runs[number].cells.get(test, {}).get(column.hub)) is not None
            ]
            for column in self._columns
        ]

    def _test(self, test: str, history: Sequence[Past]) -> dict[str, Any]:
        shown = [
            cells.shown(past, column) if past else None
            for past, column in zip(history, self._columns, strict=True)
        ]
        found: dict[str, Any] = {"id": test, "cells": shown}
        contrasts = [
            (number, contrast)
            for number, past in enumerate(history)
            if (contrast := cells.contrast(past)) is not None
        ]
        if contrasts:
            found["contrasts"] = [
                {"column": number, "run": run, **cells.ended(cell)}
                for number, (run, cell) in contrasts
            ]
        details = [self._detail(*past[-1]) if past else None for past in history]
        details += [self._detail(*contrast) for _, contrast in contrasts]
        last = {past[-1][0] for past in history if past}
        verdicts = [(number, run.verdicts.get(test)) for number, run in enumerate(self._runs)]
        found["verdicts"] = [
            {"run": number, **msgspec.to_builtins(verdict)}
            for number, verdict in verdicts
            if verdict and (number in last or verdict.kind == "flaky")
        ]
        if any(details):
            script, place = self._details.add(details)
            found["details"] = {"script": script, "place": place}
        return found

    def _detail(self, number: int, cell: Cell) -> dict[str, Any] | None:
        """Return what the page of a test shows of a hub, or ``None`` for no more than a cell."""
        result = cell.result
        if not (cell.attempts or result.failure or result.sections):
            return None
        return {
            "nodeid": result.nodeid,
            "failure": result.failure,
            "sections": [
                msgspec.to_builtins(section)
                for section in result.sections
                # Of our own, which says what the attempts say.
                if not (cell.attempts and section.title == "eventlet-debug")
            ],
            "attempts": [self._attempt(number, test, cell.found) for test in cell.attempts],
        }

    def _attempt(
        self, number: int, test: ListedTest, found: Mapping[str, tuple[Finding, ...]]
    ) -> dict[str, Any]:
        directory = self._runs[number].directory / test.directory
        link = quote(self._links[number] + test.directory)
        return {
            "attempt": test.attempt,
            "directory": link,
            "path": str(directory),
            "phases": _phases(test.phases),
            "outcomes": test.outcomes,
            "errors": test.errors,
            "files": [name for name in test.artifacts if posixpath.basename(name) != PART_FILE],
            "findings": [msgspec.to_builtins(each) for each in found[test.directory]],
            "dumps": dict(_dumps(directory)) if TASKS_FILE in test.artifacts else {},
            "parts": [
                self._part(directory, block, link if self._is_below[number] else None)
                for block in _recorded(test.artifacts)
            ],
        }

    def _part(self, directory: Path, block: str, link: str | None) -> dict[str, str]:
        """Name the script with a recording's data, which is made now if no finisher has.

        :param directory: the test's.
        :param block: the block's directory in it, or ``""``.
        :param link: leads from the page to the test's directory, if that is below the page.
        """
        place = directory / block
        part = place / PART_FILE
        made = report_part.is_part(part)
        if made and link is not None:
            return {"block": block, "script": posixpath.join(link, quote(block), PART_FILE)}
        digest = hashlib.sha256(os.fsencode(part.resolve())).hexdigest()[:16]
        here = f"{DATA_FOLDER}/test-part-{digest}.js"
        if made:
            shutil.copyfile(part, self._folder / here)
        else:
            from pytest_eventlet_debug.recordings.timeline import (
                read_timeline,  # the finisher's work
            )

            report_part.write(place, read_timeline(place), path=self._folder / here)
        return {"block": block, "script": here}


def _relative(directory: Path, folder: Path) -> str:
    """Return what stands before the names in a directory, seen from a folder."""
    path = os.path.relpath(directory, folder)
    return "" if path == os.curdir else f"{path}/"


def _phases(phases: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Return how long each phase took, in seconds."""
    return {name: (end - start) / 1e9 for name, (start, end) in phases.items()}


def _dumps(directory: Path) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(OSError):
        fd = files.open_to_read(directory / TASKS_FILE)
        with open(fd, encoding="utf-8", errors="replace") as file:
            yield TASKS_FILE, file.read(MAX_DUMP)


def _recorded(names: Iterable[str]) -> list[str]:
    """Return where a test's directory holds recordings, ``""`` for itself and those of blocks.

    :param names: the files below it.
    """
    places = {posixpath.dirname(name) for name in names if posixpath.basename(name) in _RECORDINGS}
    return sorted(place for place in places if not place or _BLOCK.fullmatch(place))
