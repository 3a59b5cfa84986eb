"""Compare one run over several hubs with separate runs, in time and outcomes.

Usage: python benchmarks/suite.py DIRECTORY [HUB ...] [-- PYTEST ARGUMENTS]

DIRECTORY holds a suite, such as eventlet's unpacked source distribution. Each hub is first
run by itself, ``EVENTLET_HUB=hub pytest`` with the plugin blocked; then all in one command,
one after the other and two at a time. What is printed are ratios of wall time, and every
test whose outcome is not that of its separate run. A test that is flaky by itself shows up
here too: look at it before blaming the plugin.
"""

from __future__ import annotations

import os
from pathlib import Path
import subprocess
import sys
import tempfile
import time
from xml.etree import ElementTree

Outcomes = dict[tuple[str, str], str]


def run(directory: Path, report: Path, arguments: list[str], hub: str | None = None) -> float:
    """Run pytest; return its wall time in seconds."""
    environment = {**os.environ, **({"EVENTLET_HUB": hub} if hub else {})}
    null = subprocess.DEVNULL
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *arguments]
    started = time.monotonic()
    subprocess.run(command, cwd=directory, env=environment, stdout=null, stderr=null, check=False)
    return time.monotonic() - started


def outcomes(report: Path) -> Outcomes:
    """Return each test's outcome from a JUnit report."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        kinds = {child.tag for child in case} & {"failure", "error", "skipped"}
        found[case.get("classname", ""), case.get("name", "")] = min(kinds, default="passed")
    return found


def of_hub(found: Outcomes, hub: str) -> Outcomes:
    """Return the outcomes under one hub, with the hub taken out of the names."""
    own = {}
    for (classname, name), outcome in found.items():
        if name.endswith(f"[{hub}]"):
            own[classname, name[: -len(hub) - 2]] = outcome
        elif name.endswith(f"-{hub}]"):
            own[classname, f"{name[: -len(hub) - 2]}]"] = outcome
        elif not classname:  # a module that was skipped as a whole
            own[classname, name] = outcome
    return own


def main() -> None:
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    (folder, *hubs), arguments = words[:split], words[split + 1 :] or ["tests"]
    hubs = hubs or ["epolls", "poll", "selects", "asyncio"]
    directory = Path(folder)
    with tempfile.TemporaryDirectory() as scratch:
        apart: dict[str, Outcomes] = {}
        total = 0.0
        for hub in hubs:
            report = Path(scratch, f"{hub}.xml")
            seconds = run(directory, report, ["-p", "no:eventlet-debug", *arguments], hub)
            apart[hub] = outcomes(report)
            total += seconds
            print(f"{hub} by itself: {seconds:.1f} s, {len(apart[hub])} tests", flush=True)
        for jobs in (1, 2):
            report = Path(scratch, f"together-{jobs}.xml")
            options = [f"--eventlet-hub={','.join(hubs)}", f"--eventlet-jobs={jobs}"]
            seconds = run(directory, report, [*options, *arguments])
            print(f"together, {jobs} at a time: {seconds:.1f} s, ratio {seconds / total:.3f}")
            together = outcomes(report)
            for hub in hubs:
                own = of_hub(together, hub)
                for test in sorted({*own, *apart[hub]}):
                    before, after = apart[hub].get(test, "absent"), own.get(test, "absent")
                    if before != after:
                        print(f"  {hub}: {'.'.join(test)}: {before} apart, {after} together")


if __name__ == "__main__":
    main()
