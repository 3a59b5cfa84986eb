"""Recordings of real runs: tests that the plugin itself recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.model import Finding
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.findings.protocol import Detector
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse

Record = Callable[..., list[Path]]
Find = Callable[..., list[Finding]]
FindEach = Callable[..., list[list[Finding]]]

MARK = '7 {0:.3f} access("/.eventlet-debug/{1}", F_OK) = -1 ENOENT (-) <0.000001>'


@pytest.fixture
def record(pytester: pytest.Pytester) -> Record:
    """Run the tests of programs under strace; return their directories, sorted by name."""

    def run(
        program: str | list[str], hub: str, *options: str, name: str = "recorded"
    ) -> list[Path]:
        several = [] if isinstance(program, str) else program
        modules = {f"test_program_{number}": each for number, each in enumerate(several)}
        pytester.makepyfile(**(modules or {"test_program": program}))
        artifacts = pytester.path / f"{name}-{hub}"
        pytester.runpytest_subprocess(
            *("-p", "no:cacheprovider", "--strace", f"--eventlet-hub={hub}"),
            *(f"--eventlet-artifacts={artifacts}", *options),
        )
        return sorted(each.parent for each in artifacts.glob("*/strace.txt*"))

    return run


@pytest.fixture
def find(record: Record) -> Find:
    """Return what a detector finds in the recordings of a program's tests."""

    def run(program: str, kind: type[Detector], hub: str = "epolls") -> list[Finding]:
        return [each for found in map(_finding(kind), record(program, hub)) for each in found]

    return run


@pytest.fixture
def find_each(record: Record) -> FindEach:
    """Return what a detector finds in the recordings of some programs of one test each."""

    def run(programs: list[str], kind: type[Detector], hub: str = "epolls") -> list[list[Finding]]:
        directories = record(programs, hub)
        assert len(directories) == len(programs)
        return list(map(_finding(kind), directories))

    return run


def _finding(kind: type[Detector]) -> Callable[[Path], list[Finding]]:
    def find(directory: Path) -> list[Finding]:
        detection = Detection(About(), [kind])
        with open_log(directory / "strace.txt") as log:
            for _ in detection.watch(parse(log)):
                pass
        return list(detection.findings())

    return find


@pytest.fixture
def detect() -> Find:
    """Return what a detector finds in a trace of some calls.

    Each begins with who makes it: a greenthread of thread 7, the test's, or another thread.

    :param apart: seconds from one to the next.
    """

    def run(kind: type[Detector], *calls: str, apart: float = 1) -> list[Finding]:
        lines = [MARK.format(100, "phase/1/call/test_x")]
        running = ""
        for number, call in enumerate(calls, 1):
            who, _, text = call.partition(" ")
            time = 100 + number * apart
            if ":" in who and who != running:
                running = who
                lines.append(MARK.format(time, f"greenlet/{who.replace(':', '/')}"))
            lines.append(f"{'7' if ':' in who else who} {time:.3f} {text} <0.000001>")
        detection = Detection(About(), [kind])
        for _ in detection.watch(parse(lines)):
            pass
        return list(detection.findings())

    return run
