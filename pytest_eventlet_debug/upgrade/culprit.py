"""Find which of the distributions that changed between two runs make its tests fail.

The tests that got worse run again, with some of the changed distributions as they were before and
the others as they are after. What a run wants in another version than is installed here is put
in a directory of its own, once, and comes first on ``PYTHONPATH``: nothing installed is changed.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from pytest_eventlet_debug.hubs.ids import add_hub
from pytest_eventlet_debug.outcomes.outcomes import BAD
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.phrasing import tests
from pytest_eventlet_debug.reruns.smallest import smallest
from pytest_eventlet_debug.system.programs import running
from pytest_eventlet_debug.upgrade import comparison
from pytest_eventlet_debug.upgrade import present_tests
from pytest_eventlet_debug.upgrade import saved_run
from pytest_eventlet_debug.upgrade.comparison import Upgrade
from pytest_eventlet_debug.upgrade.saved_run import Key
from pytest_eventlet_debug.upgrade.saved_run import SavedRun
from pytest_eventlet_debug.upgrade.saved_run import SavedRunError

#: What ``distributions`` says of a checkout: no index has it.
_CHECKOUT = re.compile(r" \(commit ")


class CulpritError(Exception):
    """The search cannot begin or go on. One line: why, and what would help."""


@dataclasses.dataclass(frozen=True)
class Culprits:
    """What a search has found.

    :param smallest: the names of the distributions that together make all of ``tests`` fail.
    :param alone: for each of them the tests that fail if it alone is upgraded.
    :param tests: the tests that got worse and fail again with everything upgraded.
    :param lost: those that pass with everything upgraded, so that nothing can be said of them.
    :param runs: how often tests were run.
    """

    smallest: tuple[str, ...]
    alone: Mapping[str, tuple[Key, ...]]
    tests: tuple[Key, ...]
    lost: tuple[Key, ...]
    runs: int


#: Runs tests with some distributions upgraded and says how those ended that there were.
Run = Callable[[Sequence[str]], Mapping[Key, Outcome]]


def suspects(old: SavedRun, new: SavedRun) -> list[Upgrade]:
    """Return the distributions that changed and can be had in both versions, likely ones first.

    :raises CulpritError: there is none, or nothing got worse.
    """
    verdict = comparison.compare(old, new)
    if not verdict.of("regression"):
        raise CulpritError("no test that passed before fails now: there is nothing to explain")
    found = [
        each
        for each in verdict.upgrades
        if each.before is not None
        and not _CHECKOUT.search(each.before)
        and not (each.now is not None and _CHECKOUT.search(each.now))
    ]
    if not found:
        raise CulpritError("no changed distribution can be installed in both versions")
    return found


def search(names: Sequence[str], regressions: Iterable[Key], run: Run) -> Culprits:
    """Find the smallest set of upgrades that makes the tests fail.

    :param names: the distributions that changed, the most likely ones first.
    :param regressions: the tests that got worse.
    :raises CulpritError: upgrades do not explain it.
    """
    wanted = set(regressions)
    runs = 0

    def outcomes(upgraded: Sequence[str]) -> dict[Key, Outcome]:
        nonlocal runs
        runs += 1
        return {key: outcome for key, outcome in run(upgraded).items() if key in wanted}

    def failing(upgraded: Sequence[str]) -> set[Key]:
        # Without those that a mixture of versions leaves no module to collect from.
        return _bad(outcomes(upgraded))

    now = outcomes(names)
    if not now:
        raise CulpritError("the tests cannot be collected with every distribution upgraded")
    after = _bad(now)
    if not after:
        raise CulpritError(
            "the tests pass with every distribution upgraded: they are flaky, or something else "
            "changed (the tests, the machine)"
        )
    before = outcomes(())
    explained = {key for key in after if before.get(key, "failed") not in BAD}
    if not explained:
        raise CulpritError(
            "the tests fail with every distribution as it was before, too: no upgrade is to blame"
        )
    found = smallest(names, lambda part: explained <= failing(part))
    alone = {name: failing([name]) & explained for name in found} if len(found) > 1 else {}
    return Culprits(
        tuple(found),
        {name: tuple(sorted(tests)) for name, tests in alone.items()},
        tuple(sorted(explained)),
        tuple(sorted(wanted - explained)),
        runs,
    )


def _bad(outcomes: Mapping[Key, Outcome]) -> set[Key]:
    return {key for key, outcome in outcomes.items() if outcome in BAD}


class Overlay:
    """Runs tests with changed distributions in chosen versions, from an empty directory.

    :param directory: holds the distributions that are not installed as a run wants them.
    :param old: the run before the upgrades.
    :param new: the run after them.
    :param arguments: more of pytest's command line.
    """

    def __init__(
        self, directory: Path, old: SavedRun, new: SavedRun, arguments: Sequence[str] = ()
    ) -> None:
        self._directory = directory
        self._old = old
        self._new = new
        self._arguments = list(arguments)
        self._installed = _installed_versions()
        #: The distributions that changed.
        self.names = [each.name for each in suspects(old, new)]
        #: The tests that got worse.
        self.tests = [
            (change.test, change.hub) for change in comparison.compare(old, new).of("regression")
        ]

    def run(self, upgraded: Sequence[str]) -> dict[Key, Outcome]:
        """Run the tests that got worse; return how those ended that can be collected.

        :raises CulpritError: a version cannot be had, or the tests cannot be run.
        """
        saved = self._directory / "run.json"
        saved.unlink(missing_ok=True)
        # In a file, as the kernel bounds what stands on a command line.
        chosen = self._directory / "tests"
        chosen.write_bytes(os.fsencode("\n".join(add_hub(*test) for test in self.tests)))
        ran = _run(
            [
                *(sys.executable, "-m", "pytest", "-q", f"--eventlet-save={saved}"),
                *("-p", present_tests.__name__, "--continue-on-collection-errors"),
                f"--eventlet-hub={','.join(dict.fromkeys(hub for _, hub in self.tests))}",
                *self._arguments,
                f"@{chosen}",
            ],
            env={**os.environ, "PYTHONPATH": self._path(upgraded)},
        )
        try:
            run = saved_run.read(saved)
        except SavedRunError:
            last = (ran.stdout + ran.stderr).strip().splitlines()[-1:]
            raise CulpritError(
                f"pytest could not run the tests with {_named(upgraded)} upgraded: {''.join(last)}"
            ) from None
        return {each.key: each.outcome for each in run.tests}

    def _path(self, upgraded: Sequence[str]) -> str:
        folders = []
        for name in self.names:
            run = self._new if name in upgraded else self._old
            known = run.distributions.get(name)
            if known is not None and known.version != self._installed.get(name):
                folders.append(str(self._fetch(name, known.version)))
        before = os.environ.get("PYTHONPATH")
        return os.pathsep.join([*folders, *([before] if before else [])])

    def _fetch(self, name: str, version: str) -> Path:
        """Return a folder that holds a distribution alone, without what it requires."""
        folder = self._directory / f"{name}-{version}"
        if folder.exists():
            return folder
        draft = folder.with_suffix(".part")
        shutil.rmtree(draft, ignore_errors=True)
        command = [*_installer(), "--no-deps", "--target", str(draft), f"{name}=={version}"]
        ran = _run(command)
        if ran.returncode:
            last = ran.stderr.strip().splitlines()[-1:]
            raise CulpritError(f"{name} {version} cannot be installed: {''.join(last)}")
        draft.rename(folder)
        return folder


def _run(
    command: Sequence[str], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program; return its output, whatever bytes it prints."""
    with running(
        command,
        own_group=True,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        errors="replace",
    ) as process:
        output, errors = process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def _installer() -> list[str]:
    uv = shutil.which("uv")
    if uv is not None:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def _installed_versions() -> dict[str, str]:
    from pytest_eventlet_debug.upgrade.distributions import Installed  # reads every distribution

    return {name: each.version for name, each in Installed().distributions.items()}


def describe(found: Culprits, upgrades: Iterable[Upgrade]) -> list[str]:
    """Return what a search has found as lines of text."""
    versions = {each.name: f"{each.before} -> {each.now or 'removed'}" for each in upgrades}
    lines = [f"what makes {tests(len(found.tests))} fail ({found.runs} runs):"]
    for name in found.smallest:
        lines.append(f"  {name}  {versions[name]}")
        if len(found.smallest) > 1:
            alone = found.alone[name]
            lines += [f"    alone it fails {test} ({hub})" for test, hub in alone]
    if len(found.smallest) > 1 and not any(found.alone.values()):
        lines.append("  only together")
    for test, hub in found.lost:
        lines.append(f"not explained by an upgrade: {test} ({hub})")
    return lines


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
