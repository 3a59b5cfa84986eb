"""What the plugin costs while none of its options is given.

    python benchmarks/startup.py [--runs=40]

It makes two directories of links to this interpreter's site-packages: one as it is, and one
without the plugin, as if it had never been installed. Then it runs pytest with each in
turn, on one CPU, and prints the medians of the CPU time and their ratio. A third
turn blocks the plugin with ``-p no:eventlet-debug``. The time of a program that is
started anew varies by some percent; the first ratio printed, that of two equal
directories, says by how much.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
import resource
import statistics
import subprocess
import sys
import sysconfig
import tempfile

ROOT = Path(__file__).resolve().parent.parent

# Without site, so that nothing but the directory and the standard library is there.
PROGRAM = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def make_site(directory: Path, *, with_plugin: bool) -> Path:
    """Make a directory that stands for site-packages; other pytest plugins are left out."""
    directory.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        ours = "eventlet_debug" in path.name
        plugin = path.name.startswith(("pytest_", "xdist", "hypothesis", "platformdirs"))
        if not ours and not plugin and path.suffix != ".pth":
            (directory / path.name).symlink_to(path)
    if with_plugin:
        (directory / "pytest_eventlet_debug").symlink_to(ROOT / "pytest_eventlet_debug")
        information = directory / "pytest_eventlet_debug-0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(
            "Metadata-Version: 2.1\nName: pytest-eventlet-debug\nVersion: 0\n"
        )
        (information / "entry_points.txt").write_text(
            "[pytest11]\neventlet-debug = pytest_eventlet_debug.plugin\n"
        )
    return directory


def cpu_seconds(site: Path, arguments: list[str], directory: Path) -> float:
    """Run pytest to its end and return the CPU time that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, str(site), "-p", "no:cacheprovider", *arguments],
        cwd=directory,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=40, help="of each kind (default: 40)")
    runs = parser.parse_args().runs
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        without = make_site(directory / "without", with_plugin=False)
        again = make_site(directory / "again", with_plugin=False)
        installed = make_site(directory / "installed", with_plugin=True)
        suite = directory / "suite"
        suite.mkdir()
        (suite / "test_empty.py").write_text("def test_empty(): pass\n")
        for what in (["--version"], ["test_empty.py"]):
            kinds = {
                "not installed": (without, what),
                "not installed, again": (again, what),
                "blocked": (installed, [*what, "-p", "no:eventlet-debug"]),
                "installed": (installed, what),
            }
            times: dict[str, list[float]] = {kind: [] for kind in kinds}
            for number in range(runs + 1):
                for kind, (site, arguments) in kinds.items():
                    taken = cpu_seconds(site, arguments, suite)
                    if number:  # the first one compiles
                        times[kind].append(taken)
            base = statistics.median(times["not installed"])
            print(f"pytest {' '.join(what)}")
            for kind, taken_times in times.items():
                median = statistics.median(taken_times)
                print(f"  {kind:21} {median * 1000:7.1f} ms CPU   ratio {median / base:.3f}")


if __name__ == "__main__":
    main()
