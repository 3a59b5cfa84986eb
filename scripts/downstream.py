"""Run suites of projects that use eventlet by hand and under the plugin, and compare them.

    python scripts/downstream.py [--directory DIR] [--timeout SECONDS] [SUITE ...]

Each suite comes from its source distribution, pinned below, and gets a virtual environment of its
own. It runs once for each hub as its developers run it, with ``EVENTLET_HUB`` set and the plugin
blocked, and once under the plugin with all hubs. Every test must have the same outcome both ways;
a suite that differs runs once more, since tests can be flaky. The exit status is 1 if a test
differs twice.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import signal
import subprocess
import sys
from typing import NamedTuple
import venv
import xml.etree.ElementTree as ElementTree

ROOT = Path(__file__).resolve().parent.parent
HUBS = ("epolls", "asyncio")

# The outcome of each test by its class and name, as JUnit has them.
Outcomes = dict[str, str]


@dataclass(frozen=True)
class Suite:
    """A suite of somebody else's, and how its developers run it."""

    distribution: str
    version: str
    tests: str
    requires: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()

    @property
    def requirement(self) -> str:
        return f"{self.distribution}=={self.version}"


SUITES = (
    Suite(
        "oslo.concurrency",
        "7.6.1",
        "oslo_concurrency/tests",
        ("oslotest", "fixtures", "coverage", "stestr"),
        environment=(("TEST_EVENTLET", "1"),),
    ),
    Suite(
        "oslo.log",
        "8.3.2",
        "oslo_log/tests",
        ("oslotest", "fixtures", "testtools"),
        environment=(("OSLO_LOG_TEST_EVENTLET", "1"),),
    ),
    Suite(
        "python-engineio",
        "4.15.1",
        "tests",
        ("pytest-asyncio", "aiohttp", "tornado", "requests", "websocket-client"),
        arguments=("-p", "no:logging"),
    ),
    Suite(
        "python-socketio",
        "5.18.1",
        "tests",
        (
            "simple-websocket",
            "uvicorn",
            "requests",
            "websocket-client",
            "aiohttp",
            "msgpack",
            "redis",
            "valkey",
            "pytest-asyncio",
            "pytest-timeout",
        ),
        arguments=("-p", "no:logging", "--timeout=60"),
    ),
    Suite("gunicorn", "23.0.0", "tests", ("gevent", "pytest-cov")),
    Suite(
        "oslo.messaging",
        "17.3.2",
        "oslo_messaging/tests",
        ("oslotest", "fixtures", "testscenarios", "testtools", "confluent-kafka"),
        # Those need brokers. Of the others, 36 that unittest gives scenarios fail under pytest.
        arguments=("--ignore=oslo_messaging/tests/functional",),
    ),
    Suite(
        "swift",
        "2.38.3",
        "test/unit/common",
        ("boto3", "fixtures", "keystonemiddleware", "python-swiftclient", "requests-mock"),
        # The asyncio hub refuses what swift asks for: thousands fail with long tracebacks. What
        # is left out counts retries in a few milliseconds, and varies by hand too.
        arguments=("--tb=no", "-k", "not TestCooperativeCachePopulator"),
    ),
)


