"""Measure what looking at everything alive costs, and what being ready for it costs.

Usage: python benchmarks/alive.py [--quick]

Times are CPU seconds, since wall time on a busy machine says little. Where two things are
compared they run in turn, each several times, and the fastest run of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable
from collections.abc import Coroutine
import contextlib
import gc
from pathlib import Path
import subprocess
import sys
import tempfile
import time
from typing import Any

from pytest_eventlet_debug.alive.asyncio_watch import AsyncioWatch
from pytest_eventlet_debug.alive.debugger import show
from pytest_eventlet_debug.alive.heap import walk
from pytest_eventlet_debug.alive.snapshot import take

REPEAT = 5


async def work() -> None:
    await rest()


async def rest() -> None:
    await asyncio.sleep(1000)


def fastest(call: Callable[[], object], repeat: int = REPEAT) -> float:
    """Return the CPU seconds of the fastest of several calls."""
    times = []
    for _ in range(repeat):
        started = time.process_time()
        call()
        times.append(time.process_time() - started)
    return min(times)


def with_tasks(number: int, measure: Callable[[], float], each: Callable[[int], Any]) -> float:
    """Return what is measured while so many tasks wait."""

    async def main() -> float:
        tasks = [asyncio.ensure_future(each(n)) for n in range(number)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        try:
            return measure()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return asyncio.run(main())


def grouped(number: int) -> None:
    seconds = with_tasks(number, lambda: fastest(lambda: show(take()), 3), lambda _: work())
    print(f"{number:,} tasks with one stack, found and printed: {seconds:.3f} s")


def distinct(number: int) -> None:
    scope: dict[str, Any] = {"asyncio": asyncio}
    for n in range(number):
        exec(f"async def work_{n}():\n    await asyncio.sleep(1000)", scope)
    seconds = with_tasks(
        number, lambda: fastest(lambda: show(take()), 3), lambda n: scope[f"work_{n}"]()
    )
    print(f"{number:,} tasks with as many stacks, found and printed: {seconds:.3f} s")


def bystanders(number: int) -> None:
    things = [[] for _ in range(number)]  # type: ignore[var-annotated]
    print(f"{number:,} other objects alive: {fastest(walk):.3f} s for the walk", end=", ")
    print(f"{fastest(lambda: show(take())):.3f} s for all")
    del things
    gc.collect()


def greenthreads(number: int) -> None:
    import eventlet

    event = eventlet.event.Event()
    spawned = [eventlet.spawn(event.wait) for _ in range(number)]
    eventlet.sleep(0)
    seconds = fastest(lambda: show(take()), 3)
    print(f"{number:,} greenthreads with one stack, found and printed: {seconds:.3f} s")
    event.send()
    for each in spawned:
        each.wait()


def creating(number: int) -> None:
    async def nothing() -> None:
        pass

    async def main() -> None:
        for _ in range(number):
            await asyncio.create_task(nothing())

    def run() -> None:
        asyncio.run(main())

    def watched() -> None:
        watch = AsyncioWatch()
        watch.start()
        try:
            run()
        finally:
            watch.stop()

    compare(f"{number:,} tasks created and awaited", run, "their creation watched", watched)

    async def fail(coroutine: Coroutine[Any, Any, None]) -> None:
        await coroutine
        raise ValueError

    def failing() -> None:
        for _ in range(1000):
            with contextlib.suppress(ValueError):
                asyncio.run(fail(nothing()))

    def failing_watched() -> None:
        watch = AsyncioWatch()
        watch.start()
        try:
            failing()
        finally:
            watch.stop()

    compare("1,000 failing asyncio.run()", failing, "watched", failing_watched)


def compare(what: str, plain: Callable[[], None], other: str, changed: Callable[[], None]) -> None:
    """Print two figures side by side and their ratio."""
    before, after = [], []
    for _ in range(REPEAT):
        before.append(fastest(plain, 1))
        after.append(fastest(changed, 1))
    ratio = min(after) / min(before)
    print(f"{what}: {min(before):.3f} s; {other}: {min(after):.3f} s; ratio {ratio:.3f}")


SUITE = """
import eventlet
import pytest

@pytest.mark.parametrize("number", range({number}))
def test_passes(number):
    pass
"""


def passing_tests(number: int) -> None:
    options: tuple[tuple[str, ...], ...] = (
        (),
        ("--dump-asyncio-tasks",),
        ("--eventlet-leaks=warn",),
    )
    with tempfile.TemporaryDirectory() as scratch:
        # One test tells what starting costs, and the difference what a test does.
        for count in (1, number):
            Path(scratch, f"test_{count}.py").write_text(SUITE.format(number=count))
        best: dict[tuple[tuple[str, ...], int], float] = {}
        for _ in range(3):
            for each in options:
                for count in (1, number):
                    seconds = pytest_seconds(scratch, (f"test_{count}.py", *each))
                    best[each, count] = min(best.get((each, count), seconds), seconds)
    print(f"{number:,} passing tests: {best[(), number]:.3f} s")
    plain = best[(), number] - best[(), 1]
    for each in options[1:]:
        cost = (best[each, number] - best[each, 1] - plain) / number * 1000
        started = best[each, 1] - best[(), 1]
        print(f"  with {each[0]}: {cost:+.3f} ms a test, {started:+.3f} s to start")


def pytest_seconds(directory: str, arguments: tuple[str, ...]) -> float:
    """Return the CPU seconds of a run of pytest."""
    program = "import resource, sys, pytest; pytest.main(sys.argv[1:]); " + (
        "print('seconds', sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))"
    )
    command = [sys.executable, "-c", program, "-q", "-p", "no:cacheprovider", *arguments]
    run = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    return float(run.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of everything")
    part = 10 if parser.parse_args().quick else 1

    grouped(10_000 // part)
    grouped(100_000 // part)
    distinct(2_000 // part)
    bystanders(1_000_000 // part)
    greenthreads(1_000 // part)
    creating(20_000 // part)
    passing_tests(3_000 // part)


if __name__ == "__main__":
    main()
