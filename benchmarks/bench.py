"""Run every benchmark in its quick mode, and print what they say in one table.

Usage: python benchmarks/bench.py

The first column is the benchmark, the second what it printed. Some minutes; the figures of a
busy machine say little, so compare ratios. A benchmark that cannot run here says why.
"""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys
import tempfile

DIRECTORY = Path(__file__).resolve().parent

#: The quick mode of each. ``SUITE`` stands for a small suite that is made for it.
QUICK: dict[str, tuple[str, ...]] = {
    "startup.py": ("--runs=3",),
    "cost.py": ("--quick",),
    "growth.py": ("--quick",),
    "suite.py": ("SUITE", "epolls", "poll", "--", "test_suite.py"),
    "capture.py": ("20", "64"),
    "profile.py": ("1",),
    "alive.py": ("--quick",),
    "stalls.py": ("--quick",),
    "analysis.py": ("50000",),
}

SUITE = """\
import eventlet
import pytest
@pytest.mark.parametrize("number", range(50))
def test_yields(number):
    eventlet.sleep(0)
"""


def lines(name: str, suite: Path) -> list[str]:
    """Run one benchmark; return what it printed, or the last line of what went wrong."""
    arguments = [str(suite) if word == "SUITE" else word for word in QUICK[name]]
    command = [sys.executable, "-W", "ignore", str(DIRECTORY / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return [f"failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}"]
    return [line for line in done.stdout.splitlines() if line.strip()]


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        suite = Path(scratch)
        (suite / "test_suite.py").write_text(SUITE)
        for name in QUICK:
            for line in lines(name, suite):
                print(f"{name.removesuffix('.py'):9} {line}", flush=True)


if __name__ == "__main__":
    main()
