"""Measure what profiling costs: factors over no profiler, side by side in one run.

Usage: python benchmarks/profile.py [ROUNDS]

For each workload there is a row, and a column for each profiler: cProfile; yappi by its
wall clock, if it is installed; ours by the clocks run and wall, where there is a second
thread, and without what is written in C. What is compared is CPU time, the least of ROUNDS
rounds (5), in each of which every profiler has its turn.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterator
import contextlib
import gc
import platform
import sys
import threading
import time
from typing import Any
import warnings

warnings.simplefilter("ignore")
del sys.path[0]  # cProfile imports a module called profile, and must not find this file

import cProfile  # noqa: E402

import eventlet  # noqa: E402
import greenlet  # noqa: E402

from pytest_eventlet_debug.profiling.choice import engine_kind  # noqa: E402
from pytest_eventlet_debug.profiling.clock import Clock  # noqa: E402
from pytest_eventlet_debug.profiling.clock import ClockName  # noqa: E402
from pytest_eventlet_debug.profiling.clock import make_clock  # noqa: E402
from pytest_eventlet_debug.profiling.engine import Engine  # noqa: E402
from pytest_eventlet_debug.profiling.fallback import FallbackEngine  # noqa: E402

try:
    import yappi
except ImportError:
    yappi = None


def fib(n: int = 20) -> int:
    return n if n < 2 else fib(n - 1) + fib(n - 2)


def raw_switches(count: int = 20_000) -> None:
    main = greenlet.getcurrent()

    def other() -> None:
        while True:
            main.switch()

    there = greenlet.greenlet(other)
    for _ in range(count // 2):
        there.switch()


def sleeps(count: int = 2_000) -> None:
    for _ in range(count):
        eventlet.sleep(0)


def echo(clients: int = 100, rounds: int = 20) -> None:
    listener = eventlet.listen(("127.0.0.1", 0))

    def handle(sock: Any) -> None:
        while data := sock.recv(1024):
            sock.sendall(data)
        sock.close()

    def serve() -> None:
        for _ in range(clients):
            eventlet.spawn_n(handle, listener.accept()[0])

    def client() -> None:
        sock = eventlet.connect(listener.getsockname())
        for _ in range(rounds):
            sock.sendall(b"x" * 100)
            sock.recv(1024)
        sock.close()

    threads = [eventlet.spawn(serve), *(eventlet.spawn(client) for _ in range(clients))]
    for thread in threads:
        thread.wait()
    listener.close()


def pool(count: int = 5_000) -> None:
    def work() -> None:
        pass

    green = eventlet.GreenPool(100)
    for _ in range(count):
        green.spawn_n(work)
    green.waitall()


WORKLOADS: dict[str, Callable[[], object]] = {
    "fib(20), 21,891 calls": fib,
    "20,000 raw switches": raw_switches,
    "2,000 eventlet.sleep(0)": sleeps,
    "echo server, 100 clients x 20": echo,
    "GreenPool, 5,000 spawns": pool,
}


@contextlib.contextmanager
def with_cprofile() -> Iterator[None]:
    profile = cProfile.Profile()
    profile.enable()
    yield
    profile.disable()


@contextlib.contextmanager
def with_yappi() -> Iterator[None]:
    yappi.set_clock_type("wall")
    yappi.set_context_backend("greenlet")
    yappi.start(builtins=True)
    yield
    yappi.stop()
    yappi.clear_stats()


@contextlib.contextmanager
def with_ours(
    clock: ClockName = "run", kind: Callable[[Clock], Engine] | None = None
) -> Iterator[None]:
    engine = (kind or engine_kind("greenlet"))(make_clock(clock))
    engine.start()
    yield
    engine.stop()


@contextlib.contextmanager
def with_a_thread() -> Iterator[None]:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with with_ours():
            yield
    finally:
        over.set()
        thread.join()


PROFILERS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "none": contextlib.nullcontext,
    "cProfile": with_cprofile,
    **({} if yappi is None else {"yappi": with_yappi}),
    "ours": with_ours,
    "ours, wall": lambda: with_ours("wall"),
    "ours, 2 threads": with_a_thread,
    "ours, no C": lambda: with_ours(kind=FallbackEngine),
}


def measure(work: Callable[[], object], rounds: int) -> dict[str, float]:
    """Return the least CPU time of *work* under each profiler, in seconds."""
    least = dict.fromkeys(PROFILERS, float("inf"))
    work()
    for _ in range(rounds):
        for name, profiler in PROFILERS.items():
            gc.collect()
            # Of this thread: what the profiler does before and after is not counted.
            with profiler():
                began = time.thread_time()
                work()
                spent = time.thread_time() - began
            least[name] = min(least[name], spent)
    return least


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    print(f"Python {platform.python_version()}, greenlet {greenlet.__version__}")
    print(f"{'':32}" + "".join(f"{name:>17}" for name in PROFILERS))
    for title, work in WORKLOADS.items():
        least = measure(work, rounds)
        base = least["none"]
        row = [f"{base * 1e3:14.1f} ms"]
        row += [f"{seconds / base:17.2f}" for name, seconds in least.items() if name != "none"]
        print(f"{title:32}" + "".join(row), flush=True)


if __name__ == "__main__":
    main()
