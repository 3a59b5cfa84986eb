"""Which of several runs follow one another in time: the columns of the matrix.

A column is a hub, with the runs that are its history. Runs under one hub are no history of each
other where what they ran on differs, or where they ran at the same time: those are jobs of a
matrix and stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence
import os
from pathlib import Path
import re

import msgspec

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.report.data import Run

#: Runs of a column that are shown, the newest.
MAX_RUNS = 100

_MACHINE = lazily(r"(?<![^\W_])(?:x86_64|amd64|aarch64|arm64|i\d86|ppc64le|riscv64|s390x)")
_RELEASE = lazily(r"\d+(?:\.\d+)*")
_MINOR = lazily(r"\d+\.\d+")


class Variant(msgspec.Struct, frozen=True):
    """What a run ran on, as far as runs that differ in it are not compared in time.

    :param python: without the patch release.
    :param eventlet: the release; what is built from a repository every night is one.
    """

    python: str
    eventlet: str
    machine: str

    def words(self, others: Sequence[Variant]) -> str:
        """Say what sets this variant apart from the others."""
        named = (
            ("Python ", "python", self.python),
            ("eventlet ", "eventlet", self.eventlet),
            ("", "machine", self.machine),
        )
        return ", ".join(
            f"{what}{value or 'unknown'}"
            for what, name, value in named
            if len({getattr(other, name) for other in others}) > 1
        )


class Column(msgspec.Struct, frozen=True):
    """A hub, and the runs under it that follow one another.

    :param runs: their numbers, the oldest first.
    :param variant: the same for columns whose outcomes may differ by the hub alone.
    """

    hub: str
    label: str
    runs: tuple[int, ...]
    variant: int


def columns(runs: Sequence[Run]) -> list[Column]:
    """Return the columns of runs.

    :param runs: in the order of their start.
    """
    variants = [_variant(run) for run in runs]
    names = labels([run.directory for run in runs])
    numbers = list(dict.fromkeys(variants))
    found = []
    for hub in dict.fromkeys(hub for run in runs for hub in run.hubs):
        of_hub = [number for number, run in enumerate(runs) if hub in run.hubs]
        groups = [
            group
            for variant in dict.fromkeys(variants[number] for number in of_hub)
            for group in _histories(
                runs, hub, [number for number in of_hub if variants[number] == variant]
            )
        ]
        several = [variants[group[0]] for group in groups]
        for group, variant in zip(groups, several, strict=True):
            words = [hub, variant.words(several)]
            if several.count(variant) > 1:
                words.append(names[group[-1]])
            label = " · ".join(filter(None, words))
            found.append(Column(hub, label, group[-MAX_RUNS:], numbers.index(variant)))
    return found


def labels(directories: Sequence[Path]) -> list[str]:
    """Return a short name for each run: the parts of its path that set it apart."""
    paths = [Path(os.path.abspath(each)).parts for each in directories]
    while len(set(paths)) > 1 and all(len(path) > 2 for path in paths) and _agree(paths, -1):
        paths = [path[:-1] for path in paths]
    names = [path[-1] for path in paths]
    if len(set(names)) == len(set(paths)):
        return names
    while _agree(paths, 0):  # they differ somewhere
        paths = [path[1:] for path in paths]
    return ["/".join(path) for path in paths]


def _agree(paths: Sequence[tuple[str, ...]], position: int) -> bool:
    return min(map(len, paths)) > 1 and len({path[position] for path in paths}) == 1


def _variant(run: Run) -> Variant:
    release = _RELEASE.match(run.facts.versions.get("eventlet", ""))
    minor = _MINOR.search(run.facts.python)
    machine = _MACHINE.search(run.facts.platform)
    return Variant(*(found[0] if found else "" for found in (minor, release, machine)))


def _histories(runs: Sequence[Run], hub: str, numbers: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield groups of runs that follow one another.

    Where some ran at the same time, those with paths that only differ in digits belong together.
    """
    if _follow(runs, hub, numbers):
        yield tuple(numbers)
        return
    jobs: dict[str, list[int]] = {}
    for number in numbers:
        path = os.path.abspath(runs[number].directory)
        jobs.setdefault(re.sub(r"\d+", "", path), []).append(number)
    for group in jobs.values():
        if _follow(runs, hub, group):
            yield tuple(group)
        else:
            yield from ((number,) for number in group)


def _follow(runs: Sequence[Run], hub: str, numbers: Sequence[int]) -> bool:
    """Say whether no two runs had a test in common at the same time.

    Runs that share none, such as the parts of a suite that was split, do not meet.
    """
    ended: dict[str, int] = {}  # of each test the end of the last run so far
    for number in numbers:
        facts = runs[number].facts
        end = facts.started_ns
        if isinstance(facts.ended_ns, int):
            end = max(end, facts.ended_ns)
        for test, row in runs[number].cells.items():
            if hub in row:
                if ended.get(test, -1) >= facts.started_ns:
                    return False
                ended[test] = end
    return True
