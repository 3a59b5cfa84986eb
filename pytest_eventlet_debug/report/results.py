"""How every test of a run ended, whether or not anything was recorded of it.

``run.json`` lists the tests that have artifacts. ``results.json`` beside it has all of them,
and of those that did not pass also what pytest said and what they printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from pytest_eventlet_debug import json_files
from pytest_eventlet_debug.outcomes.outcomes import Outcome
from pytest_eventlet_debug.reruns.verdicts import Verdict

Format = Literal["pytest-eventlet-debug results"]
FORMAT: Format = "pytest-eventlet-debug results"
SCHEMA = 1


class Section(msgspec.Struct, frozen=True):
    """What a test printed, or what a plugin added to its report.

    :param title: as pytest has it, such as ``Captured stdout call``.
    """

    title: str
    text: str


class Result(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a test ended on one hub.

    :param test: the node id without the hub.
    :param nodeid: the node id as pytest has it.
    :param seconds: how long the last attempt took, all phases.
    :param earlier: how earlier attempts ended, where the test was run again.
    :param reason: the error, or why the test was skipped, in one line.
    :param printed: what says more than that: an error that the test printed, what its hub did.
    :param failure: the failure as pytest shows it, of all phases that failed.
    """

    test: str
    hub: str
    nodeid: str
    outcome: Outcome
    seconds: float
    earlier: tuple[Outcome, ...] = ()
    reason: str = ""
    printed: str = ""
    failure: str = ""
    sections: tuple[Section, ...] = ()


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """How all tests of a run ended.

    :param run: names the run, as in ``run.json``; a file of another run says nothing of this one.
    :param hubs: in the order in which the user named them.
    :param verdicts: on the tests that the hubs set apart, after their reruns.
    :param upgrade: the comparison with an earlier run, as the terminal has it.
    """

    run: str
    hubs: tuple[str, ...]
    tests: tuple[Result, ...]
    verdicts: tuple[Verdict, ...] = ()
    upgrade: tuple[str, ...] = ()
    format: Format = FORMAT
    schema: int = SCHEMA


def write(results: Results, path: Path) -> None:
    """Write results as JSON.

    :raises OSError: the file cannot be written.
    """
    json_files.write(path, results)


def read(path: Path) -> Results | None:
    """Return the results in a file, or ``None`` where there are none of ours."""
    return json_files.read_ours(path, Results)
