"""Measure how the cost of watching grows: with tests, with greenthreads, with the trace's length.

Usage: python benchmarks/growth.py [--quick]

The first two run pytest with all tracers and without the plugin, in turn, and print the CPU
time of all processes above the plain run, and what each test or greenthread more has added to
the row before. The third reads traces past the detectors of findings. What is linear has the
same figure in each row.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
import tempfile
import time

import analysis
import cost

from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse

SPAWNING = """\
import eventlet
def test_spawns():
    for thread in [eventlet.spawn(eventlet.sleep, 0) for _ in range({greenthreads})]:
        thread.wait()
"""


def spawning(scratch: Path, greenthreads: int) -> cost.Workload:
    directory = scratch / f"spawning-{greenthreads}"
    directory.mkdir()
    (directory / "test_spawns.py").write_text(SPAWNING.format(greenthreads=greenthreads))
    name = f"{greenthreads:,} greenthreads in one test"
    return cost.Workload(name, directory, ("test_spawns.py",), greenthreads)


def above_plain(workload: cost.Workload, rounds: int, scratch: Path) -> float:
    """Return the seconds of CPU time that all tracers take above the plain run."""
    wanted = (cost.BASE, "all five")
    ways = [way for way in cost.available(cost.WAYS) if way.name in wanted]
    plain, watched = cost.interleaved(ways, workload, rounds, scratch).values()
    return watched.cpu - plain.cpu


def print_rows(workloads: Iterable[cost.Workload], rounds: int, scratch: Path) -> None:
    """Print what watching costs, and what each test or greenthread more has added to it."""
    before = 0.0
    tests = 0
    for workload in workloads:
        seconds = above_plain(workload, rounds, scratch)
        each = (seconds - before) / (workload.tests - tests) * 1000
        more = f", {each:.2f} ms for each one more" if tests else ""
        print(f"{workload.name}: {seconds:.2f} s CPU{more}", flush=True)
        before, tests = seconds, workload.tests


def print_reading(directory: Path, megabytes: int) -> None:
    """Print how fast a trace of that length passes the detectors."""
    sample = analysis.make(directory, "lines", 1000).stat().st_size
    path = analysis.make(directory, "lines", megabytes * 1000 * 1_000_000 // sample)
    began = time.process_time()
    detection = Detection(About())
    with open_log(path) as log:
        for _ in detection.watch(parse(log)):
            pass
    detection.findings()
    seconds = time.process_time() - began
    print(
        f"a trace of {megabytes} MB: {seconds / megabytes * 1000:.0f} ms CPU for each MB",
        flush=True,
    )
    path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, and no long rows")
    quick = parser.parse_args().quick
    rounds = 1 if quick else 3
    cost.adopt_orphans()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "cost_last_test.py").write_text(cost.LAST_TEST)
        tests = (10, 100) if quick else (100, 1000, 10_000)
        print_rows((cost.yielding(scratch, number) for number in tests), rounds, scratch)
        greenthreads = (10, 1000) if quick else (10, 100, 1000, 10_000)
        print_rows((spawning(scratch, number) for number in greenthreads), rounds, scratch)
        for megabytes in (1, 10) if quick else (1, 10, 100):
            print_reading(scratch, megabytes)


if __name__ == "__main__":
    main()