class Checkout:
    """A suite unpacked, with the environment that its tests run in."""

    def __init__(self, suite: Suite, directory: Path) -> None:
        self.suite = suite
        self._home = directory / suite.distribution
        self._python = self._home / "venv" / "bin" / "python"

    def prepare(self) -> None:
        """Download and install what is not there yet, and the plugin as it is now."""
        self._home.mkdir(parents=True, exist_ok=True)
        # For suites without a configuration: else pytest finds this project's further up.
        (self._home / "pytest.ini").touch()
        if not self._python.exists():
            venv.create(self._home / "venv", with_pip=True)
        self._pip("install", self.suite.requirement, *self.suite.requires, "pytest", "eventlet")
        shutil.rmtree(ROOT / "build", ignore_errors=True)  # may hold modules that are gone
        self._pip("install", "--force-reinstall", "--no-deps", str(ROOT))
        self._pip("install", str(ROOT))
        if not list(self._home.glob("*.tar.gz")):
            source = ("--no-deps", "--no-binary", self.suite.distribution)
            self._pip("download", *source, "--dest", str(self._home), self.suite.requirement)
        [archive] = self._home.glob("*.tar.gz")
        subprocess.run(["tar", "-xzf", archive, "-C", self._home], check=True)

    def versions(self) -> str:
        """Return the versions that the outcomes depend on, in one line."""
        code = (
            "import importlib.metadata as m, platform;"
            "print('Python', platform.python_version(), *(f'{n} {m.version(n)}' for n in"
            " ('pytest', 'eventlet', 'greenlet')), sep=', ')"
        )
        answer = subprocess.run([self._python, "-c", code], capture_output=True, text=True)
        return answer.stdout.strip().replace("Python,", "Python")

    def by_hand(self, hub: str, timeout: float) -> Outcomes | None:
        """Return the outcomes under one hub without the plugin; ``None`` if the run hung."""
        return self._run(f"by-hand-{hub}", ["-p", "no:eventlet-debug"], timeout, hub)

    def under_the_plugin(self, timeout: float) -> dict[str, Outcomes] | None:
        """Return the outcomes of one run under all hubs, by hub; ``None`` if it hung.

        :param timeout: seconds that a hub may take, and that it may be silent.
        """
        hubs = ",".join(HUBS)
        arguments = [f"--eventlet-hub={hubs}", f"--eventlet-timeout={timeout:g}"]
        found = self._run("plugin", arguments, timeout * 2 * len(HUBS), None)
        return None if found is None else by_hub(found)

    def _run(
        self, name: str, arguments: list[str], timeout: float, hub: str | None
    ) -> Outcomes | None:
        [tree] = (path for path in self._home.iterdir() if (path / "PKG-INFO").exists())
        junit = self._home / f"{name}.xml"
        junit.unlink(missing_ok=True)
        command = [str(self._python), "-m", "pytest", "-q", f"--junitxml={junit}"]
        command += [*self.suite.arguments, *arguments, self.suite.tests]
        environment = {**os.environ, **dict(self.suite.environment)}
        environment.pop("EVENTLET_HUB", None)
        if hub is not None:
            environment["EVENTLET_HUB"] = hub
        output = self._home / f"{name}.log"
        with open(output, "w") as log:
            process = subprocess.Popen(
                command,
                cwd=tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None
        if not junit.exists():
            sys.exit(f"{self.suite.requirement}: no test ran, {output} says why")
        return read(junit)

    def _pip(self, *arguments: str) -> None:
        subprocess.run([self._python, "-m", "pip", "--quiet", *arguments], check=True)


def read(junit: Path) -> Outcomes:
    """Return the outcomes in a JUnit file. A test that has several there has the worst of them."""
    found: Outcomes = {}
    severity = ("passed", "skipped", "failure", "error")
    for case in ElementTree.parse(junit).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        outcomes = [child.tag for child in case if child.tag in severity]
        found[name] = max([*outcomes, found.get(name, "passed")], key=severity.index)
    return found


def by_hub(found: Outcomes) -> dict[str, Outcomes]:
    """Sort the outcomes of several hubs by the hub, and take it off the tests' names."""
    sorted_: dict[str, Outcomes] = {hub: {} for hub in HUBS}
    for name, outcome in found.items():
        for hub in HUBS:
            if name.endswith(f"[{hub}]"):
                sorted_[hub][name.removesuffix(f"[{hub}]")] = outcome
            elif name.endswith(f"-{hub}]"):
                sorted_[hub][name.removesuffix(f"-{hub}]") + "]"] = outcome
    return sorted_


def counts(outcomes: Outcomes | None) -> str:
    """Return how many tests had which outcome, such as ``60 passed, 2 skipped``."""
    if outcomes is None:
        return "hung"
    of_each = Counter(outcomes.values())
    return ", ".join(f"{of_each[outcome]} {outcome}" for outcome in sorted(of_each)) or "no tests"


class Comparison(NamedTuple):
    """What came out under one hub; ``None`` for a run that hung."""

    by_hand: Outcomes | None
    plugin: Outcomes | None

    def differences(self) -> list[str]:
        """Return a line for each test whose outcome is another, or that only one of them has."""
        if self.by_hand is None:
            return []  # there is nothing to compare with
        if self.plugin is None:
            return ["the whole run: ended by hand, hung under the plugin"]
        lines = []
        for name in sorted(self.by_hand.keys() | self.plugin.keys()):
            one = self.by_hand.get(name, "not there")
            other = self.plugin.get(name, "not there")
            if one != other:
                lines.append(f"{name}: {one} by hand, {other} under the plugin")
        return lines


def compare(checkout: Checkout, timeout: float) -> dict[str, Comparison]:
    """Run a suite both ways, and return what came out under each hub."""
    by_hand = {hub: checkout.by_hand(hub, timeout) for hub in HUBS}
    plugin = checkout.under_the_plugin(timeout) or {}
    return {hub: Comparison(by_hand[hub], plugin.get(hub)) for hub in HUBS}


def check(suite: Suite, directory: Path, timeout: float) -> bool:
    """Run a suite both ways and print a line for each hub; say whether all outcomes are equal.

    If they are not, it runs once more: a test differs if it differs twice in the same way.
    """
    checkout = Checkout(suite, directory)
    checkout.prepare()
    print(f"{suite.requirement} ({checkout.versions()})", flush=True)
    found = compare(checkout, timeout)
    differ = {hub: found[hub].differences() for hub in HUBS}
    if any(differ.values()):
        again = compare(checkout, timeout)
        for hub in HUBS:
            repeated = again[hub].differences()
            differ[hub] = [line for line in differ[hub] if line in repeated]
    for hub in HUBS:
        by_hand, plugin = counts(found[hub].by_hand), counts(found[hub].plugin)
        verdict = f"{len(differ[hub])} differ" if differ[hub] else "same"
        print(f"  {hub:8} {by_hand:40} {plugin:40} {verdict}", flush=True)
        for line in differ[hub]:
            print(f"      {line}", flush=True)
    return not any(differ.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="default: all of them")
    parser.add_argument("--directory", type=Path, default=ROOT / ".downstream")
    parser.add_argument(
        "--timeout", type=float, default=300, help="seconds that a suite may take on a hub"
    )
    arguments = parser.parse_args()
    known = {suite.distribution: suite for suite in SUITES}
    unknown = sorted(set(arguments.suites) - known.keys())
    if unknown:
        parser.error(f"no such suite: {', '.join(unknown)}. There are {', '.join(known)}.")
    chosen = [known[name] for name in arguments.suites or known]
    print(f"  {'hub':8} {'by hand':40} {'under the plugin':40}")
    equal = [check(suite, arguments.directory, arguments.timeout) for suite in chosen]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
