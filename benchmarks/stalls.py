"""Measure what ``--eventlet-blocked`` costs a program that does nothing but switch greenthreads.

Usage: python benchmarks/stalls.py [--quick]

Times are CPU seconds of the whole process, the watching thread's included, since wall time on a
busy machine says little. Without, with the watcher in C, and with the one in Python run in
turn, many times, and the fastest run of each counts.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import time

import eventlet
from eventlet import hubs
from eventlet.queue import Queue
import greenlet

from pytest_eventlet_debug.stalls.fallback import SwitchWatch
from pytest_eventlet_debug.stalls.native import NativeWatch

SECONDS = 0.1


def sleeps() -> None:
    for _ in range(20_000):
        eventlet.sleep(0)


def queues() -> None:
    there: Queue = Queue(0)
    back: Queue = Queue(0)

    def echo() -> None:
        while True:
            back.put(there.get())

    greenthread = eventlet.spawn(echo)
    for number in range(5_000):
        there.put(number)
        back.get()
    greenthread.kill()


def raw_switches() -> None:
    def loop() -> None:
        while True:
            parent.switch()

    parent = greenlet.getcurrent()
    other = greenlet.greenlet(loop)
    for _ in range(200_000):
        other.switch()


def cpu_seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    rounds = 7 if parser.parse_args().quick else 25
    hubs.get_hub()
    native, fallback = NativeWatch(), SwitchWatch()
    of_thread = vars(hubs._threadlocal)
    for workload in (sleeps, queues, raw_switches):
        times: dict[str, list[float]] = {"off": [], "C": [], "Python": []}
        for _ in range(rounds):
            times["off"].append(cpu_seconds(workload))
            for name, watch in (("C", native), ("Python", fallback)):
                watch.arm(SECONDS, of_thread, True)
                times[name].append(cpu_seconds(workload))
                watch.disarm()
        best = {name: min(found) for name, found in times.items()}
        factors = ", ".join(f"{name} x{best[name] / best['off']:.3f}" for name in ("C", "Python"))
        print(f"{workload.__name__}: off {best['off'] * 1000:.1f} ms, watched by {factors}")
    native.stop()


if __name__ == "__main__":
    main()
