"""The state of one hub's run, over as many children as it takes."""

from __future__ import annotations

from collections import Counter
import dataclasses
from pathlib import Path
from typing import Literal

import pytest

from pytest_eventlet_debug import artifacts
from pytest_eventlet_debug.children import messages
from pytest_eventlet_debug.children.process import ChildProcess
from pytest_eventlet_debug.children.silence import Silence
from pytest_eventlet_debug.hubs.names import Hub
from pytest_eventlet_debug.system import unpatched

End = Literal["crashed", "hung"]

#: The phase that pytest-xdist gives its report on a test whose worker has died.
DEAD_WORKER: str = "???"

#: Seconds of silence that are worth a line, and that nobody minds in a passing run.
NOTICE_SECONDS = 60.0


@dataclasses.dataclass
class RunningTest:
    """A test that a child has begun.

    :param location: where it stands.
    :param phases: those that it has reported: when they began and ended, in ns of the clock.
    :param begun: when phases began whose reports may be held back, in the order of the phases.
    :param failed: whether one of them did not pass.
    :param directory: where it is recorded, as far as that is known.
    """

    location: messages.Location
    phases: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    begun: dict[str, int] = dataclasses.field(default_factory=dict)
    failed: bool = False
    started: float = dataclasses.field(default_factory=unpatched.monotonic)
    started_ns: int = dataclasses.field(default_factory=unpatched.time_ns)
    directory: Path | None = None
    held: list[messages.Message] = dataclasses.field(default_factory=list)

    def begin(self, phase: str, at_ns: int) -> None:
        """Note that one of its phases begins."""
        if phase == "setup":  # of the next attempt, where there was one before
            self.phases, self.begun, self.failed = {}, {}, False
        self.begun[phase] = at_ns

    def note(self, report: pytest.TestReport) -> None:
        """Note what it says of one of its phases."""
        if hasattr(report, "context"):  # of a subtest: the call goes on
            return
        if report.when == "setup":  # of the next attempt, where there was one before
            self.phases, self.failed = {}, False
        self.phases[str(report.when)] = (int(report.start * 1e9), int(report.stop * 1e9))
        self.failed |= not report.passed

    def note_end(self, artifacts_directory: Path, nodeid: str, end: End) -> None:
        """Note in its recordings, where there are any, that it has crashed or hung now."""
        phases = self.phases_until(unpatched.time_ns())
        self.directory = artifacts.note_end(artifacts_directory, nodeid, end, phases)

    def phases_until(self, now_ns: int) -> dict[str, tuple[int, int]]:
        """Return the phases that it has come through, and the one that it is in until now."""
        if self.begun:
            ends = [*self.begun.values(), now_ns][1:]
            return {
                name: (began, end)
                for (name, began), end in zip(self.begun.items(), ends, strict=True)
            }
        began = max((end for _, end in self.phases.values()), default=self.started_ns)
        current = "teardown" if "call" in self.phases or self.failed else "call"
        return {**self.phases, current if self.phases else "setup": (began, now_ns)}


@dataclasses.dataclass
class HubRun:
    """All tests under one hub.

    :param hub: the hub, or ``None`` for whatever is set.
    :param ids: the ids of all its tests, ``None`` until they are collected.
    :param stepwise_count: how many tests ``--stepwise`` counted.
    :param done: the ids of the tests that are over.
    :param deselected: the ids of the tests that were left out, as far as that is known.
    :param begun: whether the last child's session has begun.
    :param exit_status: what the last child said its session ended with.
    :param wanted: whether any test named on the command line is one of this hub's.
    :param has_workers: whether pytest-xdist runs the tests, which reports none as deselected.
    :param absent: the ids that the user named and this hub does not have, by their names
        without a hub, and the reasons where the module skips itself.
    :param silence: how long the child has said nothing.
    :param seconds: how long the sessions of its children took that ended them.
    :param seconds_without_cpu: for how much of that they were ready to run and had none.
    :param interrupted: whether the last child's session was, by Ctrl-C.
    :param stopped: whether it was, by that or by ``pytest.exit()``.
    :param trouble: why not all tests ran, in words, where it is known.
    """

    hub: Hub | None
    process: ChildProcess | None = None
    children: int = 0
    ids: list[str] | None = None
    stepwise_count: int | None = None
    done: list[str] = dataclasses.field(default_factory=list)
    running: dict[str, RunningTest] = dataclasses.field(default_factory=dict)
    begun: bool = False
    deselected: set[str] = dataclasses.field(default_factory=set)
    exit_status: int | None = None
    wanted: bool = True
    has_workers: bool = False
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    seconds: float = 0.0
    seconds_without_cpu: float = 0.0
    interrupted: bool = False
    stopped: bool = False
    trouble: str = ""
    debugging: bool = False
    silence: Silence = dataclasses.field(default_factory=Silence)
    notice_after: float = NOTICE_SECONDS
    done_before: int = 0

    @property
    def name(self) -> str:
        """The hub's name, for people."""
        return self.hub.name if self.hub else "default"

    @property
    def label(self) -> str:
        """What the files of its next child are called."""
        # The length keeps apart names that differ in "/" and "_" alone.
        return f"{len(self.name)}-{self.name.replace('/', '_')}-{self.children}"

    @property
    def complete(self) -> bool:
        """Whether all its tests ran."""
        return self.ids is not None and not self.remaining

    @property
    def left_out(self) -> bool:
        """Whether the user's choice of tests, such as ``-k``, leaves this hub none."""
        return self.ids == [] and (bool(self.deselected) or self.has_workers)

    @property
    def remaining(self) -> list[str]:
        """The ids of the tests that are still to run, in order."""
        # Counted, not looked up: --keep-duplicates and pytest-repeat run an id several times.
        done = Counter(self.done)
        remaining = []
        for nodeid in self.ids or ():
            if done[nodeid] > 0:
                done[nodeid] -= 1
            else:
                remaining.append(nodeid)
        return remaining

    @property
    def silent(self) -> float:
        """Seconds since the child said anything; none while its user is in a debugger."""
        return 0.0 if self.debugging else self.silence.seconds

    @property
    def where(self) -> str:
        """What the child is at, in words."""
        if self.running:
            return ", ".join(self.running)
        return "its collection" if self.ids is None else "what follows its last test"

    def begin(self, process: ChildProcess) -> None:
        """Note that a child has started."""
        self.process = process
        self.children += 1
        self.exit_status = None
        self.begun = False
        self.debugging = False
        self.done_before = len(self.done)
        self.hear()

    def hear(self) -> None:
        """Note that the child has said something."""
        self.silence = Silence()
        self.notice_after = NOTICE_SECONDS

    @property
    def may_go_on(self) -> bool:
        """Whether a fresh child has tests to run and the last one got anywhere.

        One that ended no test would be followed by others like it for ever.
        """
        return len(self.done) > self.done_before and bool(self.remaining)
