"""Measure what watching costs: each way of running a suite against the plain run.

Usage: python benchmarks/cost.py [--suite=DIR] [--runs=N] [--quick] [--only=WAY] [--json=FILE]
                                 [--workload=NAME] [--beside=CHECKOUT] [-- PYTEST ARGS]
       python benchmarks/cost.py --compare OLD.json NEW.json

There are three workloads: one empty test (start-up), 301 tests that only yield to the hub
(tests), and a suite, such as eventlet's unpacked source distribution, with PYTEST ARGS to choose
its tests. Every way of running has its turn in each round, so that a busy machine is busy for
all of them, and the fastest round counts. Memory is at the same addresses in all of them. CPU
time is that of all processes: helpers, strace and the finisher included. What is printed are
ratios to the plain run, or milliseconds above it where the plain run does next to nothing. Two
hubs stand beside two plain runs, and --strace and --cprofile beside the same tool without the
plugin, used as sparingly as it can be. With --beside each way also runs with the plugin of another
checkout of this repository, in the same rounds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
import contextlib
import ctypes
import dataclasses
import importlib.metadata
import json
import os
from pathlib import Path
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = Path(__file__).resolve().parent.parent

#: The tests of eventlet's suite that are measured where none are named.
SUITE_TESTS = tuple(
    f"tests/{name}_test.py" for name in ("wsgi", "websocket", "queue", "ssl", "event")
)

_PR_SET_CHILD_SUBREAPER = 36
_ADDR_NO_RANDOMIZE = 0x0040000
_ASK = 0xFFFFFFFF

BLOCKED = ("-p", "no:eventlet-debug")
STRACE = ("strace", "-f", "-ttt", "-T", "-yy", "-s", "256")
ALL_FIVE = ("--strace", "--cprofile", "--pcap", "--eventlet-leaks=warn", "--dump-asyncio-tasks")
BASE = "plain"
OTHER_BASE = "plain, poll"

#: Notes when the last test ended; the time from there to the end of the process is the user's
#: wait for the prompt.
LAST_TEST = """\
import os, time
last = 0.0
def pytest_runtest_logfinish():
    global last
    last = time.monotonic()
def pytest_unconfigure():
    if last:
        with open(os.environ["COST_LAST_TEST"], "w") as file:
            file.write(str(last))
"""

#: The least that strace could cost: attached when the tests have been collected, on the CPU of the
#: test process, its trace kept in memory, and nothing known of where one test ends.
STRACE_ALONE = f"""\
import os, subprocess
def pytest_collection_finish():
    pid = os.getpid()
    os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
    trace = os.memfd_create("trace")
    command = [*{STRACE}, "-o", f"/proc/{{pid}}/fd/{{trace}}", "-p", str(pid)]
    strace = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert b"attached" in strace.stderr.readline()
"""

#: The least that a profile of each test's call could cost: it is made, and nothing is done with it.
CPROFILE_ALONE = """\
import cProfile, pytest
@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_pyfunc_call():
    profile = cProfile.Profile()
    profile.enable()
    try:
        return (yield)
    finally:
        profile.disable()
        profile.getstats()
"""

#: The plugins of these runs, by the name of their module.
PLUGIN_TEXTS = {
    "cost_last_test": LAST_TEST,
    "cost_strace_alone": STRACE_ALONE,
    "cost_cprofile_alone": CPROFILE_ALONE,
}

#: The folder of those plugins. By this name they are installed ones, as users' are.
PLUGINS = "site-packages"

YIELDING = """\
import eventlet
import pytest
@pytest.mark.parametrize("number", range({tests}))
def test_yields(number):
    eventlet.sleep(0)
"""


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to run a suite.

    :param arguments: pytest's, before those that choose the tests.
    :param wrapper: a program that runs Python, such as strace; *arguments* of Python first.
    :param hub: the hub of a run that names none.
    :param against: the ways whose sum it stands beside.
    :param needs: a program without which it is left out.
    :param root: the checkout whose plugin is used.
    """

    name: str
    arguments: tuple[str, ...]
    wrapper: tuple[str, ...] = ()
    python: tuple[str, ...] = ("-m", "pytest")
    hub: str = "epolls"
    against: tuple[str, ...] = (BASE,)
    needs: str | None = None
    root: Path = ROOT

    @property
    def is_blocked(self) -> bool:
        """Whether it runs without the plugin."""
        return self.arguments[: len(BLOCKED)] == BLOCKED


def _one_hub(name: str, *arguments: str, needs: str | None = None) -> Way:
    return Way(name, ("--eventlet-hub=epolls", *arguments), needs=needs)


