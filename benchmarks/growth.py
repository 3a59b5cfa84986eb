"""Measure how the cost of watching grows: with tests, hubs, greenthreads, the trace's length.

Usage: python benchmarks/growth.py [--quick] [--runs=N]

The first three run pytest with all tracers and without the plugin, in turn, and print the CPU
time of all processes above the plain run, and what each test, hub or greenthread more has added
to the row before. The last reads traces past the detectors of findings. What is linear has the
same figure in each row.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
import shutil
import time

import analysis
import cost

from pytest_eventlet_debug.recordings.findings.detection import Detection
from pytest_eventlet_debug.recordings.findings.protocol import About
from pytest_eventlet_debug.recordings.strace_log import open_log
from pytest_eventlet_debug.recordings.strace_log import parse

HUBS = ("epolls", "poll", "selects", "asyncio")

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


def above_plain(
    workload: cost.Workload, rounds: int, scratch: Path, hubs: tuple[str, ...] = HUBS[:1]
) -> float:
    """Return the seconds of CPU time that all tracers take above a plain run for each hub."""
    plain = next(way for way in cost.WAYS if way.name == cost.BASE)
    options = [each for each in cost.ALL_FIVE if each != "--strace" or shutil.which("strace")]
    watched = cost.Way("watched", (f"--eventlet-hub={','.join(hubs)}", *options))
    found = cost.interleaved((plain, watched), workload, rounds, scratch)
    return found["watched"].cpu - found[cost.BASE].cpu * len(hubs)


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


def print_hubs(workload: cost.Workload, rounds: int, scratch: Path) -> None:
    """Print what watching costs on one hub, two, and so on, and what each has added."""
    before = 0.0
    for number in range(1, len(HUBS) + 1):
        seconds = above_plain(workload, rounds, scratch, HUBS[:number])
        more = f", {seconds - before:.2f} s for the one more" if before else ""
        print(f"{number} hubs, {workload.tests} tests: {seconds:.2f} s CPU{more}", flush=True)
        before = seconds


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
    parser.add_argument("--runs", type=int, default=3, help="rounds")
    options = parser.parse_args()
    quick = options.quick
    rounds = 1 if quick else options.runs
    with cost.prepared() as scratch:
        tests = (10, 100) if quick else (100, 1000, 10_000)
        print_rows((cost.yielding(scratch, number) for number in tests), rounds, scratch)
        print_hubs(cost.yielding(scratch, 20 if quick else 300), rounds, scratch)
        greenthreads = (10, 1000) if quick else (10, 100, 1000, 10_000)
        print_rows((spawning(scratch, number) for number in greenthreads), rounds, scratch)
        for megabytes in (1, 10) if quick else (1, 10, 100):
            print_reading(scratch, megabytes)


if __name__ == "__main__":
    main()