WAYS = (
    Way(BASE, BLOCKED),
    Way(OTHER_BASE, BLOCKED, hub="poll"),
    _one_hub("one hub named"),
    Way("two hubs", ("--eventlet-hub=epolls,poll",), against=(BASE, OTHER_BASE)),
    _one_hub("--strace", "--strace", needs="strace"),
    _one_hub("--strace, no lines", "--strace", "--strace-lines=off", needs="strace"),
    _one_hub("--cprofile", "--cprofile"),
    _one_hub("--pcap", "--pcap"),
    _one_hub("--eventlet-leaks=warn", "--eventlet-leaks=warn"),
    _one_hub("--dump-asyncio-tasks", "--dump-asyncio-tasks"),
    _one_hub("all five", *ALL_FIVE, needs="strace"),
    Way("strace by hand", BLOCKED, wrapper=(*STRACE, "-o", os.devnull), needs="strace"),
    Way("cProfile by hand", BLOCKED, python=("-m", "cProfile", "-o", os.devnull, "-m", "pytest")),
    Way("strace alone", (*BLOCKED, "-p", "cost_strace_alone"), needs="strace"),
    Way("cProfile alone", (*BLOCKED, "-p", "cost_cprofile_alone")),
)


@dataclasses.dataclass(frozen=True)
class Workload:
    """Tests to run.

    :param tests: how many there are; 0 where nobody counted.
    """

    name: str
    directory: Path
    arguments: tuple[str, ...]
    tests: int = 0


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one run took.

    :param wall: seconds to the end of the process that the user waits for.
    :param cpu: seconds of CPU time, of all processes.
    :param prompt: seconds from the end of the last test to the prompt.
    :param disk: bytes of the artifacts that it left.
    """

    wall: float
    cpu: float
    prompt: float
    disk: int


def adopt_orphans() -> None:
    """Make this process the parent of helpers, which leave theirs, so that their CPU counts."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def settle_addresses() -> None:
    """Give all runs their memory at the same addresses, as far as this system lets us.

    With those that the kernel draws, a full collection of the same objects takes up to half as
    long again in one run as in another; see personality(2).
    """
    library = ctypes.CDLL(None, use_errno=True)
    library.personality(library.personality(_ASK) | _ADDR_NO_RANDOMIZE)


@contextlib.contextmanager
def prepared() -> Iterator[Path]:
    """Make this process ready for :func:`run`; the directory for that goes away again."""
    adopt_orphans()
    settle_addresses()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / PLUGINS).mkdir()
        for name, text in PLUGIN_TEXTS.items():
            (scratch / PLUGINS / f"{name}.py").write_text(text)
        yield scratch


def reap_all() -> None:
    """Wait for every process that a run has left behind."""
    try:
        while True:
            os.wait()
    except ChildProcessError:
        pass


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(way: Way, workload: Workload, scratch: Path) -> Measured:
    """Run *workload* once; artifacts are left in no place but a directory of this run."""
    # It stays until all is measured: where many files were deleted within the last minutes, ext4
    # without a journal takes ten times as long to create one, and the next run would pay for that.
    artifacts = Path(tempfile.mkdtemp(dir=scratch), "artifacts")
    stamp = scratch / "last-test"
    python_path = os.pathsep.join([str(scratch / PLUGINS), str(way.root)])
    environment = {**os.environ, "COST_LAST_TEST": str(stamp), "PYTHONPATH": python_path}
    environment |= {"EVENTLET_HUB": way.hub, "PYTHONHASHSEED": "0"}
    for name in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"):
        environment.pop(name, None)  # few users have them
    options = ["-q", "-p", "no:cacheprovider", "-p", "cost_last_test"]
    if not way.is_blocked:
        options.append(f"--eventlet-artifacts={artifacts}")
    command = [*way.wrapper, sys.executable, *way.python, *options, *way.arguments]
    before, began = cpu_of_children(), time.monotonic()
    null = subprocess.DEVNULL
    subprocess.run(
        [*command, *workload.arguments],
        cwd=workload.directory,
        env=environment,
        stdout=null,
        stderr=null,
        check=False,
    )
    ended = time.monotonic()
    reap_all()
    cpu = cpu_of_children() - before
    prompt = ended - float(stamp.read_text())
    measured = Measured(ended - began, cpu, prompt, disk_used(artifacts))
    stamp.unlink()
    return measured


def disk_used(directory: Path) -> int:
    """Return the bytes that the files below a directory take, in whole blocks."""
    files = (Path(where, name) for where, _, names in os.walk(directory) for name in names)
    return sum(file.lstat().st_blocks * 512 for file in files)


def interleaved(
    ways: Sequence[Way], workload: Workload, rounds: int, scratch: Path
) -> dict[str, Measured]:
    """Run each way once a round, and return the least of each figure."""
    runs: dict[str, list[Measured]] = {way.name: [] for way in ways}
    run(ways[0], workload, scratch)  # compiles, and warms the disk's cache
    for _ in range(rounds):
        for way in ways:
            runs[way.name].append(run(way, workload, scratch))
    return {name: least(found) for name, found in runs.items()}


def least(runs: Sequence[Measured]) -> Measured:
    """Return the least of each figure: what else a machine does can only add to it."""

    return Measured(
        min(each.wall for each in runs),
        min(each.cpu for each in runs),
        min(each.prompt for each in runs),
        min(each.disk for each in runs),
    )


def available(ways: Iterable[Way]) -> list[Way]:
    return [way for way in ways if way.needs is None or shutil.which(way.needs)]


def empty(scratch: Path) -> Workload:
    (scratch / "empty").mkdir()
    (scratch / "empty" / "test_empty.py").write_text("def test_empty(): pass\n")
    return Workload("start-up, one empty test", scratch / "empty", ("test_empty.py",), 1)


def yielding(scratch: Path, tests: int) -> Workload:
    directory = scratch / f"yielding-{tests}"
    directory.mkdir()
    (directory / "test_yields.py").write_text(YIELDING.format(tests=tests))
    return Workload(f"each test of {tests:,} that yield", directory, ("test_yields.py",), tests)


def table(workload: Workload, ways: Sequence[Way], found: dict[str, Measured]) -> list[str]:
    """Return the lines of a workload's table; the first column is 26 characters wide."""
    per_test = workload.tests > 0
    unit = "ms above plain" if per_test else "ratio to plain"
    lines = [
        f"{workload.name} ({unit})",
        f"  {'':24} {'wall':>9} {'CPU':>9} {'prompt':>9} {'disk':>9}",
    ]
    for way in ways:
        here = found[way.name]
        bases = [found[name] for name in way.against]
        columns = [
            _above(getattr(here, kind), sum(getattr(each, kind) for each in bases), workload.tests)
            for kind in ("wall", "cpu")
        ]
        lines.append(
            f"  {way.name:24} {columns[0]:>9} {columns[1]:>9} "
            f"{here.prompt:7.2f} s {here.disk / 1e6:6.1f} MB"
        )
        if len(bases) > 1:
            ratio = here.wall / sum(each.wall for each in bases)
            lines.append(f"    {ratio:.3f} of the time of {' and '.join(way.against)}")
    return lines


def _above(seconds: float, base: float, tests: int) -> str:
    if tests:
        return f"{(seconds - base) / tests * 1000:+.2f}"
    return f"{seconds / base:.3f}"


def compare(old: Path, new: Path) -> list[str]:
    """Return the lines of a table that sets two files of results side by side."""
    before, after = (json.loads(path.read_text()) for path in (old, new))
    lines = [f"{before['commit']} -> {after['commit']}, CPU seconds (wall seconds, MB)"]
    for workload in before["workloads"].keys() & after["workloads"].keys():
        lines.append(workload)
        ways = before["workloads"][workload], after["workloads"][workload]
        for name in [name for name in ways[0] if name in ways[1]]:
            a, b = (each[name] for each in ways)
            lines.append(
                f"  {name:24} {a['cpu']:8.2f} -> {b['cpu']:8.2f} ({b['cpu'] / a['cpu']:.3f})"
                f"   wall {a['wall']:.2f} -> {b['wall']:.2f}"
                f"   disk {a['disk'] / 1e6:.1f} -> {b['disk'] / 1e6:.1f}"
            )
    return lines


def commit() -> str:
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "no commit"


def doubled(ways: Iterable[Way], root: Path) -> list[Way]:
    """Return each way, followed by the same with the plugin of another checkout."""
    both = []
    for way in ways:
        both.append(way)
        if not way.is_blocked:
            both.append(dataclasses.replace(way, name=f"{way.name} {root.name}", root=root))
    return both


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--suite", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, 50 tests")
    parser.add_argument("--only", action="append", help="a way to run; may be repeated")
    parser.add_argument("--workload", action="append", choices=("start-up", "tests", "suite"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--beside", type=Path, help="another checkout")
    parser.add_argument("--compare", nargs=2, type=Path)
    parser.add_argument("tests", nargs="*", default=SUITE_TESTS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    if options.compare:
        print("\n".join(compare(*options.compare)))
        return
    wanted = set(options.only or (way.name for way in WAYS))
    wanted |= {BASE}.union(*(way.against for way in WAYS if way.name in wanted))
    ways = [way for way in available(WAYS) if way.name in wanted]
    if options.beside:
        ways = doubled(ways, options.beside.resolve())
    rounds = 1 if options.quick else options.runs
    results = {}
    with prepared() as scratch:
        workloads = {
            "start-up": empty(scratch),
            "tests": yielding(scratch, 50 if options.quick else 301),
        }
        if options.suite:
            suite = Workload("suite", options.suite.resolve(), tuple(options.tests))
            workloads["suite"] = suite
        for workload in (workloads[name] for name in options.workload or workloads):
            found = interleaved(ways, workload, rounds, scratch)
            print("\n".join(table(workload, ways, found)), flush=True)
            results[workload.name] = {
                name: dataclasses.asdict(each) for name, each in found.items()
            }
    if options.json:
        about = {
            "commit": commit(),
            "python": platform.python_version(),
            "eventlet": importlib.metadata.version("eventlet"),
            "rounds": rounds,
        }
        options.json.write_text(json.dumps({**about, "workloads": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
